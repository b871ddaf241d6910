"""Makes the X509-SVIDs that a peer's pair of sidecars shows: two trust domains, as two nodes of ours have.

Owns: a throw-away CA for each trust domain and a P-256 leaf of it with one SPIFFE ID (X509-SVID §2 to §4).
Must not: make an SVID of ours; the nodes do that.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vedette.identity.authority import key_usage

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Svid:
    """Files of one side: its certificate and key (0600), and the CA that the other side trusts for it."""

    spiffe_id: str
    certificate: Path
    key: Path
    authority: Path


def make(folder: Path, domain: str, name: str) -> Svid:
    """An SVID for `spiffe://DOMAIN/NAME` of a CA of its own, good for a day, in files of `folder`."""
    signer, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _authority(domain, signer)
    spiffe_id = f"spiffe://{domain}/{name}"
    svid = Svid(
        spiffe_id, folder / f"{name}.pem", folder / f"{name}.key", folder / f"{name}-ca.pem"
    )
    leaf = _leaf(spiffe_id, key, authority, signer)
    svid.certificate.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    svid.authority.write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    svid.key.touch(mode=0o600)
    svid.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return svid


def _authority(domain: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, domain)])
    uri = x509.UniformResourceIdentifier(f"spiffe://{domain}")
    return (
        _dated(name, name, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    spiffe_id: str,
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    signer: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    uri = x509.UniformResourceIdentifier(spiffe_id)
    # The subject is empty, so the names are critical (RFC 5280 §4.2.1.6).
    return (
        _dated(x509.Name([]), authority.subject, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(x509.SubjectAlternativeName([uri]), critical=True)
        .sign(signer, hashes.SHA256())
    )


def _dated(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + _DAY)
    )
