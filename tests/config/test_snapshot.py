"""The snapshot's canonical form and digest."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.config.samples import DIGEST, OTHER_DIGEST, snapshot, snapshot_data

from vedette.config.model import build
from vedette.config.snapshot import FunctionLimits, IssuerKey, Snapshot
from vedette.errors import ConfigError, TrustError
from vedette.ids import digest_of


def _names(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {name for inner in value.values() for name in _names(inner)}
    if isinstance(value, list):
        return {name for inner in value for name in _names(inner)}
    return set()


def test_canonical_bytes_have_one_spelling() -> None:
    payload = snapshot().canonical_bytes()
    data = json.loads(payload)
    assert (
        payload
        == json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    )
    assert "Grüße".encode() in payload
    assert b"null" not in payload


def test_every_default_is_filled_in() -> None:
    data = json.loads(snapshot().canonical_bytes())
    assert data["admit"]["maxHeaderBytes"] == 32_768
    assert data["admit"]["maxUriBytes"] == 8_192
    assert data["identity"]["issuers"][0]["leewaySeconds"] == 5
    assert data["functions"][0]["limits"] == {
        "cpuMillis": 1_000,
        "wallMillis": 30_000,
        "memoryBytes": 134_217_728,
        "requestBytes": 10_485_760,
        "responseBytes": 10_485_760,
        "concurrency": 256,
    }
    assert data["routes"][0]["hosts"] == []
    assert data["routes"][0]["backend"]["contentType"] == "text/plain"


def test_names_on_the_wire_are_camel_case() -> None:
    names = _names(json.loads(snapshot().canonical_bytes()))
    assert not [name for name in names if "_" in name]


def test_the_digest_depends_on_content_and_not_on_order_of_writing() -> None:
    data = dict(reversed(snapshot_data().items()))
    assert build(Snapshot, data).digest() == snapshot().digest()
    assert snapshot().digest() == digest_of(snapshot().canonical_bytes())
    data["admit"]["maxHeaders"] = 99
    assert build(Snapshot, data).digest() != snapshot().digest()


def test_parse_gives_back_the_same_snapshot() -> None:
    assert Snapshot.parse(snapshot().canonical_bytes()) == snapshot()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + b"\n",
        lambda text: text.replace(b":", b": ", 1),
        lambda text: text.replace(b'"concurrency":256,', b""),
        lambda text: text.replace(b'"maxHeaders":100', b'"maxHeaders":100.0'),
        lambda text: text.replace(b'"kind"', b'"unknown":1,"kind"', 1),
        lambda text: text[:-1],
        lambda text: b"[" * 100_000,
        lambda text: b"\xff",
        lambda text: b"{}",
    ],
)
def test_anything_but_the_canonical_form_is_not_trusted(change: Any) -> None:
    payload = change(snapshot().canonical_bytes())
    assert payload != snapshot().canonical_bytes()
    with pytest.raises(TrustError) as caught:
        Snapshot.parse(payload)
    assert caught.value.code == "payload_invalid"


def test_a_changed_copy_is_validated() -> None:
    changed = snapshot().with_(functions=(), routes=())
    assert changed.functions == ()
    with pytest.raises(ConfigError):
        snapshot().with_(functions=())  # the route to hello would dangle


def test_lookups_and_blobs() -> None:
    assert snapshot().function("hello") is not None
    assert snapshot().function("other") is None
    assert snapshot().route("health") is not None
    assert snapshot().blobs() == {DIGEST, OTHER_DIGEST}


def test_numbers_are_numbers_and_flags_are_flags() -> None:
    for value in ("5", 5.0, True, None):
        with pytest.raises(ConfigError):
            build(FunctionLimits, {"concurrency": value})


def test_a_snapshot_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError):
        snapshot().node = None  # type: ignore[assignment, misc]


def test_an_unknown_field_names_its_nearest() -> None:
    data = snapshot_data()
    data["functions"][0]["limit"] = {}
    with pytest.raises(
        ConfigError, match=r"unknown field 'limit' in functions.0; did you mean 'limits'"
    ):
        build(Snapshot, data)


def test_a_key_without_an_id_is_described_as_the_engine_uses_it() -> None:
    """crates/engine/src/jwt.rs `keys_for`: such a key is tried whether the token names one or not."""
    description = IssuerKey.model_fields["kid"].description
    assert description is not None
    assert "tried for any token" in description
