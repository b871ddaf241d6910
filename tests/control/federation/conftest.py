"""Nodes that serve and follow bundles over real sockets, without an engine."""

from __future__ import annotations

import contextlib
import datetime as time
import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from tests.control.workload.conftest import Clock

from vedette.clock import now
from vedette.control.bootstrap import Keys, Wish, bootstrap, open_keys, read_facts
from vedette.control.federation.following import Following
from vedette.control.federation.messages import EndpointStatus, Profile, ServeWish
from vedette.control.federation.serving import BundleServing
from vedette.control.workload.identities import Identities
from vedette.identity.authority import key_usage
from vedette.identity.key_files import generate_p256, private_pem
from vedette.store.home import Home


@dataclass
class Peer:
    """A node, as far as federation goes."""

    home: Home
    keys: Keys
    identities: Identities
    serving: BundleServing
    following: Following
    clock: Clock

    @property
    def domain(self) -> str:
        return self.identities.trust_domain

    def serve(self, **more: object) -> EndpointStatus:
        """Serves on a free port of this machine, as an SVID unless told."""
        wish = {"listen": "127.0.0.1:0", "profile": Profile.HTTPS_SPIFFE, **more}
        return self.serving.put(ServeWish(**wish))  # type: ignore[arg-type]

    @property
    def url(self) -> str:
        status = self.serving.status()
        assert status is not None
        return f"https://{status.address}/bundle"


@pytest.fixture
def make_peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Peer]]:
    """Makes nodes by name; all are ended with the test."""
    with contextlib.ExitStack() as ended:

        def make(name: str) -> Peer:
            home = Home(tmp_path_factory.mktemp("n"))
            bootstrap(home, Wish(name=name, site="example.org"))
            facts = read_facts(home)
            assert facts is not None
            keys, clock = open_keys(home, facts), Clock()
            identities = Identities(home, keys, clock)
            ended.callback(identities.close)
            serving = BundleServing(home, identities)
            ended.callback(serving._stop)
            following = Following(home, identities, clock=clock)
            return Peer(home, keys, identities, serving, following, clock)

        yield make


@pytest.fixture
def one(make_peer: Callable[[str], Peer]) -> Peer:
    return make_peer("edge-1")


@pytest.fixture
def two(make_peer: Callable[[str], Peer]) -> Peer:
    return make_peer("edge-2")


@dataclass
class Web:
    """A CA as the web has them, and a certificate of it for this machine."""

    folder: Path

    def __post_init__(self) -> None:
        self._key = generate_p256()
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A web CA")])
        self.ca = self.folder / "web-ca.pem"
        certificate = self._certificate(self._key, self._name, is_ca=True)
        self.ca.write_bytes(certificate.public_bytes(Encoding.PEM))
        self.certificate, self.key = self.folder / "web.pem", self.folder / "web.key"
        self.renew()

    def renew(self) -> int:
        """Writes a new certificate and key; returns the serial number."""
        key = generate_p256()
        leaf = self._certificate(key, x509.Name([]), is_ca=False)
        self.key.write_bytes(private_pem(key))
        self.key.chmod(0o600)
        self.certificate.write_bytes(leaf.public_bytes(Encoding.PEM))
        return leaf.serial_number

    def _certificate(self, key: object, name: x509.Name, *, is_ca: bool) -> x509.Certificate:
        names: list[x509.GeneralName] = [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
        public = key.public_key()  # type: ignore[attr-defined]
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now() - time.timedelta(hours=1))
            .not_valid_after(now() + time.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(key_usage(signs_certificates=is_ca), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=not is_ca)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, SHA256())
        )


@pytest.fixture
def web(tmp_path: Path) -> Web:
    return Web(tmp_path)
