"""Check 18: a function or a program reaches what is on its list, and nothing else, whatever it asks for.

Owns: the calls that the probe is told to make. Must not: send anything to another machine.
"""

from __future__ import annotations

from typing import Final

from vedette.verification import boxes
from vedette.verification.checks import Check, Pillar, Tenet, Trial
from vedette.verification.records import Line
from vedette.verification.twin import Twin, apply

_REFUSED: Final = ("destination_not_allowed", "address_not_allowed", "method_not_allowed")
_ROUTED: Final = """\
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: aside}}
spec:
  rules:
    - matches: [{{path: {{value: /aside}}}}]
      backendRefs: [{{kind: Function, group: vedette.dev, name: probe}}]
---
apiVersion: vedette.dev/v1alpha1
kind: EgressPolicy
metadata: {{name: aside}}
spec: {{routes: [aside], allow: [{{to: "http://127.0.0.1:{port}"}}]}}
"""


def egress(twin: Twin, trial: Trial) -> None:
    """Each call is refused before a packet or a question to a name server leaves, and leaves a record."""
    listed, trap = twin.service.port, twin.service.trap_port
    for what, destination in (
        ("a host that is not listed", "hunlisted.invalid:80"),
        ("a raw address", "h192.0.2.1:80"),
        ("a raw address over TLS", "s192.0.2.1:443"),
        ("another port of a listed address", f"h127.0.0.1:{trap}"),
        ("TLS where plain HTTP is listed", f"s127.0.0.1:{listed}"),
        ("an address beside the listed one", f"h127.0.0.2:{listed}"),
        ("an IPv6 address", f"h[::1]:{listed}"),
        ("an IPv4 address in IPv6", f"h[::ffff:127.0.0.1]:{trap}"),
        ("metadata of a cloud in IPv6", "h[::ffff:169.254.169.254]:80"),
        ("an address written as a number", f"h2130706433:{listed}"),
        ("metadata of a cloud", "h169.254.169.254:80"),
        ("a private address", "h10.0.0.1:80"),
        ("a listed name that stands for this machine", f"hlocalhost:{trap}"),
        ("the node's own admin API", f"h{twin.place.tls.host}:{twin.place.tls.port}"),
        ("a tunnel to a listed host", f"c127.0.0.1:{listed}"),
        ("a user before the host", f"h127.0.0.1:{listed}@192.0.2.1:80"),
    ):
        _try(twin, trial, what, destination)
    reached = len(twin.service.arrived)
    answer = twin.ask(f"/probe?h127.0.0.1:{listed}", "alice")
    trial.control("a call to a listed host", answer.status == 200, answer)
    trial.control("its arrival", len(twin.service.arrived) == reached + 1)
    outcome = _call(twin, answer.request_id).get("outcome")
    trial.record("a call to a listed host", outcome == "served", outcome)
    trial.attack("following a redirect to what is not listed", twin.service.sprung == 0)
    trial.note("a function has no sockets: UDP, QUIC and its own DNS are not there to be called")
    _routes(twin, trial)
    boxes.programs(twin, trial)


def _routes(twin: Twin, trial: Trial) -> None:
    """One function, two routes: a policy is for one of them."""
    reserved = twin.service.reserve()
    twin.service.answer_at(reserved)
    port = int(reserved.getsockname()[1])
    apply(twin.client, _ROUTED.format(port=port))
    answer = twin.ask(f"/aside?h127.0.0.1:{port}", "alice")
    trial.control("a call on the route that a policy is for", answer.status == 200, answer)
    route = _call(twin, answer.request_id).get("route")
    trial.record("a call on the route that a policy is for", route == "aside", route)
    _try(twin, trial, "the same call on another route", f"h127.0.0.1:{port}")


def _try(twin: Twin, trial: Trial, what: str, destination: str) -> None:
    reached = len(twin.service.arrived)
    answer = twin.ask(f"/probe?{destination}", "alice")
    arrived = twin.service.arrived[reached:]
    held = answer.status in (400, 403) and not arrived and twin.service.sprung == 0
    trial.attack(what, held, f"{answer}, arrived {arrived}")
    record = _call(twin, answer.request_id) if answer.status == 403 else {}
    if answer.status == 403 and "@" not in destination and destination[0] != "c":
        trial.record(what, record.get("outcome") != "served" and "cause" in record, record)


def _call(twin: Twin, request_id: str | None) -> Line:
    return twin.records.of(request_id, "egress")


CHECKS: Final = (
    Check(
        18,
        "functions and programs reach what is listed, and nothing else",
        (Tenet.SECURED, Tenet.ENFORCED),
        (Pillar.NETWORKS, Pillar.APPLICATIONS),
        "Look at `allowedHosts` (`vedette list --json`) and EgressPolicies; else install the node again.",
        on_twin=egress,
    ),
)
