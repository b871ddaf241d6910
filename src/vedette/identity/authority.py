"""The node's certificate authority.

Owns: the CA's key and certificate, issuing the server's certificate and the CRL. Must not: let the private key leave
this object other than into its file, which the engine can never read.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vedette.clock import now
from vedette.errors import ConfigError, TrustError
from vedette.identity.domain import gateway_id, spiffe_id
from vedette.identity.key_files import ensure_p256, generate_p256, load_p256, private_pem
from vedette.identity.sealing import Seal
from vedette.ids import new_serial
from vedette.store.atomic import write_atomic

CA_LIFETIME: Final = timedelta(days=730)
"""A CA signs for about half of it (ADR 0034)."""
SERVER_DAYS: Final = 7
_BACKDATED: Final = timedelta(minutes=5)  # clocks of clients differ
CRL_LIFETIME: Final = timedelta(days=1)
_LOOPBACK: Final = ("127.0.0.1", "::1")
_ES256: Final = ec.ECDSA(SHA256())


class Authority:
    """A CA: P-256, path length 0, one URI SAN with the trust domain (SPIFFE X509-SVID §3)."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        if key.public_key() != certificate.public_key():
            raise TrustError("key_mismatch", "the CA's certificate does not belong to its key")
        self._key = key
        self._certificate = certificate

    def __repr__(self) -> str:
        return f"Authority({self.trust_domain!r})"

    @classmethod
    def ensure(
        cls, key_path: Path, certificate_path: Path, trust_domain: str, seal: Seal | None = None
    ) -> Authority:
        """Loads the CA, or makes what of it is missing; the key, once made, is never replaced. With a `seal` its file
        is encrypted.

        Raises `ConfigError`, `TrustError` for what cannot be used, `UnavailableError` for the disk.
        """
        key = ensure_p256(key_path, seal)
        if certificate_path.exists():
            return cls(key, _read_certificate(certificate_path))
        certificate = _self_signed(key, trust_domain, now())
        write_atomic(certificate_path, certificate.public_bytes(Encoding.PEM), 0o644)
        return cls(key, certificate)

    @classmethod
    def load(cls, key_path: Path, certificate_path: Path) -> Authority:
        """Loads the CA. Raises `ConfigError` key_unreadable, `TrustError` key_permissions or
        key_refused.
        """
        key = load_p256(key_path)
        return cls(key, _read_certificate(certificate_path))

    @classmethod
    def make(cls, key: ec.EllipticCurvePrivateKey, trust_domain: str, at: datetime) -> Authority:
        """A new CA with this key, whose life begins at `at`."""
        return cls(key, _self_signed(key, trust_domain, at))

    @classmethod
    def of_pem(cls, key: ec.EllipticCurvePrivateKey, pem: bytes) -> Authority:
        """The CA of this key and certificate. Raises `ConfigError` key_unreadable, `TrustError` key_mismatch."""
        try:
            return cls(key, x509.load_pem_x509_certificate(pem))
        except ValueError:
            raise ConfigError("key_unreadable", "the CA's certificate cannot be read") from None

    @property
    def begins(self) -> datetime:
        """From when on its certificate counts, UTC."""
        return self._certificate.not_valid_before_utc

    @property
    def ends(self) -> datetime:
        """Until when its certificate counts, UTC."""
        return self._certificate.not_valid_after_utc

    @property
    def key_id(self) -> str:
        """What people tell it from others by: the serial number of its certificate, hex."""
        return f"{self._certificate.serial_number:x}"

    def told(self) -> dict[str, str]:
        """Its certificate, which with the key makes it again."""
        return {"certificate": self.certificate_pem.decode()}

    @property
    def certificate(self) -> x509.Certificate:
        """The CA's certificate."""
        return self._certificate

    def sign(self, to_be_signed: bytes) -> bytes:
        """The signature of a certificate's DER, which `x509_svid` makes (ECDSA with SHA-256, RFC 5758 §3.2)."""
        return self._key.sign(to_be_signed, _ES256)

    def issue_crl(
        self, number: int, revoked: Iterable[tuple[int, datetime]], at: datetime
    ) -> bytes:
        """A CRL (DER, RFC 5280 §5) of serials and when each was revoked; `number` grows with each CRL.

        It counts for a day: SVIDs end long before, and a control that is away must not make relying parties refuse all.
        """
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(at - _BACKDATED)
            .next_update(at + CRL_LIFETIME)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        for serial, moment in revoked:
            one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(moment)
            builder = builder.add_revoked_certificate(one.build())
        return builder.sign(self._key, SHA256()).public_bytes(Encoding.DER)

    @property
    def certificate_pem(self) -> bytes:
        """The CA's certificate; public, for `curl --cacert`."""
        return self._certificate.public_bytes(Encoding.PEM)

    @property
    def trust_domain(self) -> str:
        """The trust domain that the certificate is for."""
        (uri,) = _alternative_names(self._certificate).get_values_for_type(
            x509.UniformResourceIdentifier
        )
        return uri.removeprefix("spiffe://")

    def issue_server(self, names: Sequence[str], days: int = SERVER_DAYS) -> tuple[bytes, bytes]:
        """A new key and certificate for the public listener, as PEM: (chain, key).

        `names` are hosts in normal form, addresses and wildcards included; loopback and the
        gateway's SPIFFE id are always added. The chain holds the leaf only: clients have the root.
        """
        key = generate_p256()
        start = now()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name("Vedette gateway"))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(new_serial())
            .not_valid_before(start - _BACKDATED)
            .not_valid_after(start + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(_server_names(names, self.trust_domain), critical=False)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, SHA256())
        )
        return certificate.public_bytes(Encoding.PEM), private_pem(key)

    def issue_model_signer(self, key: ec.EllipticCurvePublicKey, at: datetime) -> x509.Certificate:
        """A certificate for a key that signs one model and is then gone; it counts for ten minutes."""
        name = x509.UniformResourceIdentifier(spiffe_id(self.trust_domain, "/model-signer"))
        return (
            x509.CertificateBuilder()
            .subject_name(_name(f"Models of {self.trust_domain}"))
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(new_serial())
            .not_valid_before(max(at - _BACKDATED, self.begins))
            .not_valid_after(at + _BACKDATED)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False
            )
            .add_extension(x509.SubjectAlternativeName([name]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, SHA256())
        )

    def needs_renewal(self, chain_pem: bytes, names: Sequence[str], at: datetime) -> bool:
        """Whether the server's certificate must be issued anew: unreadable, of another CA, for
        other names, past half of its life at the time `at`, or not valid yet: the clock was ahead when it was made.
        """
        try:
            certificate = x509.load_pem_x509_certificate(chain_pem)
            certificate.verify_directly_issued_by(self._certificate)
            held = set(_alternative_names(certificate))
        except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return True
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        is_due = at < start or at >= start + (end - start) / 2
        return is_due or held != set(_server_names(names, self.trust_domain))


