"""Checks 1 to 5: what listens, and that nothing is said to anybody who has not proved who they are.

Owns: attacks on sockets, TLS and client certificates. Must not: change the node.
"""

from __future__ import annotations

import ipaddress
import ssl
import warnings
from typing import Final

from cryptography import x509

from vedette.verification import first_flight
from vedette.verification.checks import Check, Pillar, Tenet, Trial, attempting
from vedette.verification.forgery import Credential, Forger, Leaf
from vedette.verification.listening import tcp_listeners, unix_listeners
from vedette.verification.place import Place, reached
from vedette.verification.twin import MESH, Twin
from vedette.verification.web import Answer, Listener, ask, connected, say_plainly, tls

_PLAIN: Final = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
_H2C: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_OLD: Final = (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2)
_MOST_ROUTES: Final = 50
_NOWHERE: Final = "/.vedette-verify/nothing"
_SHOP: Final = f"spiffe://{MESH}/shop"


# --- 1 -------------------------------------------------------------------------------------------------------------


def inventory(place: Place, trial: Trial) -> None:
    """Every socket that the node's processes listen on is one that it says it has, and shows the node's SPIFFE ID."""
    pids = place.pids().values()
    declared = {address for _, address in place.listeners}
    declared |= {place.metrics} if place.metrics else set()
    found = {reached(f"{host}:{port}") for host, port in tcp_listeners(pids)}
    unknown = sorted(f"{host}:{port}" for host, port in found - declared)
    trial.attack("a TCP listener that the node does not name", not unknown, ", ".join(unknown))
    home = place.home
    sockets = {str(home.admin_socket), str(home.engine_socket), str(home.workload_socket)}
    strange = sorted(unix_listeners(pids) - sockets)
    trial.attack("a Unix socket that the node does not name", not strange, ", ".join(strange))
    missing = sorted(f"{host}:{port}" for host, port in declared - found)
    trial.control("finding the listeners that it names", not missing, ", ".join(missing))
    named = _shown_id(place)
    trial.control("the listener's SPIFFE ID", named == f"{place.issuer}/gateway", named)
    unnamed = [one["name"] for one in place.status["functions"] if not one["route"]]
    trial.attack("a function without a route of its own", not unnamed, ", ".join(unnamed))
    trial.note(
        f"{len(found)} TCP and {len(sockets)} Unix listeners, {len(place.status['functions'])} functions"
    )


def _shown_id(place: Place) -> str:
    with connected(place.tls, tls(place.tls)) as secured:
        der = secured.getpeercert(binary_form=True) or b""
    names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    return ", ".join(names.value.get_values_for_type(x509.UniformResourceIdentifier))


# --- 2 -------------------------------------------------------------------------------------------------------------


def plaintext(place: Place, trial: Trial) -> None:
    """Bytes in clear are refused at every public port, and recorded; the metrics are for this machine only."""
    records = place.records()
    for scheme, address in place.listeners:
        shown = f"{address[0]}:{address[1]}"
        if scheme != "https":
            trial.attack(f"plain HTTP at {shown}", False, "this listener has no TLS")
            continue
        for what, text in (("HTTP/1.1", _PLAIN), ("HTTP/2", _H2C)):
            said = say_plainly(address, text)
            refused = not said or said.startswith(b"HTTP/1.1 400 ")
            trial.attack(f"{what} in clear at {shown}", refused, said[:80])
        found = records.find(lambda line: line.get("cause") == "plain_http")
        trial.record(f"plain HTTP at {shown}", found is not None)
        listener = Listener(*address, place.home.ca_certificate)
        said_over_tls = _handshake(listener, tls(listener))
        trial.control(f"TLS at {shown}", said_over_tls.startswith("TLSv1"), said_over_tls)
    if place.metrics:
        host = ipaddress.ip_address(place.metrics[0])
        trial.attack("metrics from another machine", host.is_loopback, host)


# --- 3 -------------------------------------------------------------------------------------------------------------


def old_tls(place: Place, trial: Trial) -> None:
    """Only TLS 1.3 is spoken."""
    for version in _OLD:
        context = _context_of(place, version)
        said = _handshake(place.tls, context)
        trial.attack(
            f"TLS {version.name[3:].replace('_', '.').lstrip('v')}",
            said.startswith("refused"),
            said,
        )
    said = _handshake(place.tls, _context_of(place, ssl.TLSVersion.TLSv1_3))
    trial.control("TLS 1.3", said == "TLSv1.3", said)


def _context_of(place: Place, version: ssl.TLSVersion) -> ssl.SSLContext:
    context = tls(place.tls)
    with warnings.catch_warnings():  # that old versions are old is what this is about
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    if version is not ssl.TLSVersion.TLSv1_3:
        context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def _handshake(listener: Listener, context: ssl.SSLContext) -> str:
    try:
        with connected(listener, context) as secured:
            return secured.version() or "nothing"
    except OSError as error:
        return f"refused: {error}"


def wrong_certificates(twin: Twin, trial: Trial) -> None:
    """A client certificate that is not quite right ends the handshake, with a record that says why."""
    for what, credential in _wrong(twin).items():
        with attempting(trial, what):
            known = twin.handshakes()
            answer = twin.ask("/orders", credential=credential.file)
            trial.attack(what, answer.status in (0, 401), answer)
            if answer.status == 0:
                record = twin.handshake_record(known)
                cause = str(record.get("cause", ""))
                trial.record(what, cause.startswith("certificate_"), cause)
    answer = twin.ask("/orders")
    trial.attack("no certificate", answer.status == 401, answer)
    credential = twin.mesh.issue(Leaf((_SHOP,)))
    answer = twin.ask("/orders", credential=credential.file)
    trial.control("a right certificate", answer.status == 200, answer)
    principal = twin.record(answer).get("principal")
    trial.record("a right certificate", principal == _SHOP, principal)


