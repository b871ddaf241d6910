"""Certificates of others: authorities whose clients may call, the keys they are pinned by, the serials they revoke.

Owns: reading what people have (PEM, hex) into what the snapshot holds. Must not: accept a private key, or judge a
client's certificate; the engine does, from the snapshot.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from vedette.clock import now
from vedette.errors import ConfigError

MAX_AUTHORITY_CERTIFICATES: Final = 64
_PIN: Final = re.compile(r"[0-9a-f]{64}\Z")
_SERIAL: Final = re.compile(r"(?:0x)?([0-9a-f]{1,2}(?::[0-9a-f]{2})+|[0-9a-f]{1,40})\Z")


def authority_pem(text: str, name: str = "the authority") -> str:
    """The certificates of an authority, and nothing else of `text`, as PEM.

    Raises `ConfigError` certificate_unreadable, or certificate_refused for a private key, a certificate that is no
    authority's, or one that has expired.
    """
    if "PRIVATE KEY-----" in text:
        raise ConfigError("certificate_refused", f"{name} holds a private key")
    try:
        certificates = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise ConfigError("certificate_unreadable", f"{name} holds no PEM certificate") from None
    if len(certificates) > MAX_AUTHORITY_CERTIFICATES:
        raise ConfigError("certificate_refused", f"{name} holds more than 64 certificates")
    for certificate in certificates:
        _require_authority(certificate, name)
    unique = dict.fromkeys(one.public_bytes(Encoding.PEM).decode() for one in certificates)
    return "".join(unique)


def pin_of(text: str) -> str:
    """The SHA-256 of a public key: itself when `text` is one in hex, else of the PEM certificate or key in it.

    Raises `ConfigError` certificate_unreadable.
    """
    written = text.strip().lower().replace(":", "")
    if _PIN.match(written):
        return written
    try:
        if "BEGIN CERTIFICATE" in text:
            key = x509.load_pem_x509_certificate(text.encode()).public_key()
        else:
            key = load_pem_public_key(text.encode())  # type: ignore[assignment]
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(
            "certificate_unreadable", "a pin is a certificate, a public key or 64 hex digits"
        ) from None
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def serial_of(text: str) -> str:
    """A serial number as the snapshot spells it: from hex (colons allowed), or of the PEM certificate in `text`.

    Raises `ConfigError` certificate_unreadable.
    """
    if "BEGIN CERTIFICATE" in text:
        try:
            return f"{x509.load_pem_x509_certificate(text.encode()).serial_number:x}"
        except ValueError:
            raise ConfigError("certificate_unreadable", "the certificate is malformed") from None
    match = _SERIAL.match(text.strip().lower())
    number = int(match[1].replace(":", ""), 16) if match else 0
    if number == 0:
        raise ConfigError("certificate_unreadable", f"{text[:80]!r} is no serial number in hex")
    return f"{number:x}"


def read_pem_or_text(argument: str) -> str:
    """The text of the file that `argument` names, or `argument` itself when there is no such file."""
    path = Path(argument)
    try:
        return path.read_text("ascii") if path.is_file() else argument
    except (OSError, ValueError):
        raise ConfigError("certificate_unreadable", f"cannot read {argument}") from None


def _require_authority(certificate: x509.Certificate, name: str) -> None:
    who = certificate.subject.rfc4514_string() or "a certificate"
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        is_authority = constraints.ca
    except (x509.ExtensionNotFound, ValueError):
        is_authority = False
    if not is_authority:
        raise ConfigError("certificate_refused", f"{name}: {who} is no authority's (CA:TRUE)")
    if certificate.not_valid_after_utc <= now():
        raise ConfigError("certificate_refused", f"{name}: {who} has expired")