def certificate_expiry(pem: bytes) -> datetime:
    """When the first certificate in `pem` ends (UTC). Raises `ConfigError` key_unreadable."""
    try:
        return x509.load_pem_x509_certificate(pem).not_valid_after_utc
    except ValueError:
        raise ConfigError("key_unreadable", "this is not a PEM certificate") from None


def _self_signed(
    key: ec.EllipticCurvePrivateKey, trust_domain: str, start: datetime
) -> x509.Certificate:
    start = start.replace(microsecond=0)
    names = [x509.UniformResourceIdentifier(spiffe_id(trust_domain))]
    serial = new_serial()
    name = _name(common_name(trust_domain), serial)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(start - _BACKDATED)
        .not_valid_after(start + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )


def common_name(trust_domain: str) -> str:
    """What the CAs of a node are called; at most 64 characters (RFC 5280 appendix A.1: ub-common-name)."""
    return f"Vedette CA {trust_domain}"[:64]


def _name(common: str, serial: int | None = None) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
    if serial is not None:
        # CAs that follow one another have names of their own: verifiers that go by the name alone find the right one.
        parts.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, f"{serial:x}"[:16]))
    return x509.Name(parts)


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """What a key may be used for: signing certificates and CRLs, or anything else (RFC 5280 §4.2.1.3)."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _server_names(names: Iterable[str], trust_domain: str) -> x509.SubjectAlternativeName:
    hosts = [_general_name(name) for name in dict.fromkeys((*names, *_LOOPBACK))]
    return x509.SubjectAlternativeName(
        [*hosts, x509.UniformResourceIdentifier(gateway_id(trust_domain))]
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        raise ConfigError("key_unreadable", f"{path} holds no certificate") from None
