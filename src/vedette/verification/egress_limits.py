"""Check 19: a rate and a breaker of a destination trip at their number, for whom they are, and for nobody else.

Owns: two functions with one destination each way. Must not: wait for a limit to be over; it would prove nothing more.
"""

from __future__ import annotations

from typing import Final

from vedette.verification.checks import Check, Pillar, Tenet, Trial
from vedette.verification.twin import Twin, apply, deploy

_CALLS: Final = 3
_FAILURES: Final = 3
_POLICIES: Final = """\
apiVersion: vedette.dev/v1alpha1
kind: EgressPolicy
metadata: {{name: limited}}
spec:
  functions: [limited]
  allow:
    - {{to: "http://127.0.0.1:{rated}", rate: {calls}/h, burst: {calls}}}
    - {{to: "http://127.0.0.1:{failing}", breaker: {{consecutiveFailures: {failures}, pause: 1h}}}}
    - {{to: "http://127.0.0.1:{other}"}}
---
apiVersion: vedette.dev/v1alpha1
kind: EgressPolicy
metadata: {{name: neighbour}}
spec:
  functions: [neighbour]
  allow:
    - {{to: "http://127.0.0.1:{rated}"}}
    - {{to: "http://127.0.0.1:{failing}"}}
"""


def limits(twin: Twin, trial: Trial) -> None:
    """The call beyond a rate, and the one after too many failures, are not made; other functions and places go on."""
    rated, failing, other = (twin.service.reserve() for _ in range(3))
    ports = {
        name: int(one.getsockname()[1])
        for name, one in (("rated", rated), ("failing", failing), ("other", other))
    }
    for name in ("limited", "neighbour"):
        deploy(twin.client, name, [])
    apply(twin.client, _POLICIES.format(**ports, calls=_CALLS, failures=_FAILURES))
    for one in (rated, other):
        twin.service.answer_at(one)
    _rate(twin, trial, ports["rated"])
    for _ in range(_FAILURES):
        status, record = _call(twin, "limited", ports["failing"])
        failed = (status, record.get("cause")) == (403, "connect_failed")
        trial.control("failing where nobody answers", failed, record)
    # It would answer now: who is not called is not called because of the breaker.
    twin.service.answer_at(failing)
    _breaker(twin, trial, ports["failing"])
    status, record = _call(twin, "limited", ports["other"])
    trial.control("another destination of the same function", status == 200, record)


def _rate(twin: Twin, trial: Trial, port: int) -> None:
    for number in range(_CALLS):
        status, record = _call(twin, "limited", port)
        trial.control(f"call {number + 1} of {_CALLS}", status == 200, record)
    _not_made(twin, trial, "a call beyond the rate", port, ("refused", "rate_limited"))
    for _ in range(_CALLS + 1):
        status, record = _call(twin, "neighbour", port)
        trial.control("another function beyond that number", status == 200, record)


def _breaker(twin: Twin, trial: Trial, port: int) -> None:
    what = "a call of what failed too often"
    _not_made(twin, trial, what, port, ("failed", "circuit_open"))
    status, record = _call(twin, "neighbour", port)
    trial.control("another function at the same destination", status == 200, record)


def _not_made(twin: Twin, trial: Trial, what: str, port: int, expected: tuple[str, str]) -> None:
    reached = len(twin.service.arrived)
    status, record = _call(twin, "limited", port)
    arrived = len(twin.service.arrived) - reached
    trial.attack(what, status == 403 and not arrived, f"answered {status}, {arrived} arrived")
    trial.record(what, (record.get("outcome"), record.get("cause")) == expected, record)


def _call(twin: Twin, function: str, port: int) -> tuple[int, dict[str, object]]:
    """What the function says of a call to a port of the service, and the record of the call."""
    answer = twin.ask(f"/{function}?h127.0.0.1:{port}", "alice")
    return answer.status, twin.records.of(answer.request_id, "egress")


CHECKS: Final = (
    Check(
        19,
        "egress limits and breakers trip, and others go on",
        (Tenet.COLLECTED,),
        (Pillar.NETWORKS,),
        "Take hosts out of EgressPolicies whose limits you rely on, and install the node again.",
        on_twin=limits,
    ),
)
