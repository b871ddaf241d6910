"""Signed snapshots: what this key signed verifies, and nothing else does."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vedette.errors import ConfigError, TrustError
from vedette.identity.signer import (
    SnapshotSigner,
    pre_authentication_encoding,
    verify_envelope,
)


@pytest.fixture
def signer(tmp_path: Path) -> SnapshotSigner:
    return SnapshotSigner.ensure(tmp_path / "signing.key")


def test_what_was_signed_verifies(tmp_path: Path, signer: SnapshotSigner) -> None:
    envelope = signer.sign(b'{"a":1}')
    assert verify_envelope(envelope, signer.public_pem) == b'{"a":1}'
    assert SnapshotSigner.load(tmp_path / "signing.key").sign(b'{"a":1}') == envelope


def test_the_encoding_is_that_of_the_dsse_specification() -> None:
    assert (
        pre_authentication_encoding("http://example.com/HelloWorld", b"hello world")
        == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_every_changed_byte_of_the_payload_is_noticed(signer: SnapshotSigner) -> None:
    payload = b'{"a":"0123456789"}'
    envelope = json.loads(signer.sign(payload))
    for index in range(len(payload)):
        changed = bytearray(payload)
        changed[index] ^= 1
        forged = {**envelope, "payload": base64.b64encode(changed).decode()}
        with pytest.raises(TrustError) as caught:
            verify_envelope(json.dumps(forged).encode(), signer.public_pem)
        assert caught.value.code == "envelope_signature"


def test_the_signature_of_another_key_is_not_ours(tmp_path: Path, signer: SnapshotSigner) -> None:
    other = SnapshotSigner.ensure(tmp_path / "other.key")
    with pytest.raises(TrustError):
        verify_envelope(other.sign(b"{}"), signer.public_pem)
    claimed = json.loads(other.sign(b"{}"))
    claimed["signatures"][0]["keyid"] = signer.key_id
    with pytest.raises(TrustError):
        verify_envelope(json.dumps(claimed).encode(), signer.public_pem)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda e: e.update(payloadType="text/plain"), "envelope_invalid"),
        (lambda e: e.update(payload="!!"), "envelope_invalid"),
        (lambda e: e.pop("signatures"), "envelope_invalid"),
        (lambda e: e.update(signatures=[]), "envelope_signature"),
        (lambda e: e.update(signatures=[{"keyid": "x"}]), "envelope_invalid"),
        (lambda e: e["signatures"][0].update(sig="AAAA"), "envelope_signature"),
    ],
)
def test_a_damaged_envelope_is_refused(
    signer: SnapshotSigner, change: Callable[[dict[str, Any]], Any], code: str
) -> None:
    envelope = json.loads(signer.sign(b"{}"))
    change(envelope)
    with pytest.raises(TrustError) as caught:
        verify_envelope(json.dumps(envelope).encode(), signer.public_pem)
    assert caught.value.code == code


@pytest.mark.parametrize("envelope", [b"", b"[]", b"null", b"{", b"[" * 100_000, b"\xff"])
def test_what_is_no_envelope_is_refused(signer: SnapshotSigner, envelope: bytes) -> None:
    with pytest.raises(TrustError):
        verify_envelope(envelope, signer.public_pem)


def test_no_key_material_is_shown(signer: SnapshotSigner) -> None:
    assert repr(signer) == f"SnapshotSigner(key_id={signer.key_id!r})"
    assert len(signer.key_id) == 64


def test_a_key_of_another_kind_cannot_verify(tmp_path: Path, signer: SnapshotSigner) -> None:
    with pytest.raises(ConfigError):
        verify_envelope(signer.sign(b"{}"), b"no key")
