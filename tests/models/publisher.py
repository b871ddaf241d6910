"""A publisher of models: an authority of its own and the keys that it vouches for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
START = datetime(2026, 1, 1, tzinfo=UTC)
CODE = (ExtendedKeyUsageOID.CODE_SIGNING,)


def p256() -> ec.EllipticCurvePrivateKey:
    """A new key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def certificate(
    name: str, key: Key, issuer: tuple[str, Key] | None = None, **how: Any
) -> x509.Certificate:
    """A certificate of `key`, by itself unless an issuer is given. `how`: is_ca, signs, purposes, start."""
    is_ca, signs = how.get("is_ca", False), how.get("signs", True)
    start: datetime = how.get("start", START)
    by, by_key = issuer or (name, key)

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    usage = x509.KeyUsage(
        digital_signature=signs and not is_ca,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        content_commitment=False,
        key_encipherment=not is_ca and not signs,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(by))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=how.get("days", 30)))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
    )
    if not is_ca:
        known = x509.AuthorityKeyIdentifier.from_issuer_public_key(by_key.public_key())
        builder = builder.add_extension(known, critical=False)
    if how.get("purposes"):
        builder = builder.add_extension(x509.ExtendedKeyUsage(how["purposes"]), critical=False)
    return builder.sign(by_key, SHA256())


class Publisher:
    """`root` vouches for `leaf`, whose key is in `folder`/key.pem and whose chain is in chain.pem."""

    def __init__(self, folder: Path, name: str = "publisher", **leaf: Any) -> None:
        self.folder = folder
        self.root_key, self.key = p256(), leaf.pop("key", None) or p256()
        self.root = certificate(f"{name} root", self.root_key, is_ca=True, days=365)
        self.leaf = certificate(name, self.key, (f"{name} root", self.root_key), **leaf)
        self.key_file, self.chain_file = folder / f"{name}.key", folder / f"{name}.pem"
        self.root_file = folder / f"{name}-root.pem"
        self.leaf_file = folder / f"{name}-leaf.pem"
        private = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.key_file.write_bytes(private)
        self.key_file.chmod(0o600)
        self.leaf_file.write_bytes(pem(self.leaf))
        self.root_file.write_bytes(pem(self.root))
        self.chain_file.write_bytes(pem(self.leaf) + pem(self.root))


def pem(one: x509.Certificate) -> bytes:
    """A certificate in PEM."""
    return one.public_bytes(Encoding.PEM)
