"""`vedette verify --as-compromised`: nodes side by side, and each in turn in the hands of an attacker.

Owns: a network namespace for each node, what the nodes permit each other, and what somebody with root in one and all of
its state tries against the others. Must not: touch the node of the person who asks, or the machine's network.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from vedette.control.supervisor import launch
from vedette.engine.client import EngineClient
from vedette.errors import UnavailableError, VedetteError
from vedette.identity.authority import Authority
from vedette.identity.key_files import load_p256
from vedette.identity.sealing import Seal
from vedette.store.home import Home
from vedette.verification import forgery, namespaces
from vedette.verification.forgery import Credential, Forger, Leaf
from vedette.verification.place import Place
from vedette.verification.twin import active_envelope, apply
from vedette.verification.web import Answer, Header, Listener, ask, bearer
from vedette.verification.workload_caller import validated

SITE: Final = "blast.invalid"
PORT: Final = 8443
_NETWORK: Final = "10.83.0"
_PREFIX: Final = 24
_PORTS: Final = range(1, 1025)
_STOP_PATIENCE: Final = 15.0
_CONNECT: Final = 1.0  # seconds; on the bridge of one machine a port answers at once
_AUDIENCE: Final = "verify"
_MANIFEST: Final = """\
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: {name}}}
spec:
  rules:
    - matches: [{{path: {{value: /{name}}}}}]
      static: {{body: "secret of the {name} resource"}}
"""
_POLICY: Final = """\
@id("owner")
permit (principal == Subject::"spiffe://{own}#owner", action, resource == Route::"private");
@id("own-shop")
permit (principal == Workload::"spiffe://{own}/shop", action, resource == Route::"private");
@id("partner-shop")
permit (principal == Workload::"spiffe://{partner}/shop", action, resource == Route::"partner");
"""


@dataclass(slots=True)
class Member:
    """One node in its namespace. `forger` has its CA: the owner's hand, or the attacker's."""

    number: int
    home: Home
    segment: namespaces.Segment
    place: Place
    forger: Forger

    @property
    def domain(self) -> str:
        """Its trust domain."""
        return self.place.trust_domain

    @property
    def listener(self) -> Listener:
        """Where the others find it."""
        return Listener(self.segment.address, PORT, self.home.ca_certificate)

    @property
    def name(self) -> str:
        """What the matrix calls it."""
        return f"node-{self.number}"

    def call(
        self,
        other: Member,
        target: str,
        headers: Sequence[Header] = (),
        credential: Credential | None = None,
    ) -> Answer:
        """A request from this node's namespace to another node."""
        file = credential.file if credential else None
        return self.segment.run(
            lambda: ask(other.listener, target, headers=headers, credential=file)
        )

    def shop(self) -> Credential:
        """An SVID of its workload `shop`."""
        return self.forger.issue(Leaf((f"spiffe://{self.domain}/shop",)))


@dataclass(slots=True)
class Blast:
    """What came of it: attempts by source and destination, and the controls."""

    matrix: list[dict[str, Any]] = field(default_factory=list)
    controls: list[dict[str, Any]] = field(default_factory=list)

    def attempt(
        self, source: Member, destination: Member, what: str, reached: bool, saw: object
    ) -> None:
        """One try of an attacker."""
        names = {"source": source.name, "destination": destination.name}
        self.matrix.append({**names, "attempt": what, "reached": reached, "saw": str(saw)[:200]})

    def control(self, what: str, works: bool, saw: object) -> None:
        """Something that must work, or the attempts prove nothing."""
        self.controls.append({"what": what, "works": works, "saw": str(saw)[:200]})

    def as_dict(self, nodes: int) -> dict[str, Any]:
        """The report."""
        reached = sum(one["reached"] for one in self.matrix)
        works = bool(self.controls) and all(one["works"] for one in self.controls)
        return {
            "nodes": nodes,
            "reached": reached,
            "passed": reached == 0 and works and bool(self.matrix),
            "matrix": self.matrix,
            "controls": self.controls,
        }


