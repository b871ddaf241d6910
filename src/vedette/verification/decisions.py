"""Checks 9 to 11: nothing is allowed that no policy allows, however it is spelled and whoever says who is calling.

Owns: the matrix of callers and resources, spellings of a path, and forged identity headers. Must not: change a policy.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vedette.verification.checks import Check, Pillar, Tenet, Trial
from vedette.verification.forgery import Leaf
from vedette.verification.twin import MESH, Twin
from vedette.verification.web import Answer

_METHODS: Final = ("GET", "POST", "DELETE")
_TARGETS: Final = ("/orders", "/billing", "/probe?h127.0.0.1:1")
_PERMITTED: Final = {
    ("alice", "GET", "/orders"),
    ("bob", "POST", "/billing"),
    ("shop", "GET", "/orders"),
    *(("alice", method, "/probe?h127.0.0.1:1") for method in _METHODS),
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who calls: with a token, with a certificate, or with nothing."""

    name: str
    subject: str | None = None
    credential: Path | None = None


def callers(twin: Twin) -> list[Caller]:
    """Those that policies of the twin know, and some they do not."""
    shop, other = (
        twin.mesh.issue(Leaf((f"spiffe://{MESH}/{name}",))) for name in ("shop", "other")
    )
    people = [Caller(name, name) for name in ("alice", "bob", "carol")]
    return [
        Caller("nobody"),
        *people,
        Caller("shop", credential=shop.file),
        Caller("other", credential=other.file),
    ]


def default_deny(twin: Twin, trial: Trial) -> None:
    """Every caller, resource and method that policies do not name together is refused, with a record of why."""
    for caller in callers(twin):
        for method in _METHODS:
            for target in _TARGETS:
                answer = twin.ask(
                    target, caller.subject, method=method, credential=caller.credential
                )
                what = f"{method} {target.partition('?')[0]} by {caller.name}"
                if (caller.name, method, target) in _PERMITTED:
                    _served(twin, trial, what, answer)
                else:
                    _denied(twin, trial, what, answer, anonymous=caller.name == "nobody")


def _served(twin: Twin, trial: Trial, what: str, answer: Answer) -> None:
    # The probe calls nobody here and says 403 of its own: what counts is that it was asked.
    outcome = twin.record(answer).get("outcome")
    trial.control(what, outcome == "served", f"{answer}, {outcome}")


def _denied(twin: Twin, trial: Trial, what: str, answer: Answer, *, anonymous: bool) -> None:
    record = twin.record(answer)
    cause = "credentials_required" if anonymous else "policy_denied"
    held = answer.status == (401 if anonymous else 403) and record.get("outcome") != "served"
    if trial.attack(what, held, answer):
        trial.record(what, record.get("cause") == cause, record.get("cause"))


# --- 10 ------------------------------------------------------------------------------------------------------------


def least_privilege(twin: Twin, trial: Trial) -> None:
    """Who may one thing may not the one beside it, however its path is spelled."""
    reached = len(twin.service.arrived)
    for target in (
        "/orders/yours",
        "/orders/mine/../yours",
        "/orders/mine/%2e%2e/yours",
        "/orders/mine/..%2Fyours",
        "/orders//yours",
        "/ORDERS/mine",
        "/orders/MINE",
        "/orders/mine%00/../yours",
        "/orders/mine\\..\\yours",
        "/orders%2Fmine",
        "/orders/./yours",
        "/billing/../orders/yours",
    ):
        answer = twin.ask(target, "alice")
        trial.attack(f"GET {target}", answer.status in (400, 403, 404), answer)
        cause = twin.record(answer).get("cause")
        trial.record(
            f"GET {target}", cause in ("policy_denied", "malformed_path", "not_found"), cause
        )
    for method in ("POST", "PUT", "PATCH", "DELETE", "HEAD", "TRACE", "CONNECT", "get"):
        answer = twin.ask("/orders/mine", "alice", method=method)
        trial.attack(f"{method} /orders/mine", answer.status in (0, 400, 403, 405), answer)
    _doubled(twin, trial)
    arrived = twin.service.arrived[reached:]
    trial.attack("a refused request at the service", not arrived, "; ".join(arrived))
    for target in ("/orders/mine", "/orders", "/orders/m%69ne", "/orders/yours/../mine"):
        answer = twin.ask(target, "alice")
        trial.control(f"GET {target}", answer.status == 200, answer)


def _doubled(twin: Twin, trial: Trial) -> None:
    """Two of a field of which there is one."""
    host = ("host", "other.invalid")
    for what, headers in (
        ("two hosts", [host]),
        ("two tokens", [("authorization", f"Bearer {twin.token('bob')}")]),
        ("two lengths", [("content-length", "0"), ("content-length", "5")]),
    ):
        answer = twin.ask("/orders/yours", "alice", headers=headers)
        trial.attack(what, answer.status in (400, 401, 403, 421), answer)


# --- 11 ------------------------------------------------------------------------------------------------------------

_FORGED: Final = "forged-by-the-caller"
_SPOOFED: Final = (
    "x-vedette-principal",
    "x-vedette-subject",
    "x-vedette-issuer",
    "x-vedette-spiffe-id",
    "x-vedette-scopes",
    "x-vedette-client-ip",
    "x-vedette-request-id",
    "x-vedette-certificate-subject",
    "x-vedette-anything",
    "X-Vedette-Principal",
    "x_vedette_principal",
    "x-vedette_subject",
    "x-edge-country",
    "x-edge-location",
    "x-forwarded-client-cert",
    "x-spiffe-id",
    "client-cert",
)
_HOPS: Final = ("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto")


def spoofed_headers(twin: Twin, trial: Trial) -> None:
    """What a service reads about the caller is what the node proved, never what the caller wrote."""
    sent = [(name, _FORGED) for name in (*_SPOOFED, *_HOPS)]
    answer = twin.ask("/orders", "alice", headers=sent)
    trial.control("a call with forged headers besides a token", answer.status == 200, answer)
    seen = json.loads(answer.body) if answer.status == 200 else {}
    for name in (*_SPOOFED, *_HOPS):
        got = seen.get(name.lower(), "")
        trial.attack(f"a forged {name}", _FORGED not in got, got)
    principal = seen.get("x-vedette-principal")
    trial.control(
        "the principal as it was proved", principal == f"{twin.place.issuer}#alice", principal
    )
    names = len({name.lower() for name in _SPOOFED})
    counted = twin.record(answer).get("spoofed", 0)
    trial.record("what was taken away", counted == names, counted)


CHECKS: Final = (
    Check(
        9,
        "what no policy permits is refused",
        (Tenet.PER_SESSION, Tenet.ENFORCED),
        (Pillar.APPLICATIONS, Pillar.DATA),
        "Do not use this installation: its engine allows what policies do not.",
        on_twin=default_deny,
    ),
    Check(
        10,
        "the path beside a permitted one is refused",
        (Tenet.PER_SESSION,),
        (Pillar.APPLICATIONS,),
        "Do not use this installation: its engine reads paths in another way than its policies.",
        on_twin=least_privilege,
    ),
    Check(
        11,
        "forged identity headers do not arrive",
        (Tenet.ENFORCED,),
        (Pillar.IDENTITY, Pillar.APPLICATIONS),
        "Do not let services behind this node trust its headers; install it again from a source that you trust.",
        on_twin=spoofed_headers,
    ),
)
