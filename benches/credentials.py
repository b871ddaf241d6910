"""Makes the certificate, the signing key and the tokens the peers are measured with.

Owns: a throw-away P-256 certificate for localhost and ES256 tokens with their JWKS.
Must not: touch Vedette's own keys; the node makes those itself.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

ISSUER = "https://issuer.bench.test"
AUDIENCE = "https://edge.bench.test"
_KEY_ID = "bench"


@dataclass(frozen=True)
class Credentials:
    """Files for the servers and one token for the load."""

    certificate: Path
    key: Path
    jwks: str
    token: str


def make(folder: Path) -> Credentials:
    """Writes certificate and key (0600) into folder; the token lives a day."""
    tls_key = ec.generate_private_key(ec.SECP256R1())
    certificate = folder / "server.pem"
    certificate.write_bytes(_self_signed(tls_key).public_bytes(serialization.Encoding.PEM))
    key = folder / "server.key"
    key.touch(mode=0o600)
    key.write_bytes(
        tls_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    token_key = ec.generate_private_key(ec.SECP256R1())
    return Credentials(certificate, key, _jwks(token_key), _token(token_key))


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )


def _jwks(key: ec.EllipticCurvePrivateKey) -> str:
    numbers = key.public_key().public_numbers()
    jwk = {
        "kty": "EC",
        "crv": "P-256",
        "alg": "ES256",
        "use": "sig",
        "kid": _KEY_ID,
        "x": _base64url(numbers.x.to_bytes(32, "big")),
        "y": _base64url(numbers.y.to_bytes(32, "big")),
    }
    return json.dumps({"keys": [jwk]})


def _token(key: ec.EllipticCurvePrivateKey) -> str:
    """An ES256 JWT with the claims our own tokens carry (RFC 7519, RFC 7518 section 3.4)."""
    now = int(datetime.datetime.now(datetime.UTC).timestamp())
    header = {"alg": "ES256", "typ": "JWT", "kid": _KEY_ID}
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "bench",
        "iat": now - 5,
        "nbf": now - 5,
        "exp": now + 86_400,
        "jti": "bench-0001",
    }
    signed = ".".join(_base64url(json.dumps(part).encode()) for part in (header, claims))
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{_base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
