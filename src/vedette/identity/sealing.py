"""Private keys encrypted at rest, under a key that lies somewhere else (ADR 0027 says from what that protects).

Owns: the key-encryption key and the form of a sealed key: encrypted PKCS #8 in PEM (RFC 5958 §3), which
`openssl pkey -passin file:…` opens too. Must not: log, print or return either key in an error.
"""

from __future__ import annotations

import contextlib
import secrets
import stat
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from vedette.errors import ConfigError, TrustError
from vedette.store.atomic import create_private

MIN_BYTES: Final = 32
MAX_BYTES: Final = 1_024
_SEALED: Final = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
_MAX_FILE: Final = 64 * 1024

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class Seal:
    """Holds a key-encryption key; it is not in the `repr`."""

    def __init__(self, password: bytes) -> None:
        if not MIN_BYTES <= len(password) <= MAX_BYTES:
            raise ConfigError(
                "key_unreadable",
                f"a key-encryption key is a line of {MIN_BYTES} to {MAX_BYTES} bytes",
            )
        self._password = password

    def __repr__(self) -> str:
        return "Seal()"

    @classmethod
    def ensure(cls, path: Path) -> Seal:
        """The seal in `path`, made first when there is none: 256 random bits in hex. Raises as `load`."""
        if not path.exists():
            with contextlib.suppress(FileExistsError):
                create_private(path, secrets.token_hex(32).encode() + b"\n")
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> Seal:
        """The seal in the first line of `path`. Raises `ConfigError` key_unreadable, `TrustError` key_permissions."""
        lines = read_private(path).splitlines()
        return cls(lines[0] if lines else b"")

    def pem(self, key: PrivateKey) -> bytes:
        """The key, encrypted."""
        return key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(self._password)
        )

    def open(self, pem: bytes, path: Path) -> object:
        """The key in what `pem` made; `path` is for the error. Raises `ConfigError` key_unreadable."""
        try:
            return load_pem_private_key(pem, self._password)
        except (ValueError, TypeError):
            raise ConfigError(
                "key_unreadable", f"{path} is sealed with another key-encryption key, or damaged"
            ) from None


def is_sealed(pem: bytes) -> bool:
    """Whether a private key's PEM is encrypted."""
    return pem.startswith(_SEALED)


def read_private(path: Path) -> bytes:
    """The content of a file that only its owner may read, at most 64 KiB.

    Raises `ConfigError` key_unreadable, `TrustError` key_permissions when others could have read or replaced it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE)
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        raise ConfigError("key_unreadable", f"cannot read {path}: {error.strerror}") from None
    if mode & 0o077:
        raise TrustError("key_permissions", f"{path} has mode {mode:04o}, not 0600")
    return data
