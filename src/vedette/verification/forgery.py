"""Certificates and tokens, right and wrong in every way: what an attacker with a CA or a key of their own would make.

Owns: foreign authorities, leaves with any names, times and usages, and JWTs with any header and signature. Must not:
use the code that issues the node's own; a shared mistake would go unseen.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vedette.ids import new_serial

_HOUR: Final = 3_600.0


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate with its key in one PEM file (0600), and its serial number in hex."""

    file: Path
    serial: str
    certificate: x509.Certificate


@dataclass(frozen=True, slots=True)
class Leaf:
    """What a forged certificate says; times in seconds from now."""

    uris: tuple[str, ...]
    start: float = -60.0
    end: float = _HOUR
    is_ca: bool = False
    is_server_only: bool = False


class Forger:
    """An authority of somebody else, or a stolen one: it signs whatever it is asked for."""

    def __init__(
        self,
        folder: Path,
        trust_domain: str,
        key: ec.EllipticCurvePrivateKey | None = None,
        certificate: x509.Certificate | None = None,
    ) -> None:
        """With `key` and `certificate` it is a stolen one; else it is made for `trust_domain`."""
        self.trust_domain = trust_domain
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.certificate = certificate or _authority(self.key, trust_domain)
        self._folder = folder

    @property
    def pem(self) -> str:
        """The authority's own certificate."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def issue(self, leaf: Leaf) -> Credential:
        """A certificate of this authority; everything about it can be wrong."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(
            x509.Name([]), self.certificate.subject, key.public_key(), leaf.start, leaf.end
        )
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH]
        purposes += [] if leaf.is_server_only else [ExtendedKeyUsageOID.CLIENT_AUTH]
        names = [x509.UniformResourceIdentifier(uri) for uri in leaf.uris]
        builder = (
            builder.add_extension(x509.BasicConstraints(leaf.is_ca, None), True)
            .add_extension(_usage(certifies=leaf.is_ca), True)
            .add_extension(x509.ExtendedKeyUsage(purposes), False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), True)
        return self._kept(builder.sign(self.key, SHA256()), key)

    def self_signed(self, uri: str) -> Credential:
        """A certificate that vouches for itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self")])
        builder = _builder(name, name, key.public_key(), -60.0, _HOUR)
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), False
        )
        return self._kept(builder.sign(key, SHA256()), key)

    def own(self) -> Credential:
        """The authority's certificate itself, shown as if it were a caller's."""
        return self._kept(self.certificate, self.key)

    def _kept(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Credential:
        file = self._folder / f"{self.trust_domain}-{certificate.serial_number:x}.pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.touch(0o600)
        file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
        return Credential(file, f"{certificate.serial_number:x}", certificate)

    def bundle(self, sequence: int, jwt_kid: str = "") -> dict[str, Any]:
        """This authority as a SPIFFE bundle (Trust Domain and Bundle §4), with its key for JWT-SVIDs when it has a
        `kid`.
        """
        der = base64.b64encode(self.certificate.public_bytes(Encoding.DER)).decode()
        jwk = public_jwk(self.key)
        keys = [{**jwk, "use": "x509-svid", "x5c": [der]}]
        if jwt_kid:
            keys.append({**jwk, "use": "jwt-svid", "kid": jwt_kid, "alg": "ES256"})
        return {"keys": keys, "spiffe_sequence": sequence}


def public_jwk(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    """The public half as a JWK (RFC 7517)."""
    point = key.public_key().public_numbers()
    x, y = (_encoded(number.to_bytes(32, "big")) for number in (point.x, point.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y}


def token(
    claims: Mapping[str, Any],
    key: ec.EllipticCurvePrivateKey,
    kid: str | None,
) -> str:
    """A JWT (ES256)."""
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode(dict(claims), key, algorithm="ES256", headers=headers)


def unsigned(claims: Mapping[str, Any], kid: str | None) -> str:
    """A JWT of the algorithm `none`."""
    return f"{_part({'alg': 'none', 'kid': kid})}.{_part(claims)}."


def keyed(claims: Mapping[str, Any], kid: str | None, public: ec.EllipticCurvePublicKey) -> str:
    """A JWT with an HMAC under a public key, which everybody has (RFC 8725 §2.1)."""
    secret = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    start = f"{_part({'alg': 'HS256', 'kid': kid})}.{_part(claims)}"
    mac = hmac.new(secret, start.encode(), hashlib.sha256).digest()
    return f"{start}.{_encoded(mac)}"


def claims(
    subject: str, issuer: str, audience: str, seconds: int = 300, **more: Any
) -> dict[str, Any]:
    """The claims of a token that ends in `seconds`."""
    at = int(datetime.now(UTC).timestamp())
    times = {"iat": at, "nbf": at, "exp": at + seconds, "jti": f"forged-{at}"}
    return {"iss": issuer, "sub": subject, "aud": audience, **times, **more}


def header_of(text: str) -> dict[str, Any]:
    """The header of a token, unverified."""
    return jwt.get_unverified_header(text)


def claims_of(text: str) -> dict[str, Any]:
    """The claims of a token, unverified."""
    found: dict[str, Any] = jwt.decode(text, options={"verify_signature": False})
    return found


def _authority(key: ec.EllipticCurvePrivateKey, trust_domain: str) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"CA {trust_domain}"[:64])])
    uri = x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")
    return (
        _builder(name, name, key.public_key(), -60.0, 24 * _HOUR)
        .add_extension(x509.BasicConstraints(True, None), True)
        .add_extension(_usage(certifies=True), True)
        .add_extension(x509.SubjectAlternativeName([uri]), False)
        .sign(key, SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, *times: float
) -> x509.CertificateBuilder:
    at = datetime.now(UTC)
    start, end = times
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(new_serial())
        .not_valid_before(at + timedelta(seconds=start))
        .not_valid_after(at + timedelta(seconds=end))
    )


def _usage(*, certifies: bool) -> x509.KeyUsage:
    off: Sequence[str] = ("content_commitment", "key_encipherment", "data_encipherment")
    others = dict.fromkeys((*off, "key_agreement", "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(
        digital_signature=not certifies, key_cert_sign=certifies, crl_sign=certifies, **others
    )


def _part(value: Mapping[str, Any]) -> str:
    return _encoded(json.dumps(dict(value)).encode())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