# --- setting up ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def members(folder: Path, count: int) -> Iterator[list[Member]]:
    """Nodes on one bridge; each trusts the authorities of all, each for its own trust domain."""
    with contextlib.ExitStack() as opened:
        found = [_started(folder, number, opened) for number in range(count)]
        for member in found:
            launch.wait_until_ready(member.home)
        for member in found:
            member.place = Place.of(member.home)
            member.forger = _stolen(member.home, folder, member.place.trust_domain)
        for member in found:
            _set_up(member, found)
        yield found


def _started(folder: Path, number: int, opened: contextlib.ExitStack) -> Member:
    segment = namespaces.Segment(number, f"{_NETWORK}.{number + 1}", _PREFIX)
    opened.callback(segment.close)
    home = Home(folder / f"node{number}")
    options = launch.LaunchOptions(
        listen=[f"{segment.address}:{PORT}"],
        metrics="127.0.0.1:0",
        name=f"node-{number}",
        site=SITE,
        workers=1,
        foreground=True,
    )
    opened.callback(launch.stop, home, _STOP_PATIENCE)
    segment.run(lambda: launch.launch(home, options))
    nothing: Any = None  # known once it is ready
    return Member(number, home, segment, nothing, nothing)


def partner_of(member: Member, all_: Sequence[Member]) -> Member:
    """Whose workload may call `/partner` of a node: the next one's."""
    return all_[(member.number + 1) % len(all_)]


def _set_up(member: Member, all_: Sequence[Member]) -> None:
    client = member.place.client
    for name in ("private", "partner"):
        apply(client, _MANIFEST.format(name=name))
    partner = partner_of(member, all_)
    policy = _POLICY.format(own=member.domain, partner=partner.domain)
    client.put("/v1/policies/default.cedar", {"text": policy})
    for other in all_:
        wish = {"certificates": other.forger.pem, "trustDomain": other.domain}
        client.put(f"/v1/authorities/{other.name}", wish)
        if other is not member:
            document = other.place.client.get_bytes("/v1/bundle").decode()
            client.put(f"/v1/bundles/{other.domain}", {"document": document})


def _stolen(home: Home, folder: Path, domain: str) -> Forger:
    """The CA of a node, with all that lies in its home."""
    key = load_p256(home.ca_key, Seal.load(home.seal_key))
    certificate = x509.load_pem_x509_certificate(home.ca_certificate.read_bytes())
    return Forger(folder, domain, key, Authority(key, certificate).certificate)


# --- controls ------------------------------------------------------------------------------------------------------


def rightful(all_: Sequence[Member], blast: Blast) -> None:
    """Who may, does: else a network that carries nothing would pass."""
    for member in all_:
        partner = partner_of(member, all_)
        answer = member.call(member, "/private", [bearer(_token(member))])
        _served(blast, f"{member.name}'s owner at its private resource", answer)
        answer = member.call(member, "/private", credential=member.shop())
        _served(blast, f"{member.name}'s workload at its private resource", answer)
        answer = partner.call(member, "/partner", credential=partner.shop())
        _served(blast, f"{partner.name}'s workload at {member.name}'s partner resource", answer)


def _served(blast: Blast, what: str, answer: Answer) -> None:
    blast.control(what, answer.status == 200, answer)


def _token(member: Member) -> str:
    wish = {"subject": "owner", "ttlSeconds": 600}
    return str(member.place.client.post("/v1/tokens", wish)["token"])


# --- attacks -------------------------------------------------------------------------------------------------------


def attack_all(all_: Sequence[Member], blast: Blast) -> None:
    """Each node in turn is the attacker's, and all others are its aims."""
    for source in all_:
        for destination in all_:
            if source is not destination:
                _resources(source, destination, all_, blast)
                _ports(source, destination, blast)
                _carried(source, destination, all_, blast)


