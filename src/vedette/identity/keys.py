"""The public keys of token issuers: read from what people have, refused when they could do harm.

Owns: PEM keys, certificates and JWKS in; one JWK with exactly one algorithm out (RFC 7517, RFC 8725
§3.1). Must not: fetch anything, or accept a private or a symmetric key: a secret in a snapshot
would be readable by the engine.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError

from vedette.config.model import build
from vedette.config.snapshot import IssuerKey
from vedette.errors import ConfigError

MIN_RSA_BITS: Final = 2_048
MAX_RSA_BITS: Final = 8_192  # verification time grows with the square
MAX_JWKS_KEYS: Final = 64
_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_RSA_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384"}
_MEMBERS: Final = {
    "EC": ("crv", "kty", "x", "y"),
    "RSA": ("e", "kty", "n"),
    "OKP": ("crv", "kty", "x"),
}

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


def load_keys(source: Path | str, alg: str | None = None) -> list[IssuerKey]:
    """The keys in a file, or in text: PEM public keys, a PEM certificate (its first), or a JWKS.

    `alg` chooses the algorithm of RSA keys (default RS256) and must agree with every other. A key
    from PEM has no key id; encryption keys of a JWKS are left out. Raises `ConfigError`
    key_unreadable, key_refused or key_algorithm.
    """
    data, name = _read(source)
    keys = _from_jwks(data, name, alg) if data.lstrip()[:1] == b"{" else _from_pem(data, name, alg)
    if not keys:
        raise ConfigError("key_unreadable", f"{name} holds no key to verify tokens with")
    return sorted(keys, key=lambda key: (key.kid or "", key.alg))


def load_jwks(data: bytes, name: str, alg: str | None = None) -> list[IssuerKey]:
    """The keys of a JWKS that others publish. Keys of a kind not known here are left out (RFC 7517 §5), so that a new
    one beside the old does not cost both.

    Raises `ConfigError` key_unreadable, or key_refused for a private or symmetric key.
    """
    keys: dict[tuple[str, str], IssuerKey] = {}
    for entry in _entries(data, name):
        if entry.get("kty") not in _MEMBERS or entry.get("use", "sig") != "sig":
            _require_public(entry, name)
            continue
        try:
            key = _jwk_key(entry, name, alg)
        except ConfigError as error:
            if error.code != "key_algorithm":
                raise
            continue
        keys.setdefault((key.kid or "", key.alg), key)
    if not 0 < len(keys) <= MAX_JWKS_KEYS:
        raise ConfigError("key_unreadable", f"{name} holds {len(keys)} keys to verify tokens with")
    return sorted(keys.values(), key=lambda key: f"{key.kid or ''} {key.alg}")


def thumbprint(jwk: Mapping[str, str]) -> str:
    """The thumbprint of a public key, base64url (RFC 7638 §3)."""
    required = {name: jwk[name] for name in _MEMBERS[jwk["kty"]]}
    text = json.dumps(required, sort_keys=True, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def public_jwk(key: PublicKey) -> dict[str, str]:
    """The public members of a key as a JWK, nothing else."""
    jwk: dict[str, Any]
    if isinstance(key, ec.EllipticCurvePublicKey):
        jwk = ECAlgorithm.to_jwk(key, as_dict=True)
    elif isinstance(key, rsa.RSAPublicKey):
        jwk = RSAAlgorithm.to_jwk(key, as_dict=True)
    else:
        jwk = OKPAlgorithm.to_jwk(key, as_dict=True)
    return {name: str(jwk[name]) for name in _MEMBERS[jwk["kty"]]}


def _read(source: Path | str) -> tuple[bytes, str]:
    if isinstance(source, str) and ("-----BEGIN" in source or source.lstrip().startswith("{")):
        return source.encode(), "the text"
    path = Path(source)
    try:
        return path.read_bytes(), str(path)
    except OSError as error:
        raise ConfigError("key_unreadable", f"cannot read {path}: {error.strerror}") from None


def _from_pem(data: bytes, name: str, alg: str | None) -> list[IssuerKey]:
    keys: list[IssuerKey] = []
    for block in _PEM.finditer(data):
        label = block[1].decode()
        if "PRIVATE" in label:
            raise ConfigError("key_refused", f"{name} holds a private key; give the public one")
        if label == "CERTIFICATE" and keys:
            continue  # the rest of a chain
        keys.append(_issuer_key(_pem_key(block[0], label, name), None, alg, name))
    return keys


def _pem_key(block: bytes, label: str, name: str) -> Any:
    try:
        if label == "CERTIFICATE":
            return x509.load_pem_x509_certificate(block).public_key()
        return load_pem_public_key(block)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError("key_unreadable", f"{name}: the block {label} cannot be read") from None


def _from_jwks(data: bytes, name: str, alg: str | None) -> list[IssuerKey]:
    entries = _entries(data, name)
    return [_jwk_key(each, name, alg) for each in entries if each.get("use", "sig") == "sig"]


def _entries(data: bytes, name: str) -> list[dict[str, Any]]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise ConfigError("key_unreadable", f"{name} is not JSON") from None
    entries = document.get("keys", [document]) if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise ConfigError("key_unreadable", f"{name} is not a JWKS")
    return entries


def _require_public(jwk: Mapping[str, Any], name: str) -> None:
    if jwk.get("kty") == "oct" or "k" in jwk:
        raise ConfigError("key_refused", f"{name} holds a symmetric key")
    if "d" in jwk:
        raise ConfigError("key_refused", f"{name} holds a private key; give the public one")


def _jwk_key(jwk: Mapping[str, Any], name: str, alg: str | None) -> IssuerKey:
    kind = str(jwk.get("kty"))
    _require_public(jwk, name)
    readers: dict[str, Any] = {"EC": ECAlgorithm, "RSA": RSAAlgorithm, "OKP": OKPAlgorithm}
    if kind not in readers:
        raise ConfigError("key_refused", f"{name} holds a key of the unknown type {kind!r}")
    try:
        key = readers[kind].from_jwk(dict(jwk))
    except (PyJWTError, ValueError, TypeError, KeyError):
        raise ConfigError("key_unreadable", f"{name}: a {kind} key cannot be read") from None
    stated = jwk.get("alg")
    if stated is not None and alg is not None and stated != alg:
        raise ConfigError("key_algorithm", f"{name}: the key is for {stated}, not {alg}")
    return _issuer_key(key, jwk.get("kid"), stated or alg, name)


def _issuer_key(key: Any, kid: str | None, alg: str | None, name: str) -> IssuerKey:
    allowed = _algorithms(key, name)
    chosen = alg or allowed[0]
    if chosen not in allowed:
        raise ConfigError("key_algorithm", f"{name}: this key verifies {allowed[0]}, not {chosen}")
    data = {"alg": chosen, "jwk": public_jwk(key)}
    return build(
        IssuerKey, data if kid is None else {**data, "kid": kid}, code="key_unreadable", file=name
    )


def _algorithms(key: Any, name: str) -> tuple[str, ...]:
    if isinstance(key, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS or key.public_numbers().e < 65_537:
            raise ConfigError(
                "key_refused", f"{name}: an RSA key of {key.key_size} bits is not accepted"
            )
        return _RSA_ALGORITHMS
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return (_CURVES[key.curve.name],)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return ("EdDSA",)
    raise ConfigError("key_algorithm", f"{name}: keys of this kind are not supported")
