"""X509-SVIDs: leaves that the node's CA signs for workloads (SPIFFE X509-SVID §3 to §5, RFC 5280).

Owns: what is in such a certificate, and its key. Must not: decide who gets one, or write a key anywhere.

A leaf is put together from DER that is the same for all and the few parts that are not: a node renews thousands, and
`cryptography`'s builder takes 1.7 times as long (docs/identity.md). A test has `cryptography` read all of it back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from vedette.errors import ConfigError
from vedette.identity.authority import Authority, key_usage
from vedette.identity.der import BIT_STRING, OCTET_STRING, SEQUENCE, integer, time, tlv
from vedette.identity.domain import SpiffeId
from vedette.ids import new_serial

DEFAULT_TTL: Final = timedelta(minutes=15)
MIN_TTL: Final = timedelta(seconds=10)
MAX_TTL: Final = timedelta(hours=1)
BACKDATED: Final = timedelta(seconds=30)  # clocks of peers differ
MAX_DNS_NAMES: Final = 16
_ES256: Final = ec.ECDSA(SHA256())
_VERSION_3: Final = bytes.fromhex("a003020102")
_ECDSA_WITH_SHA256: Final = tlv(SEQUENCE, bytes.fromhex("06082a8648ce3d040302"))
_NO_SUBJECT: Final = tlv(SEQUENCE)
_P256_KEY: Final = tlv(
    SEQUENCE, bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06082a8648ce3d030107")
)
_EXTENSIONS: Final = 0xA3
_SAN_OID: Final = bytes.fromhex("0603551d11")
_CRITICAL: Final = bytes.fromhex("0101ff")
_DNS_NAME: Final = 0x82
_URI: Final = 0x86


@dataclass(frozen=True, slots=True)
class X509Svid:
    """A leaf (DER), its key (PKCS #8, DER) and its life, UTC. The key is a secret: it is not in the `repr`."""

    spiffe_id: SpiffeId
    certificate: bytes
    key: bytes = field(repr=False)
    serial: int
    not_before: datetime
    not_after: datetime


class X509Issuer:
    """Mints X509-SVIDs of one authority."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        """Whose SVIDs these are."""
        self._head = authority.certificate.subject.public_bytes()
        self._extensions = _same_extensions(authority.certificate)

    def __repr__(self) -> str:
        return f"X509Issuer({self.authority.trust_domain!r})"

    def mint(
        self, identity: SpiffeId, ttl: timedelta, at: datetime, dns_names: tuple[str, ...] = ()
    ) -> X509Svid:
        """A new key and a leaf for it that ends at `at` + `ttl`.

        `identity` is of this authority's trust domain and has a path; `dns_names` are hosts in normal form. Raises
        `ConfigError` svid_invalid for another trust domain or a life that is too short or too long.
        """
        self._require(identity, ttl, dns_names)
        key = ec.generate_private_key(ec.SECP256R1())
        serial = new_serial()
        start = at.replace(microsecond=0) - BACKDATED
        end = at.replace(microsecond=0) + ttl
        to_be_signed = tlv(
            SEQUENCE,
            _VERSION_3,
            integer(serial),
            _ECDSA_WITH_SHA256,
            self._head,
            tlv(SEQUENCE, time(start), time(end)),
            _NO_SUBJECT,
            _public_key(key),
            tlv(_EXTENSIONS, tlv(SEQUENCE, self._extensions, _names(identity, dns_names))),
        )
        signature = tlv(BIT_STRING, b"\0", self.authority.sign(to_be_signed))
        certificate = tlv(SEQUENCE, to_be_signed, _ECDSA_WITH_SHA256, signature)
        private = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return X509Svid(identity, certificate, private, serial, start, end)

    def _require(self, identity: SpiffeId, ttl: timedelta, dns_names: tuple[str, ...]) -> None:
        if identity.trust_domain != self.authority.trust_domain or not identity.path:
            raise ConfigError("svid_invalid", f"{identity} is not a workload of this node")
        require_ttl(ttl, MAX_TTL)
        if len(dns_names) > MAX_DNS_NAMES:
            raise ConfigError("svid_invalid", f"an SVID has at most {MAX_DNS_NAMES} DNS names")


def require_ttl(ttl: timedelta, most: timedelta) -> timedelta:
    """Returns a life between 10 s and `most`. Raises `ConfigError` svid_invalid."""
    if not MIN_TTL <= ttl <= most:
        raise ConfigError(
            "svid_invalid", f"an SVID lives from {MIN_TTL} to {most} (h:mm:ss), not {ttl}"
        )
    return ttl


def _public_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return tlv(SEQUENCE, _P256_KEY, tlv(BIT_STRING, b"\0", point))


def _names(identity: SpiffeId, dns_names: tuple[str, ...]) -> bytes:
    """One URI, critical because the subject is empty (X509-SVID §2, RFC 5280 §4.2.1.6)."""
    names = [tlv(_URI, str(identity).encode())]
    names += [tlv(_DNS_NAME, name.encode("ascii")) for name in dns_names]
    return tlv(SEQUENCE, _SAN_OID, _CRITICAL, tlv(OCTET_STRING, tlv(SEQUENCE, *names)))


def _same_extensions(issuer: x509.Certificate) -> bytes:
    """The extensions that every leaf has: what it may be used for (X509-SVID §4.3), and whose it is."""
    parts: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (key_usage(signs_certificates=False), True),
        (
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            False,
        ),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(_p256(issuer)), False),
    ]
    return b"".join(_extension(value, critical) for value, critical in parts)


def _extension(value: x509.ExtensionType, critical: bool) -> bytes:
    oid = _oid(value.oid)
    body = tlv(OCTET_STRING, value.public_bytes())
    return tlv(SEQUENCE, oid, _CRITICAL if critical else b"", body)


def _oid(oid: x509.ObjectIdentifier) -> bytes:
    """Object identifiers of extensions are 2.5.29.n, n below 128 (RFC 5280 §4.2.1)."""
    last = int(oid.dotted_string.removeprefix("2.5.29."))
    return tlv(0x06, bytes((0x55, 0x1D, last)))


def _p256(issuer: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = issuer.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key
