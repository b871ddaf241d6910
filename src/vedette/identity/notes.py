"""Signed notes: text with Ed25519 signatures, as transparency logs publish their heads (c2sp.org/signed-note).

Owns: signing a text, opening a note under one key, and the spelling of that key. Must not: know what the text says.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from vedette.errors import ConfigError, TrustError
from vedette.identity.key_files import ensure_ed25519

MAX_NOTE_BYTES: Final = 64 * 1024
MAX_KEY_BYTES: Final = 4096
_ED25519: Final = b"\x01"
_DASH: Final = "\u2014 "
_LONGEST_NAME: Final = 253  # that a message repeats, in characters


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A public key that notes are opened under. `name` is empty for one that was given as PEM, which has no name."""

    name: str
    key: Ed25519PublicKey = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> NoteKey:
        """Reads a verifier key (`NAME+HASH+BASE64`, as golang.org/x/mod/sumdb/note spells it) or SPKI PEM.

        Raises `ConfigError` key_unreadable.
        """
        text = text.strip()
        if text.startswith("-----BEGIN"):
            return cls("", _from_pem(text))
        name, _, rest = text.partition("+")
        _, _, encoded = rest.partition("+")
        raw = _decoded(encoded)
        if not _is_name(name) or raw is None or len(raw) != 33 or raw[:1] != _ED25519:
            raise _unreadable("give the line that `vedette audit key` prints, or PEM")
        found = cls(name, Ed25519PublicKey.from_public_bytes(raw[1:]))
        if str(found) != text:
            raise _unreadable("its hash does not fit its name and key: a digit was lost")
        return found

    def __str__(self) -> str:
        return f"{self.name}+{self.id_for(self.name).hex()}+{_encoded(_ED25519 + self._raw)}"

    @property
    def pem(self) -> bytes:
        """The key as SPKI PEM."""
        return self.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @property
    def _raw(self) -> bytes:
        return self.key.public_bytes(Encoding.Raw, PublicFormat.Raw)

    def id_for(self, name: str) -> bytes:
        """The four bytes by which a signature under `name` names this key."""
        return hashlib.sha256(name.encode() + b"\n" + _ED25519 + self._raw).digest()[:4]

    def open(self, note: str) -> str:
        """The text of a note that this key signed; signatures of other keys are passed over, as the format demands.

        Raises `TrustError` note_invalid, note_signature, and note_foreign when only others signed it.
        """
        text, signatures = _split(note)
        for name, signature in signatures:
            if self.name in ("", name) and signature[:4] == self.id_for(name):
                try:
                    self.key.verify(signature[4:], text.encode())
                except InvalidSignature:
                    raise TrustError("note_signature", "its signature does not verify") from None
                return text
        signed_by = f"{signatures[0][0][:_LONGEST_NAME]} did"
        message = f"the key {self.name or '(PEM)'} did not sign it, {signed_by}"
        raise TrustError("note_foreign", message)


class NoteSigner:
    """Holds a key that signs notes under one name."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        if not _is_name(name):
            raise ConfigError("invalid_name", f"{name!r} cannot be the name of a key of notes")
        self._key = key
        self.public = NoteKey(name, key.public_key())

    def __repr__(self) -> str:
        return f"NoteSigner(name={self.public.name!r})"

    @classmethod
    def ensure(cls, path: Path, name: str) -> NoteSigner:
        """Loads the key in `path`, made first when there is none. Raises as `key_files.ensure_ed25519`."""
        return cls(name, ensure_ed25519(path))

    def signature(self, text: str) -> bytes:
        """The 64 bytes of the signature of a text."""
        return self._key.sign(text.encode())

    def sign(self, text: str) -> str:
        """The note of a text, which ends in a newline."""
        return note_of(text, self.public, self.signature(text))


def note_of(text: str, key: NoteKey, signature: bytes) -> str:
    """The note of a text and its signature."""
    line = _encoded(key.id_for(key.name) + signature)
    return f"{text}\n{_DASH}{key.name} {line}\n"


def _split(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    invalid = TrustError("note_invalid", "this is not a signed note")
    text, blank, below = note.rpartition("\n\n")
    lines = below.splitlines()
    control = any(each < " " and each != "\n" for each in note)
    if not blank or not lines or control or len(note) > MAX_NOTE_BYTES or not below.endswith("\n"):
        raise invalid
    signatures = []
    for line in lines:
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        signature = _decoded(encoded)
        if not line.startswith(_DASH) or not _is_name(name) or signature is None:
            raise invalid
        signatures.append((name, signature))
    return text + "\n", signatures


def _is_name(name: str) -> bool:
    return (
        bool(name)
        and name.isprintable()
        and not any(each.isspace() or each == "+" for each in name)
    )


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(text: str) -> bytes | None:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if _encoded(data) == text else None  # one spelling only


def _from_pem(text: str) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(text.encode())
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise _unreadable("it is no Ed25519 public key in PEM")
    return key


def _unreadable(why: str) -> ConfigError:
    return ConfigError("key_unreadable", f"the audit key cannot be read: {why}")
