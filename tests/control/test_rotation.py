"""Rotation of keys: nobody who watches sees a failure, and who dies amid it goes on where it was."""

from __future__ import annotations

import os
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe import JwtBundleSet, TrustDomain, WorkloadApiClient
from spiffe.workloadapi.x509_context import X509Context
from tests.control.conftest import Running
from tests.control.workload.conftest import ME, Clock

from vedette.control.bootstrap import Keys, open_keys, read_facts
from vedette.control.client import ControlClient
from vedette.control.messages import AuthorityWish, RotateWish
from vedette.control.rotation import SHORT_NOTICE, Rotation
from vedette.control.supervisor import sockets
from vedette.control.workload.entries import Workloads
from vedette.control.workload.identities import Identities
from vedette.control.workload.messages import WorkloadWish
from vedette.control.workload.server import WorkloadServer
from vedette.errors import VedetteError
from vedette.identity.federation import Federation
from vedette.identity.succession import OLD_FOR
from vedette.store.home import Home
from vedette.store.identities import IdentityStore

PATIENCE = 120.0  # seconds; only against what hangs
DOMAIN = "test-node.vedette.local"
NO_CHECK_TIME = (
    0x200000  # X509_V_FLAG_NO_CHECK_TIME: the clock of the node is moved, that of OpenSSL cannot be
)


@dataclass
class Rotating:
    """A node with its own clock, whose rotation is stepped by the test."""

    running: Running
    keys: Keys
    identities: Identities
    workloads: Workloads
    clock: Clock
    recorded: list[dict[str, str]] = field(default_factory=list)

    def rotation(self) -> Rotation:
        """Rotation as a control that starts now has it."""
        return Rotation(
            self.running.home,
            self.keys,
            self.identities,
            self.running.activator,
            lambda **fields: self.recorded.append(fields),
            self.clock,
        )


@pytest.fixture
def rotating(running: Running) -> Iterator[Rotating]:
    clock = Clock()
    keys = running.activator._keys
    identities = Identities(running.home, keys, clock)
    yield Rotating(running, keys, identities, Workloads(identities.store, DOMAIN), clock)
    identities.close()


class Holder:
    """A program that watches the Workload API: what it was last told."""

    def __init__(self, address: str, path: str) -> None:
        self.client = WorkloadApiClient(address)
        self.path = path
        self.context: X509Context | None = None
        self.jwt: JwtBundleSet | None = None
        self._stops = [
            self.client.stream_x509_contexts(self._x509, lambda error: None),
            self.client.stream_jwt_bundles(self._jwt, lambda error: None),
        ]

    def close(self) -> None:
        for stop in self._stops:
            stop.cancel()
        self.client.close()

    def _x509(self, context: X509Context) -> None:
        self.context = context

    def _jwt(self, bundles: JwtBundleSet) -> None:
        self.jwt = bundles

    def svid(self) -> Any:
        assert self.context is not None
        return next(
            one for one in self.context.x509_svids if str(one.spiffe_id).endswith(self.path)
        )

    def authorities(self) -> set[x509.Certificate]:
        if self.context is None:
            return set()
        bundle = self.context.x509_bundle_set.get_bundle_for_trust_domain(TrustDomain(DOMAIN))
        assert bundle is not None
        return set(bundle.x509_authorities)

    def kids(self) -> set[str]:
        if self.jwt is None:
            return set()
        bundle = self.jwt.get_bundle_for_trust_domain(TrustDomain(DOMAIN))
        assert bundle is not None
        return set(bundle.jwt_authorities)

    def tls(self, folder: Path, protocol: int) -> ssl.SSLContext:
        """Mutual TLS with what this program has now, and nothing else."""
        svid = self.svid()
        key = svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        file = folder / f"{self.path[1:]}.pem"
        file.write_bytes(key + svid.leaf.public_bytes(Encoding.PEM))
        context = ssl.SSLContext(protocol)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= NO_CHECK_TIME
        context.load_cert_chain(file)
        for one in self.authorities():
            context.load_verify_locations(cadata=one.public_bytes(Encoding.DER))
        return context


