"""Signing snapshots, and verifying that one was signed.

Owns: the DSSE v1 envelope (github.com/secure-systems-lab/dsse) with one Ed25519 signature. Must
not: know what the payload says. Verification here is for control and tools; the engine verifies on
its own.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from vedette.config.snapshot import PAYLOAD_TYPE
from vedette.errors import ConfigError, TrustError
from vedette.identity.key_files import ensure_ed25519, load_ed25519

RULE_SET_TYPE: Final = "application/vnd.vedette.rule-set+json"
"""The payload type of a packed Core Rule Set, which its publisher signs."""


class SnapshotSigner:
    """Holds the node's signing key. The same payload always gives the same envelope (Ed25519 is
    deterministic).
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    def __repr__(self) -> str:
        return f"SnapshotSigner(key_id={self.key_id!r})"

    @classmethod
    def ensure(cls, path: Path) -> SnapshotSigner:
        """Loads the key in `path`, made first when there is none. Raises as
        `key_files.ensure_p256`.
        """
        return cls(ensure_ed25519(path))

    @classmethod
    def load(cls, path: Path) -> SnapshotSigner:
        """Loads the key in `path`. Raises `ConfigError` key_unreadable, `TrustError`
        key_permissions.
        """
        return cls(load_ed25519(path))

    @property
    def public_pem(self) -> bytes:
        """The public key, SPKI PEM; what the engine verifies under."""
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def key_id(self) -> str:
        """Hexadecimal SHA-256 of the SPKI DER."""
        return _key_id(self._key.public_key())

    def sign(self, payload: bytes, kind: str = PAYLOAD_TYPE) -> bytes:
        """The envelope of `payload`, as JSON."""
        signature = self._key.sign(pre_authentication_encoding(kind, payload))
        envelope = {
            "payloadType": kind,
            "payload": base64.b64encode(payload).decode(),
            "signatures": [{"keyid": self.key_id, "sig": base64.b64encode(signature).decode()}],
        }
        return json.dumps(envelope, sort_keys=True, separators=(",", ":")).encode()


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """What DSSE signs: PAE(type, payload), which no other type can imitate (DSSE protocol,
    "Signature definition").
    """
    kind = payload_type.encode()
    return b" ".join(
        [b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload]
    )


def verify_envelope(envelope: bytes, public_key_pem: bytes, kind: str = PAYLOAD_TYPE) -> bytes:
    """The payload, when this key signed it as one of that kind. Raises `TrustError` envelope_invalid or
    envelope_signature.
    """
    payload, signatures = _open(envelope, kind)
    key = _public_key(public_key_pem)
    key_id = _key_id(key)
    message = pre_authentication_encoding(kind, payload)
    for signature in (sig for candidate, sig in signatures if candidate == key_id):
        try:
            key.verify(signature, message)
        except InvalidSignature:
            continue
        return payload
    raise TrustError("envelope_signature", "no signature of that key verifies")


def _open(envelope: bytes, wanted: str) -> tuple[bytes, list[tuple[str, bytes]]]:
    try:
        fields: Any = json.loads(envelope)
        kind = fields["payloadType"]
        payload = base64.b64decode(fields["payload"], validate=True)
        signatures = [
            (str(each["keyid"]), base64.b64decode(each["sig"], validate=True))
            for each in fields["signatures"]
        ]
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
        raise TrustError("envelope_invalid", "this is not a DSSE envelope") from None
    if kind != wanted:
        raise TrustError("envelope_invalid", f"the envelope holds {kind!r}, not {wanted!r}")
    return payload, signatures


def _public_key(pem: bytes) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(pem)
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError("key_unreadable", "the signing key is not an Ed25519 public key in PEM")
    return key


def _key_id(key: Ed25519PublicKey) -> str:
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()
