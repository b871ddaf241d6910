"""Private keys on disk: made once, 0600, never replaced, never shown.

Owns: creating and loading them. Must not: log, print or return key material in an error.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from vedette.errors import ConfigError, TrustError
from vedette.store.atomic import create_private

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def generate_p256() -> ec.EllipticCurvePrivateKey:
    """A new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key: PrivateKey) -> bytes:
    """The key as PKCS #8 PEM (RFC 5958), unencrypted: the file's mode is what protects it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def ensure_p256(path: Path) -> ec.EllipticCurvePrivateKey:
    """The P-256 key in `path`, made first when there is none. Raises as `load_p256` and for the
    disk.
    """
    _create_once(path, generate_p256)
    return load_p256(path)


def ensure_ed25519(path: Path) -> ed25519.Ed25519PrivateKey:
    """The Ed25519 key in `path`, made first when there is none. Raises as `load_ed25519` and for
    the disk.
    """
    _create_once(path, ed25519.Ed25519PrivateKey.generate)
    return load_ed25519(path)


def load_p256(path: Path) -> ec.EllipticCurvePrivateKey:
    """Reads a P-256 key.

    Raises `ConfigError` key_unreadable, `TrustError` key_permissions when others could have read or
    replaced it.
    """
    key = _load(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise ConfigError("key_unreadable", f"{path} holds no P-256 private key")
    return key


def load_ed25519(path: Path) -> ed25519.Ed25519PrivateKey:
    """Reads an Ed25519 key. Raises as `load_p256`."""
    key = _load(path)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ConfigError("key_unreadable", f"{path} holds no Ed25519 private key")
    return key


def _create_once(path: Path, make: Callable[[], PrivateKey]) -> None:
    if not path.exists():
        with contextlib.suppress(FileExistsError):
            create_private(path, private_pem(make()))


def _load(path: Path) -> object:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError("key_unreadable", f"cannot read {path}: {error.strerror}") from None
    if mode & 0o077:
        raise TrustError("key_permissions", f"{path} has mode {mode:04o}, not 0600")
    with contextlib.suppress(ValueError, TypeError):
        return load_pem_private_key(data, password=None)
    return None