def _wrong(twin: Twin) -> dict[str, Credential]:
    mesh, stranger = twin.mesh, Forger(twin.folder, MESH)
    other = "spiffe://elsewhere.invalid/shop"
    return {
        "a certificate of another CA with the same name": stranger.issue(Leaf((_SHOP,))),
        "a self-signed certificate": mesh.self_signed(_SHOP),
        "a certificate for another trust domain": mesh.issue(Leaf((other,))),
        "an expired certificate": mesh.issue(Leaf((_SHOP,), start=-7200.0, end=-3600.0)),
        "a certificate not valid yet": mesh.issue(Leaf((_SHOP,), start=3600.0, end=7200.0)),
        "a CA's certificate as a caller's": mesh.issue(Leaf((_SHOP,), is_ca=True)),
        "the CA's own certificate": mesh.own(),
        "a certificate with two URI names": mesh.issue(Leaf((_SHOP, other))),
        "a certificate without a path": mesh.issue(Leaf((f"spiffe://{MESH}",))),
        "a certificate without a name": mesh.issue(Leaf(())),
        "a server's certificate as a caller's": mesh.issue(Leaf((_SHOP,), is_server_only=True)),
    }


# --- 4 -------------------------------------------------------------------------------------------------------------


def post_quantum(place: Place, trial: Trial) -> None:
    """A client that offers the hybrid key exchange first, or alone, gets it."""
    hybrid = first_flight.X25519MLKEM768
    for offered in ([hybrid, first_flight.X25519], [hybrid]):
        try:
            group = first_flight.chosen_group(place.tls.address, offered)
        except (OSError, ValueError) as error:
            trial.attack("a refusal of the hybrid key exchange", False, error)
            continue
        told = f"group {group:#06x} was chosen"
        trial.attack("a downgrade to a classic key exchange", group == hybrid, told)
    group = first_flight.chosen_group(place.tls.address, [first_flight.X25519])
    trial.control("a client that has X25519 only", group == first_flight.X25519, hex(group))
    trial.note("X25519MLKEM768; no setting refuses classic clients yet")


# --- 5 -------------------------------------------------------------------------------------------------------------


def loopback(twin: Twin, trial: Trial) -> None:
    """Coming from this machine proves nothing, nor does a header that says so."""
    for what, headers in (
        ("a call from loopback", []),
        ("a call that says it is forwarded from loopback", [("x-forwarded-for", "127.0.0.1")]),
        ("a call with Forwarded", [("forwarded", "for=127.0.0.1;by=127.0.0.1")]),
        ("a call with x-real-ip", [("x-real-ip", "127.0.0.1")]),
    ):
        answer = twin.ask("/orders", headers=headers)
        trial.attack(what, answer.status == 401, answer)
        _recorded(twin, trial, what, answer, "credentials_required")
    answer = twin.ask("/orders", "alice")
    trial.control("a call with a token", answer.status == 200, answer)


def closed_routes(place: Place, trial: Trial) -> None:
    """What policy says is closed to nobody-in-particular is closed to a caller on this machine."""
    routes = [one for one in place.client.get("/v1/routes") if not one["hosts"]]
    paths = [one["path"]["value"] for one in routes if one["method"] in (None, "GET")]
    asked = [{"path": path} for path in (*paths[:_MOST_ROUTES], _NOWHERE)]
    told = place.client.post("/v1/explain", {"requests": asked})["answers"]
    trial.control("asking what policy says", len(told) == len(asked), len(told))
    paths = [one["path"] for one in asked]
    closed = [path for path, one in zip(paths, told, strict=True) if not one["allowed"]]
    for path in closed:
        answer = ask(place.tls, path)
        trial.attack(f"an anonymous call of {path}", answer.status in (401, 403, 404), answer)
    trial.nothing_here(f"{len(closed)} closed paths of the node tried")


def _recorded(twin: Twin, trial: Trial, what: str, answer: Answer, cause: str) -> None:
    found = twin.record(answer).get("cause")
    trial.record(what, found == cause, found)


CHECKS: Final = (
    Check(
        1,
        "every listener is known and has an identity",
        (Tenet.RESOURCES,),
        (Pillar.APPLICATIONS, Pillar.VISIBILITY),
        "Find out which process opened the socket (ss -lptn) and stop it; `vedette status` lists what belongs there.",
        on_node=inventory,
    ),
    Check(
        2,
        "plaintext is refused at every port",
        (Tenet.SECURED,),
        (Pillar.NETWORKS,),
        "Leave http:// out of `vedette up --listen`, and keep the metrics on loopback.",
        on_node=plaintext,
    ),
    Check(
        3,
        "old TLS and wrong certificates are refused",
        (Tenet.SECURED, Tenet.ENFORCED),
        (Pillar.NETWORKS, Pillar.IDENTITY),
        "Start the node with --tls-min-version 1.3; see `vedette authority list` for authorities that are too wide.",
        on_node=old_tls,
        on_twin=wrong_certificates,
    ),
    Check(
        4,
        "the key exchange is post-quantum",
        (Tenet.SECURED,),
        (Pillar.NETWORKS, Pillar.DATA),
        "Something else answers at the node's address, or the engine is older than its package: `vedette upgrade`.",
        on_node=post_quantum,
    ),
    Check(
        5,
        "loopback is not trusted",
        (Tenet.SECURED, Tenet.ENFORCED),
        (Pillar.NETWORKS, Pillar.IDENTITY),
        "Look for a policy that permits anonymous callers: `vedette policy explain --anonymous --path PATH`.",
        on_node=closed_routes,
        on_twin=loopback,
    ),
)