class Traffic:
    """Mutual TLS between two programs, and tokens from one to the other, again and again."""

    def __init__(self, caller: Holder, service: Holder, folder: Path) -> None:
        self.caller, self.service, self.folder = caller, service, folder
        self.done = 0
        self.failed: list[str] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def more(self) -> None:
        """Returns when there was traffic that began after now."""
        wanted = self.done + 3
        wait_until(lambda: self.done >= wanted or self.failed)
        assert not self.failed

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._shake_hands()
                self._present()
                self.done += 1
            except Exception as error:  # noqa: BLE001 - whatever goes wrong is a failed request
                self.failed.append(repr(error))

    def _shake_hands(self) -> None:
        to_service, to_caller = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = [
            self.caller.tls(self.folder, ssl.PROTOCOL_TLS_CLIENT).wrap_bio(to_caller, to_service),
            self.service.tls(self.folder, ssl.PROTOCOL_TLS_SERVER).wrap_bio(
                to_service, to_caller, server_side=True
            ),
        ]
        for _ in range(4):
            for end in ends:
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
        assert all(end.getpeercert(binary_form=True) for end in ends)

    def _present(self) -> None:
        token = self.caller.client.fetch_jwt_svid(["service"]).token
        assert self.service.jwt is not None
        bundle = self.service.jwt.get_bundle_for_trust_domain(TrustDomain(DOMAIN))
        assert bundle is not None
        key: Any = bundle.get_jwt_authority(jwt.get_unverified_header(token)["kid"])
        options: Any = {"verify_exp": False, "verify_iat": False}
        jwt.decode(token, key, algorithms=["ES256"], audience="service", options=options)


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def traffic(rotating: Rotating, tmp_path: Path) -> Iterator[Traffic]:
    for name in ("caller", "service"):
        wish = WorkloadWish(path=f"/{name}", selectors=(ME,), ttl_seconds=3_600)
        rotating.workloads.put(name, wish)
    home = rotating.running.home
    server = WorkloadServer(home, rotating.workloads, rotating.identities, tick=0.1)
    server.start(sockets.bind_unix(home.workload_socket, 0o666))
    address = f"unix://{home.workload_socket}"
    holders = [Holder(address, "/caller"), Holder(address, "/service")]
    wait_until(lambda: all(one.kids() and one.authorities() for one in holders))
    started = Traffic(holders[0], holders[1], tmp_path)
    yield started
    started.stop()
    for one in holders:
        one.close()
    server.stop()


def test_a_rotation_of_both_keys_fails_no_request(
    rotating: Rotating, traffic: Traffic, tmp_path: Path
) -> None:
    """Real clients watch; each phase lasts until all have heard, as its time lets them in a node."""
    holders = [traffic.caller, traffic.service]
    rotation, keys = rotating.rotation(), rotating.keys
    foreign = IdentityStore(tmp_path / "foreign.db")
    elsewhere = Federation(foreign, "elsewhere.example.org")
    seen: list[tuple[int | None, int, int]] = []

    def told(cas: int, jwts: int) -> None:
        wait_until(
            lambda: all((len(h.authorities()), len(h.kids())) == (cas, jwts) for h in holders)
        )
        traffic.more()
        taken = elsewhere.put(DOMAIN, rotating.identities.own_bundle().to_jwks())
        seen.append((taken.sequence, len(taken.x509_authorities), len(taken.jwt_keys)))

    first, first_kid = keys.authority.certificate, keys.jwt_svids.active.key_id
    told(1, 1)
    for wish in (RotateWish(now=True), RotateWish(now=True, jwt=True)):
        rotation.rotate(wish)
    told(2, 2)
    assert keys.authority.certificate == first
    rotating.clock.ahead += SHORT_NOTICE + timedelta(seconds=2)
    assert rotation.step()
    second = keys.authority.certificate
    assert second != first
    for holder in holders:
        wait_until(lambda h=holder: h.svid().leaf.issuer == second.subject)
    told(2, 2)
    assert keys.jwt_svids.active.key_id != first_kid
    rotating.clock.ahead += OLD_FOR
    assert rotation.step()
    told(1, 1)
    assert all(one.authorities() == {second} for one in holders)
    assert all(first_kid not in one.kids() for one in holders)
    traffic.stop()
    assert (traffic.failed, traffic.done > 12) == ([], True)
    sequences = [sequence for sequence, _, _ in seen]
    assert sequences == sorted(sequences, key=lambda one: one or 0)
    assert [counts for _, *counts in seen] == [[1, 1], [2, 2], [2, 2], [1, 1]]
    foreign.close()


def test_the_listener_shows_the_ca_that_clients_know_as_long_as_it_is_trusted(
    rotating: Rotating,
) -> None:
    home, keys, rotation = rotating.running.home, rotating.keys, rotating.rotation()
    first = keys.authority

    def shown() -> x509.Certificate:
        return x509.load_pem_x509_certificate(home.tls_certificate.read_bytes())

    rotation.rotate(RotateWish(now=True))
    assert home.ca_certificate.read_bytes() == keys.ca_pem()
    assert keys.ca_pem().count(b"BEGIN CERTIFICATE") == 2
    rotating.clock.ahead += SHORT_NOTICE + timedelta(seconds=2)
    rotation.step()
    assert keys.authority is not first
    assert keys.ca_pem().startswith(keys.authority.certificate_pem)
    shown().verify_directly_issued_by(first.certificate)
    assert keys.listener_authority(rotating.clock()) is first
    almost = rotating.clock() + OLD_FOR - timedelta(minutes=2)
    assert keys.listener_authority(almost) is keys.authority
    rotating.clock.ahead += OLD_FOR
    rotation.step()
    shown().verify_directly_issued_by(keys.authority.certificate)
    assert home.ca_certificate.read_bytes() == keys.authority.certificate_pem
    assert [one["action"] for one in rotating.recorded] == ["rotate key", "retire key"]


