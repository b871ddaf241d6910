"""Trust bundles: what proves the identities of one trust domain (SPIFFE Trust Domain and Bundle §4).

Owns: the JWKS form, writing and reading it. Must not: fetch one, merge two, or believe a document about another trust
domain than the one it is read for.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from vedette.config.snapshot import IssuerKey
from vedette.errors import ConfigError
from vedette.identity.domain import require_trust_domain
from vedette.identity.keys import load_jwks, public_jwk

MAX_BUNDLE_BYTES: Final = 1024 * 1024
MAX_KEYS: Final = 64
REFRESH_HINT: Final = 300  # seconds
MAX_SEQUENCE: Final = 2**64 - 1
_X509: Final = "x509-svid"
_JWT: Final = "jwt-svid"


@dataclass(frozen=True, slots=True)
class Bundle:
    """The keys of one trust domain: certificates of its CAs (DER) and keys of its JWT-SVIDs.

    `sequence` grows when the keys change; None when a document does not say. Empty keys mean that nothing of this
    trust domain is believed any more (§4.2.2).
    """

    trust_domain: str
    x509_authorities: tuple[bytes, ...] = ()
    jwt_keys: tuple[IssuerKey, ...] = ()
    sequence: int | None = None
    refresh_hint: int | None = None

    @property
    def x509_der(self) -> bytes:
        """The certificates, one after the other, as the Workload API gives them."""
        return b"".join(self.x509_authorities)

    def to_jwks(self) -> bytes:
        """The document (§4.2, §6): JSON, keys in the order they have here."""
        document: dict[str, Any] = {
            "keys": [_x509_jwk(der) for der in self.x509_authorities]
            + [_jwt_jwk(key) for key in self.jwt_keys]
        }
        if self.sequence is not None:
            document["spiffe_sequence"] = self.sequence
        if self.refresh_hint is not None:
            document["spiffe_refresh_hint"] = self.refresh_hint
        return _json(document)

    def jwt_jwks(self) -> bytes:
        """Only the keys of JWT-SVIDs, as `FetchJWTBundles` gives them (Workload API §5.2.2)."""
        return _json({"keys": [_jwt_jwk(key) for key in self.jwt_keys]})


def read_bundle(document: bytes, trust_domain: str) -> Bundle:
    """The bundle of `trust_domain` in a document of somebody else's.

    Keys for a use that is not known here are left out (§4.2.2). Raises `ConfigError` bundle_invalid for what is too
    large, malformed, holds a secret, or a CA of another trust domain.
    """
    domain = require_trust_domain(trust_domain)
    if len(document) > MAX_BUNDLE_BYTES:
        raise _invalid(domain, f"it is larger than {MAX_BUNDLE_BYTES} bytes")
    fields = _object(document, domain)
    entries = fields.get("keys")
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise _invalid(domain, f"it has no `keys`, or more than {MAX_KEYS}")
    if not all(isinstance(one, dict) for one in entries):
        raise _invalid(domain, "a key is not an object")
    return Bundle(
        domain,
        tuple(_authority(one, domain) for one in entries if one.get("use") == _X509),
        tuple(_jwt_keys([one for one in entries if one.get("use") == _JWT], domain)),
        _number(fields, "spiffe_sequence", domain),
        _number(fields, "spiffe_refresh_hint", domain),
    )


def _object(document: bytes, domain: str) -> dict[str, Any]:
    try:
        fields = json.loads(document)
    except (ValueError, RecursionError):
        raise _invalid(domain, "it is not JSON") from None
    if not isinstance(fields, dict):
        raise _invalid(domain, "it is not a JSON object")
    return fields


def _authority(entry: Mapping[str, Any], domain: str) -> bytes:
    """The one certificate of an X.509 key (§6.2.1): a CA's, of this trust domain, with the key beside it."""
    chain = entry.get("x5c")
    if not isinstance(chain, list) or len(chain) != 1 or not isinstance(chain[0], str):
        raise _invalid(domain, "a key for X509-SVIDs has not one certificate in `x5c`")
    if "d" in entry or "k" in entry:
        raise _invalid(domain, "it holds a private key")
    try:
        der = base64.b64decode(chain[0], validate=True)
        certificate = x509.load_der_x509_certificate(der)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        names = _uris(certificate)
    except (ValueError, TypeError, binascii.Error, x509.ExtensionNotFound):
        raise _invalid(domain, "a certificate cannot be read, or is no CA's") from None
    if not constraints.ca:
        raise _invalid(domain, "a certificate is no CA's")
    if names and names != [f"spiffe://{domain}"]:
        raise _invalid(domain, "a certificate is of another trust domain")
    return der


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _jwt_keys(entries: list[dict[str, Any]], domain: str) -> list[IssuerKey]:
    if not entries:
        return []
    if not all(isinstance(one.get("kid"), str) and one["kid"] for one in entries):
        raise _invalid(domain, "a key for JWT-SVIDs has no `kid`")
    plain = [{**one, "use": "sig"} for one in entries]
    try:
        keys = load_jwks(json.dumps({"keys": plain}).encode(), f"the bundle of {domain}")
    except ConfigError as error:
        raise _invalid(domain, error.message) from None
    return [key for key in keys if key.alg != "EdDSA"]  # JWT-SVID §2.2


def _number(fields: Mapping[str, Any], name: str, domain: str) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SEQUENCE:
        raise _invalid(domain, f"its {name} is no whole number")
    return value


def _x509_jwk(der: bytes) -> dict[str, Any]:
    key: Any = x509.load_der_x509_certificate(der).public_key()
    return {"use": _X509, **public_jwk(key), "x5c": [base64.b64encode(der).decode()]}


def _jwt_jwk(key: IssuerKey) -> dict[str, Any]:
    return {"use": _JWT, **key.jwk, "kid": key.kid, "alg": key.alg}


def own_authority(certificate: x509.Certificate) -> bytes:
    """A certificate as bundles hold it."""
    return certificate.public_bytes(Encoding.DER)


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def _invalid(domain: str, why: str) -> ConfigError:
    return ConfigError("bundle_invalid", f"the bundle of {domain} is refused: {why}")
