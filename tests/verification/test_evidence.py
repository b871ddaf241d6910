"""Signed evidence is believed under the key that signed it, and not when a byte is another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vedette.errors import ConfigError, TrustError
from vedette.identity.notes import NoteSigner
from vedette.identity.signer import SnapshotSigner
from vedette.store.home import Home
from vedette.verification.evidence import EVIDENCE_TYPE, MAX_EVIDENCE_BYTES, opened, signed

REPORT = {"checks": [{"id": 1, "passed": True}], "passed": True}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.create()
    return home


def refused(path: Path, signer: NoteSigner) -> str:
    with pytest.raises(TrustError) as caught:
        opened(path, signer.public)
    return caught.value.code


def test_a_report_is_read_back_under_the_nodes_key(home: Home, tmp_path: Path) -> None:
    signer = NoteSigner.ensure(home.audit_key, "node")
    file = tmp_path / "evidence.json"
    file.write_bytes(signed(REPORT, home))
    assert opened(file, signer.public) == REPORT


def test_another_key_another_byte_and_another_type_are_refused(home: Home, tmp_path: Path) -> None:
    signer = NoteSigner.ensure(home.audit_key, "node")
    file = tmp_path / "evidence.json"
    data = signed(REPORT, home)
    file.write_bytes(data)
    assert refused(file, NoteSigner.ensure(tmp_path / "other.key", "other")) == "evidence_refused"
    envelope = json.loads(data)
    envelope["payload"] = envelope["payload"].replace("e", "f", 1)
    file.write_text(json.dumps(envelope))
    assert refused(file, signer) == "evidence_refused"
    own = SnapshotSigner.load(home.audit_key)
    for payload, kind in (
        (b"{}", EVIDENCE_TYPE),
        (b"[]", EVIDENCE_TYPE),
        (b"x", EVIDENCE_TYPE),
        (json.dumps(REPORT).encode(), "application/vnd.vedette.snapshot+json"),
    ):
        file.write_bytes(own.sign(payload, kind))
        assert refused(file, signer) == "evidence_refused", payload


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000, b"x" * (MAX_EVIDENCE_BYTES + 1)])
def test_what_is_no_evidence_is_refused(home: Home, tmp_path: Path, data: bytes) -> None:
    signer = NoteSigner.ensure(home.audit_key, "node")
    file = tmp_path / "evidence.json"
    file.write_bytes(data)
    assert refused(file, signer) == "evidence_refused"


def test_a_file_that_is_not_there_is_an_error(home: Home, tmp_path: Path) -> None:
    signer = NoteSigner.ensure(home.audit_key, "node")
    with pytest.raises(ConfigError) as caught:
        opened(tmp_path / "nothing", signer.public)
    assert caught.value.code == "file_unreadable"