def test_an_authority_of_the_snapshot_that_is_the_nodes_own_follows(rotating: Rotating) -> None:
    node, keys, rotation = rotating.running.node, rotating.keys, rotating.rotation()
    pem = keys.authority.certificate_pem.decode()
    node.put_authority("own", AuthorityWish(certificates=pem, trust_domain=DOMAIN), "test")
    node.put_authority("other", AuthorityWish(certificates=pem, trust_domain="other.org"), "test")
    before = rotating.running.activator.active()[0].digest

    def held(name: str) -> set[x509.Certificate]:
        (found,) = [one for one in node.authorities() if one.name == name]
        return set(x509.load_pem_x509_certificates(found.certificates.encode()))

    rotation.rotate(RotateWish(now=True))
    assert held("own") == {one.certificate for one in keys.ca.trusted()}
    rotating.clock.ahead += SHORT_NOTICE + timedelta(seconds=2)
    rotation.step()
    rotating.clock.ahead += OLD_FOR
    rotation.step()
    assert held("own") == {keys.authority.certificate}
    assert held("other") == set(x509.load_pem_x509_certificates(pem.encode()))
    node.roll_back(before, "test")
    assert held("own") != {keys.authority.certificate}
    rotation.step(again=True)
    assert held("own") == {keys.authority.certificate}


def test_a_key_that_nobody_had_time_to_hear_of_does_not_sign_after_a_restart(
    rotating: Rotating,
) -> None:
    rotating.rotation().rotate(RotateWish(now=True))
    rotating.clock.ahead += timedelta(hours=1)
    again = rotating.rotation()  # control starts
    again.step()
    assert [one.phase for one in again.statuses()] == ["active", "prepared", "active"]
    rotating.clock.ahead += SHORT_NOTICE
    again.step()
    assert [one.phase for one in again.statuses()] == ["active", "old", "active"]


@pytest.mark.parametrize("part", ["write_atomic", "with_own_authorities"])
@pytest.mark.parametrize("moves", [0, 1, 2])
def test_who_dies_before_others_heard_of_a_step_tells_them_after_the_restart(
    rotating: Rotating, monkeypatch: pytest.MonkeyPatch, part: str, moves: int
) -> None:
    class KilledError(BaseException):
        """The process dies here."""

    def killed(*_args: object, **_more: object) -> None:
        raise KilledError

    node, home = rotating.running.node, rotating.running.home
    pem = rotating.keys.authority.certificate_pem.decode()
    node.put_authority("own", AuthorityWish(certificates=pem, trust_domain=DOMAIN), "test")
    rotation = rotating.rotation()
    steps: list[Callable[[], object]] = [
        lambda: rotation.rotate(RotateWish(now=True)),
        lambda: (rotating.clock.move(SHORT_NOTICE + timedelta(seconds=2)), rotation.step()),
        lambda: (rotating.clock.move(OLD_FOR), rotation.step()),
    ]
    for step in steps[:moves]:
        step()
    with monkeypatch.context() as patch:
        patch.setattr(f"vedette.control.rotation.{part}", killed)
        with pytest.raises(KilledError):
            steps[moves]()
    facts = read_facts(home)
    assert facts is not None
    rotating.keys = open_keys(home, facts)
    rotating.identities.close()
    rotating.identities = Identities(home, rotating.keys, rotating.clock)
    rotating.running.activator._keys = rotating.keys
    rotating.rotation().step()
    trusted = {one.certificate for one in rotating.keys.ca.trusted()}
    assert len(trusted) == [2, 2, 1][moves]
    assert home.ca_certificate.read_bytes() == rotating.keys.ca_pem()
    (own,) = node.authorities()
    assert set(x509.load_pem_x509_certificates(own.certificates.encode())) == trusted
    assert len(rotating.identities.own_bundle().x509_authorities) == len(trusted)


def test_control_that_is_killed_amid_a_rotation_goes_on_with_the_same_keys(
    whole_node: Home,
) -> None:
    client = ControlClient(whole_node)
    before = client.post("/v1/ca/rotate", {"now": True})
    assert [one["phase"] for one in before] == ["active", "prepared", "active"]
    pid = client.get("/v1/status")["processes"]["control"]["pid"]
    os.kill(pid, signal.SIGKILL)

    def is_back() -> bool:
        try:
            found: int = client.get("/v1/status")["processes"]["control"]["pid"]
        except VedetteError:
            return False
        return found != pid

    wait_until(is_back)
    assert client.get("/v1/ca/keys") == before
    assert client.get_bytes("/v1/ca").count(b"BEGIN CERTIFICATE") == 2
    with pytest.raises(VedetteError) as caught:
        client.post("/v1/ca/rotate", {"now": "perhaps"})
    assert caught.value.code == "request_invalid"
