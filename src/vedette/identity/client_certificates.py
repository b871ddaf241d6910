"""Certificates that this node shows to services (mTLS towards them).

Owns: reading what people have, a chain and its key in PEM, into the one file the engine reads. Must not: return or
quote a private key in an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from vedette.clock import now
from vedette.errors import ConfigError

MAX_CHAIN: Final = 16
_Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
_PRIVATE: Final = re.compile(
    r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.{1,65536}?-----END \1-----", re.DOTALL
)
_PURPOSES: Final = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A leaf: whom it is for, who issued it, until when."""

    subject: str
    issuer: str
    not_after: datetime


def client_pem(text: str) -> bytes:
    """The chain and the key of `text`, and nothing else of it: one PEM, leaf first, the key last.

    Raises `ConfigError` certificate_unreadable for PEM that cannot be read, certificate_refused for a key that is
    encrypted, missing or another certificate's, and for a leaf that has expired or is no client's (RFC 5280
    §4.2.1.12).
    """
    chain = _chain(text)
    key = _key(text)
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    leaf = chain[0]
    leaf_key = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if public != leaf_key:
        raise ConfigError(
            "certificate_refused", "the private key is not that of the first certificate"
        )
    if leaf.not_valid_after_utc <= now():
        raise ConfigError("certificate_refused", f"{_name(leaf.subject)} has expired")
    if not _is_for_clients(leaf):
        raise ConfigError(
            "certificate_refused", f"{_name(leaf.subject)} is not for clients (clientAuth)"
        )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return b"".join(one.public_bytes(Encoding.PEM) for one in chain) + private


def describe(pem: bytes) -> ClientCertificate:
    """The leaf of what `client_pem` made. Raises `ConfigError` certificate_unreadable."""
    leaf = _chain(pem.decode("ascii", "replace"))[0]
    return ClientCertificate(_name(leaf.subject), _name(leaf.issuer), leaf.not_valid_after_utc)


def _chain(text: str) -> list[x509.Certificate]:
    try:
        chain = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise ConfigError("certificate_unreadable", "there is no certificate in PEM") from None
    if len(chain) > MAX_CHAIN:
        raise ConfigError("certificate_refused", f"the chain has more than {MAX_CHAIN} links")
    return chain


def _key(text: str) -> _Key:
    block = _PRIVATE.search(text)
    if block is None:
        raise ConfigError("certificate_refused", "there is no private key in PEM beside it")
    try:
        key = load_pem_private_key(block[0].encode(), password=None)
    except TypeError:
        message = "the private key is encrypted: decrypt it first (openssl pkey -in KEY -out PLAIN)"
        raise ConfigError("certificate_refused", message) from None
    except (ValueError, UnsupportedAlgorithm):
        # What the library says could quote the key.
        raise ConfigError("certificate_unreadable", "the private key cannot be read") from None
    if not isinstance(key, _Key):
        raise ConfigError("certificate_refused", "the key is none of ECDSA, Ed25519 or RSA")
    return key


def _is_for_clients(leaf: x509.Certificate) -> bool:
    """Without the extension it is for any purpose."""
    try:
        purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    except ValueError:
        return False
    return any(purpose in _PURPOSES for purpose in purposes)


def _name(name: x509.Name) -> str:
    return name.rfc4514_string() or "(no name)"