def _resources(source: Member, destination: Member, all_: Sequence[Member], blast: Blast) -> None:
    """Requests, with every proof that can be made of the attacker's state."""
    partner = partner_of(destination, all_)
    # What the attacked node gives the attacker's own workload is no prize.
    targets = ["/private"] if partner is source else ["/private", "/partner"]
    for what, headers, credential in _proofs(source, destination, partner):
        for target in targets:
            answer = source.call(destination, target, headers, credential)
            blast.attempt(source, destination, f"{target} {what}", answer.status == 200, answer)


Proof = tuple[str, list[Header], Credential | None]


def _proofs(source: Member, destination: Member, partner: Member) -> Iterator[Proof]:
    forge = source.forger
    own = f"spiffe://{destination.domain}"
    yield "without proof", [], None
    yield "with its own token", [bearer(_token(source))], None
    for what, token in _tokens(source, destination).items():
        yield what, [bearer(token)], None
    yield "with its listener's certificate", [], _server(source)
    yield "with its CA's certificate", [], forge.own()
    yield "with its own workload's SVID", [], source.shop()
    yield (
        "with its SVID and forged headers",
        [("x-vedette-principal", f"{own}/shop")],
        source.shop(),
    )
    for uri in (f"{own}/shop", f"{own}/gateway", f"spiffe://{partner.domain}/shop"):
        if partner is source and uri.startswith(f"spiffe://{source.domain}/"):
            continue
        yield f"with an SVID forged as {uri}", [], forge.issue(Leaf((uri,)))
    both = (f"spiffe://{source.domain}/shop", f"{own}/shop")
    yield "with an SVID of two names", [], forge.issue(Leaf(both))


def _tokens(source: Member, destination: Member) -> dict[str, str]:
    """Tokens that say they are the other node's, under every key that the attacker has."""
    right = _token(destination)
    good, kid = forgery.claims_of(right), forgery.header_of(right)["kid"]
    keys = _keys(source.home)
    found = {
        f"with a token forged with its {name}": forgery.token(good, key, kid)
        for name, key in keys.items()
    }
    found["with a token without a signature"] = forgery.unsigned(good, kid)
    mine = {**good, "iss": f"spiffe://{source.domain}"}
    own_kid = forgery.header_of(_token(source))["kid"]
    found["with its own token for the other's audience"] = forgery.token(
        mine, keys["token.key"], own_kid
    )
    return found


def _keys(home: Home) -> dict[str, ec.EllipticCurvePrivateKey]:
    seal = Seal.load(home.seal_key)
    sealed = {path.name: load_p256(path, seal) for path in (home.ca_key, home.jwt_svid_key)}
    return {**sealed, "token.key": load_p256(home.token_key)}


def _server(source: Member) -> Credential:
    """The certificate of the listener, shown as a caller's."""
    file = source.forger.own().file.with_name(f"{source.name}-server.pem")
    file.touch(0o600)
    chain = source.home.tls_certificate.read_bytes()
    file.write_bytes(source.home.tls_key.read_bytes() + chain)
    certificate = x509.load_pem_x509_certificate(chain)
    return Credential(file, f"{certificate.serial_number:x}", certificate)


def _ports(source: Member, destination: Member, blast: Blast) -> None:
    """Every port but the listener: admin API, Workload API and metrics are not on the network."""
    metrics = destination.place.metrics
    ports = [*_PORTS, *([metrics[1]] if metrics else [])]
    address = destination.segment.address
    open_ = source.segment.run(lambda: [port for port in ports if _is_open(address, port)])
    blast.attempt(source, destination, f"{len(ports)} other ports", bool(open_), f"open: {open_}")
    found = source.segment.run(lambda: _is_open(address, PORT))
    blast.control(f"{source.name}'s way to {destination.name}'s listener", found, PORT)


def _is_open(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=_CONNECT).close()
    except OSError:
        return False
    return True


