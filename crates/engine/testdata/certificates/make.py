"""Makes the certificates beside it, valid from 2026 to 2036: `python make.py`. The private keys are thrown away."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

START, MIDDLE, END = (datetime(year, 1, 1, tzinfo=UTC) for year in (2026, 2031, 2036))
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
ID = "spiffe://example.org/ns/web/sa/shop"


def name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Acme, Inc."),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def usage(signs: bool, certifies: bool) -> x509.KeyUsage:
    return x509.KeyUsage(signs, False, not signs, False, False, certifies, False, False, False)


def make(
    file,
    subject,
    serial,
    issuer=None,
    *,
    ca=False,
    uris=(),
    purposes=(CLIENT,),
    key_usage=None,
    end=END,
    permitted=None,
):
    key = ec.generate_private_key(ec.SECP256R1())
    signer, signer_name = issuer or (key, name(subject))
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject) if subject else x509.Name([]))
        .issuer_name(signer_name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(START)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca, None), True)
    )
    if key_usage:
        builder = builder.add_extension(key_usage, True)
    if purposes and not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), False)
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    if permitted:
        builder = builder.add_extension(
            x509.NameConstraints([x509.DirectoryName(permitted)], None), True
        )
    certificate = builder.sign(signer, SHA256())
    Path(__file__).with_name(f"{file}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    return key, certificate.subject


def main() -> None:
    signs, certifies = usage(True, False), usage(True, True)
    ca = make("ca", "CA", 1, ca=True, key_usage=certifies)
    between = make("between", "Between", 0xB, ca, ca=True, key_usage=certifies, end=MIDDLE)
    other = make("other-ca", "Other", 2, ca=True, key_usage=certifies)
    make("spiffe", "", 0x0A1F, between, uris=[ID], purposes=(CLIENT, SERVER), key_usage=signs)
    make("two-uris", "", 4, between, uris=[ID, "https://example.org"], key_usage=signs)
    make("no-uri", "", 5, between, key_usage=signs)
    make("no-usage", "", 6, between, uris=[ID])
    make("certifies", "", 7, between, uris=[ID], key_usage=certifies)
    make("other-domain", "", 8, between, uris=["spiffe://example.com/x"], key_usage=signs)
    make("plain", "client", 9, ca)
    make("server-only", "server", 10, ca, purposes=(SERVER,))
    make("any-purpose", "any", 11, ca, purposes=())
    make("ca-as-leaf", "Leaf CA", 12, ca, ca=True, key_usage=certifies)
    make("foreign", "client", 13, other)
    make("encrypts", "encrypts", 14, ca, key_usage=usage(False, False))


main()
