"""Tokens of every kind, honest and forged, made without the code under test.

Owns: JSON Web Signatures (RFC 7515) with any algorithm and key, including those nobody should accept.
Must not: import anything from vedette; a shared mistake would go unseen.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

_HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


def encode(data: bytes) -> str:
    """Base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """The reverse of `encode`."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def parts_of(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The header and the claims of a token, unverified."""
    header, claims, _ = token.split(".")
    return json.loads(decode(header)), json.loads(decode(claims))


def signed(header: Mapping[str, Any], claims: Mapping[str, Any], key: PrivateKey) -> str:
    """A token signed with the algorithm that `header` names."""
    start = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}"
    return f"{start}.{encode(_sign(str(header['alg']), key, start.encode()))}"


def keyed(header: Mapping[str, Any], claims: Mapping[str, Any], secret: bytes) -> str:
    """A token with an HMAC-SHA256 under any secret, such as a public key."""
    start = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}"
    return f"{start}.{encode(hmac.new(secret, start.encode(), hashlib.sha256).digest())}"


def unsigned(header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    """A token with an empty signature."""
    return f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}."


def _sign(algorithm: str, key: PrivateKey, data: bytes) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(data)
    digest = _HASHES[algorithm[2:]]
    if isinstance(key, rsa.RSAPrivateKey):
        if algorithm.startswith("PS"):
            salted = padding.PSS(mgf=padding.MGF1(digest), salt_length=digest.digest_size)
            return key.sign(data, salted, digest)
        return key.sign(data, padding.PKCS1v15(), digest)
    size = (key.key_size + 7) // 8
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(digest)))
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def private_key(path: Path, seal: Path | None = None) -> PrivateKey:
    """A private key from a PEM file, encrypted under the first line of `seal` or not at all."""
    password = None if seal is None else seal.read_bytes().splitlines()[0]
    key = serialization.load_pem_private_key(path.read_bytes(), password)
    assert isinstance(
        key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    )
    return key


def public_pem(key: PrivateKey) -> bytes:
    """The public half as PEM."""
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def public_jwk(key: PrivateKey, algorithm: str, kid: str) -> dict[str, str]:
    """The public half as a JWK (RFC 7517, RFC 8037)."""
    common = {"kid": kid, "alg": algorithm, "use": "sig"}
    if isinstance(key, ed25519.Ed25519PrivateKey):
        raw = key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        return {**common, "kty": "OKP", "crv": "Ed25519", "x": encode(raw)}
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        return {**common, "kty": "RSA", "n": _integer(numbers.n), "e": _integer(numbers.e)}
    size = (key.key_size + 7) // 8
    point = key.public_key().public_numbers()
    curve = {256: "P-256", 384: "P-384"}[key.key_size]
    return {
        **common,
        "kty": "EC",
        "crv": curve,
        "x": encode(point.x.to_bytes(size, "big")),
        "y": encode(point.y.to_bytes(size, "big")),
    }


def _integer(value: int) -> str:
    return encode(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def in_seconds(seconds: int) -> int:
    """Now plus `seconds`, as a NumericDate (RFC 7519 section 2)."""
    return int(time.time()) + seconds