def _carried(source: Member, destination: Member, all_: Sequence[Member], blast: Blast) -> None:
    """What the attacker signs reaches the other node on a disk: it counts for nothing but the attacker's domain."""
    what = "its signed snapshot, put into the other's folder"
    refused = _refusal(lambda: _serve_foreign(source, destination))
    blast.attempt(source, destination, what, refused != "engine_refused", refused or "served")
    third = partner_of(destination, all_)
    victim = third if third is not source else partner_of(third, all_)
    document = json.dumps(source.forger.bundle(1 << 40))
    for domain in {victim.domain, destination.domain} - {source.domain}:
        path = f"/v1/bundles/{domain}"
        put = partial(destination.place.client.put, path, {"document": document})
        refused = _refusal(put)
        told = f"its keys as the bundle of {domain}"
        blast.attempt(source, destination, told, not refused, refused or "taken")
    _jwt_svid(source, destination, blast)


def _jwt_svid(source: Member, destination: Member, blast: Blast) -> None:
    """A JWT-SVID of the attacker's key for the other's workload, where the attacker's domain is federated."""
    client = destination.place.client
    selectors = [f"unix:uid:{os.getuid()}"]
    wish = {"path": "/judge", "selectors": selectors, "federatesWith": [source.domain]}
    client.put("/v1/workloads/judge", wish)
    try:
        key = _keys(source.home)["jwt-svid.key"]
        document = json.loads(source.place.client.get_bytes("/v1/bundle"))
        (kid,) = (one["kid"] for one in document["keys"] if one["use"] == "jwt-svid")
        for domain, is_attack in ((destination.domain, True), (source.domain, False)):
            claims = forgery.claims(f"spiffe://{domain}/shop", "", _AUDIENCE)
            token = forgery.token(claims, key, kid)
            proved, told = validated(destination.home.workload_socket, _AUDIENCE, token)
            if is_attack:
                what = f"a JWT-SVID forged as spiffe://{domain}/shop"
                blast.attempt(source, destination, what, bool(proved), told or proved)
            else:
                what = f"{source.name}'s JWT-SVID of its own workload at {destination.name}"
                blast.control(what, proved == f"spiffe://{domain}/shop", told or proved)
    finally:
        client.delete("/v1/workloads/judge")


def _serve_foreign(source: Member, destination: Member) -> None:
    envelope = active_envelope(source.place)
    digest = source.place.client.get("/v1/status")["snapshot"]["digest"]
    file = destination.home.snapshots / f"{digest.removeprefix('sha256:')}.json"
    file.write_text(json.dumps(envelope), "utf-8")
    try:
        EngineClient(destination.home.engine_socket).apply(digest, 1 << 20)
    finally:
        file.unlink()


def _refusal(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except VedetteError as error:
        return error.code
    return ""


# --- the process ---------------------------------------------------------------------------------------------------


def run(folder: Path, count: int) -> dict[str, Any]:
    """The report of `count` nodes, in namespaces of this process. Raises `VedetteError` where there can be none."""
    namespaces.isolate()
    try:
        namespaces.make_bridge()
    except Exception as error:  # netlink has errors of its own
        message = f"no bridge can be had: {error}"
        raise UnavailableError("namespace_refused", message) from error
    blast = Blast()
    with members(folder, count) as all_:
        rightful(all_, blast)
        attack_all(all_, blast)
        rightful(all_, blast)
    return blast.as_dict(count)


def main() -> int:
    """Runs it in this process and prints the report, or the error, as a line of JSON."""
    signal.signal(signal.SIGTERM, _interrupted)
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG
    try:
        told = run(Path(sys.argv[1]), int(sys.argv[2]))
    except VedetteError as error:
        told = {"error": error.to_dict()}
    except KeyboardInterrupt:
        return 130
    print(json.dumps(told), flush=True)
    return 0


def _interrupted(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
