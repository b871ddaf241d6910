"""Names, digests and request ids."""

from __future__ import annotations

import hashlib

import pytest

from vedette import ids
from vedette.errors import ConfigError


@pytest.mark.parametrize("name", ["a", "hello", "a-b", "a1", "x" * 63])
def test_a_good_name_is_accepted(name: str) -> None:
    assert ids.require_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "A", "1a", "-a", "a-", "a_b", "a.b", "x" * 64, "a\n", "ä", "../a", "a b"]
)
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ids.require_name(name)
    assert caught.value.code == "invalid_name"


def test_a_digest_names_its_content() -> None:
    assert ids.digest_of(b"x") == "sha256:" + hashlib.sha256(b"x").hexdigest()
    assert ids.digest_hex(ids.digest_of(b"x")) == hashlib.sha256(b"x").hexdigest()


@pytest.mark.parametrize("text", ["", "sha256:", "sha256:" + "A" * 64, "a" * 64, "sha256:../../x"])
def test_what_is_no_digest_never_becomes_a_path(text: str) -> None:
    with pytest.raises(ConfigError):
        ids.digest_hex(text)


def test_a_digest_with_a_newline_is_refused() -> None:
    assert not ids.is_digest(ids.digest_of(b"x") + "\n")


def test_request_ids_are_distinct_and_ordered_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {ids.new_request_id() for _ in range(1_000)}
    assert len(made) == 1_000
    assert {len(each) for each in made} == {26}
    monkeypatch.setattr("time.time_ns", lambda: 1_000_000)
    early = ids.new_request_id()
    monkeypatch.setattr("time.time_ns", lambda: 2_000_000)
    assert early < ids.new_request_id()


def test_a_serial_fits_twenty_octets_and_is_positive() -> None:
    serials = {ids.new_serial() for _ in range(100)}
    assert len(serials) == 100
    assert all(0 < serial < 1 << 159 for serial in serials)
