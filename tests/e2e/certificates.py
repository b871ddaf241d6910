"""Certificates of clients, right and wrong in every way, made without the code under test.

Owns: authorities and leaves with any names, times and usages. Must not: import anything from vedette.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.e2e.wire import Endpoint, tls_context

CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate and its key, in one PEM file for `ssl`."""

    certificate: x509.Certificate
    file: Path

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def serial(self) -> str:
        """Its serial number as the record spells it."""
        return f"{self.certificate.serial_number:x}"


class Authority:
    """A CA of the test's own."""

    def __init__(self, folder: Path, name: str = "Test CA") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        builder = _builder(self._name, self._name, self._key, -1, 3650)
        usage = _usage(signs=True, certifies=True)
        builder = builder.add_extension(x509.BasicConstraints(True, None), True)
        self.certificate = builder.add_extension(usage, True).sign(self._key, SHA256())
        self.file = folder / f"{name.replace(' ', '-')}.pem"
        self.file.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        self._made = 0

    def issue(
        self,
        common_name: str = "client",
        *,
        uris: Sequence[str] = (),
        hosts: Sequence[str] = (),
        addresses: Sequence[str] = (),
        ca: bool = False,
        days: tuple[float, float] = (-1, 30),
        purposes: Sequence[x509.ObjectIdentifier] = (CLIENT,),
        signs: bool = True,
        certifies: bool = False,
    ) -> Credential:
        """A certificate; everything about it can be wrong."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(common_name), self._name, key, *days)
        builder = builder.add_extension(x509.BasicConstraints(ca, None), True)
        builder = builder.add_extension(_usage(signs=signs, certifies=certifies), True)
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), False)
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
        names += [x509.DNSName(host) for host in hosts]
        names += [x509.IPAddress(ip_address(it)) for it in addresses]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        certificate = builder.sign(self._key, SHA256())
        self._made += 1
        file = self._folder / f"{self.file.stem}-{self._made}.pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file.write_bytes(private + certificate.public_bytes(Encoding.PEM))
        return Credential(certificate, file)


def context_with(
    endpoint: Endpoint, protocol: str, credential: Credential | None
) -> ssl.SSLContext:
    """A client's TLS settings, with a certificate."""
    context = tls_context(endpoint.ca_file, protocol)
    if credential is not None:
        context.load_cert_chain(credential.file)
    return context


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else [])


def _usage(*, signs: bool, certifies: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signs,
        key_encipherment=not signs and not certifies,
        key_cert_sign=certifies,
        crl_sign=certifies,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    start: float,
    end: float,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=start))
        .not_valid_after(now + timedelta(days=end))
    )
