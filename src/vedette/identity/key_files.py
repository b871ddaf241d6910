"""Private keys on disk: made once, 0600, never replaced, never shown.

Owns: creating and loading them, and writing one anew when it is sealed (`sealing`). Must not: log, print or return key
material in an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from vedette.errors import ConfigError
from vedette.identity.sealing import PrivateKey, Seal, is_sealed, read_private
from vedette.store.atomic import create_private, write_atomic


def generate_p256() -> ec.EllipticCurvePrivateKey:
    """A new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key: PrivateKey) -> bytes:
    """The key as PKCS #8 PEM (RFC 5958), unencrypted: the file's mode is what protects it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def ensure_p256(path: Path, seal: Seal | None = None) -> ec.EllipticCurvePrivateKey:
    """The P-256 key in `path`, made first when there is none; afterwards the file is sealed, when there is a seal.
    Raises as `load_p256` and for the disk.
    """
    _create_once(path, generate_p256, seal)
    key = load_p256(path, seal)
    if seal is not None and not is_sealed(path.read_bytes()):
        write_atomic(path, seal.pem(key))
    return key


def ensure_ed25519(path: Path) -> ed25519.Ed25519PrivateKey:
    """The Ed25519 key in `path`, made first when there is none. Raises as `load_ed25519` and for
    the disk.
    """
    _create_once(path, ed25519.Ed25519PrivateKey.generate, None)
    return load_ed25519(path)


def load_p256(path: Path, seal: Seal | None = None) -> ec.EllipticCurvePrivateKey:
    """Reads a P-256 key, sealed or not.

    Raises `ConfigError` key_unreadable, `TrustError` key_permissions when others could have read or
    replaced it.
    """
    key = _load(path, seal)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise ConfigError("key_unreadable", f"{path} holds no P-256 private key")
    return key


def load_ec(path: Path) -> ec.EllipticCurvePrivateKey:
    """Reads a key on P-256, P-384 or P-521 that signs for somebody. Raises as `load_p256`."""
    key = _load(path)
    curves = ("secp256r1", "secp384r1", "secp521r1")
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in curves:
        message = f"{path} holds no private key on P-256, P-384 or P-521 in PEM, unencrypted"
        raise ConfigError("key_unreadable", message)
    return key


def made_at(path: Path) -> datetime:
    """When a key's file was written, UTC: all that is known of a key that has no certificate."""
    try:
        return datetime.fromtimestamp(int(path.stat().st_mtime), UTC)
    except OSError:
        raise ConfigError("key_unreadable", f"cannot read {path}") from None


def reseal_p256(path: Path, held: Sequence[Seal], to: Seal) -> None:
    """Writes the P-256 key in `path`, sealed with one of `held` or not at all, anew under `to`.

    Raises `ConfigError` key_unreadable when no seal opens it, else as `load_p256` and for the disk.
    """
    for seal in held[:-1]:
        with contextlib.suppress(ConfigError):
            write_atomic(path, to.pem(load_p256(path, seal)))
            return
    write_atomic(path, to.pem(load_p256(path, held[-1])))


def load_ed25519(path: Path) -> ed25519.Ed25519PrivateKey:
    """Reads an Ed25519 key. Raises as `load_p256`."""
    key = _load(path)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ConfigError("key_unreadable", f"{path} holds no Ed25519 private key")
    return key


def _create_once(path: Path, make: Callable[[], PrivateKey], seal: Seal | None) -> None:
    if not path.exists():
        key = make()
        with contextlib.suppress(FileExistsError):
            create_private(path, private_pem(key) if seal is None else seal.pem(key))


def _load(path: Path, seal: Seal | None = None) -> object:
    data = read_private(path)
    if is_sealed(data):
        if seal is None:
            raise ConfigError("key_unreadable", f"{path} is sealed, and there is no key to open it")
        return seal.open(data, path)
    with contextlib.suppress(ValueError, TypeError):
        return load_pem_private_key(data, password=None)
    return None
