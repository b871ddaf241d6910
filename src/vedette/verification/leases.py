"""Checks 12 to 14: access ends when it should, also for what is under way.

Owns: live streams over HTTP/1.1, HTTP/2 and WebSocket, and how long each takes to end. Must not: leave one open.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from vedette.verification.checks import Check, Pillar, Tenet, Trial
from vedette.verification.forgery import Leaf, claims_of
from vedette.verification.twin import MESH, Twin
from vedette.verification.web import Header, Stream, Stream2, bearer, seconds_to_end

BOUND: Final = 2.0
"""Seconds from a change to the last byte of what it ends. The engine is told at once; most is this machine's noise."""
_LIFE: Final = 2  # seconds of a proof that is let expire
_SHOP: Final = f"spiffe://{MESH}/shop"
_THIEF: Final = f"spiffe://{MESH}/thief"
_FORBID: Final = """\
@id("not-mallory")
forbid (principal is Subject, action, resource) when { principal.subject == "mallory" };
"""
_UPGRADE: Final = (
    ("connection", "upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", base64.b64encode(bytes(range(16))).decode()),
)
Live = Stream | Stream2


def streams(
    twin: Twin, opened: ExitStack, proof: list[Header], credential: Path | None = None
) -> dict[str, Live]:
    """One live exchange of each kind for a caller, all under way."""
    listener = twin.place.tls
    found: dict[str, Live] = {
        "an event stream": Stream(listener, "/live/ticks", headers=proof, credential=credential),
        "an HTTP/2 stream": Stream2(listener, "/live/ticks", headers=proof, credential=credential),
        "a WebSocket": Stream(
            listener, "/live/socket", headers=[*proof, *_UPGRADE], credential=credential
        ),
    }
    for stream in found.values():
        opened.callback(stream.close)
    return found


def require_live(trial: Trial, those: dict[str, Live]) -> None:
    """A control: each of them goes on."""
    for what, stream in those.items():
        if what == "a WebSocket" and isinstance(stream, Stream):
            works = stream.status == 101 and stream.echoes(b"still here")
        else:
            works = stream.status == 200 and stream.goes_on()
        trial.control(what, works, f"status {stream.status}")


def all_end(twin: Twin, trial: Trial, those: dict[str, Live], since: float, cause: str) -> float:
    """Each ends within the bound and its record says why; the slowest, in seconds."""
    slowest = 0.0
    for what, stream in those.items():
        took = seconds_to_end(stream, since, BOUND)
        if trial.attack(f"going on with {what}", took is not None, f"for {BOUND} s"):
            slowest = max(slowest, took or 0.0)
            found = twin.records.of(stream.request_id).get("cause")
            trial.record(what, found == cause, found)
    return slowest


def _ends(twin: Twin, trial: Trial, change: Callable[[str], None], cause: str, status: int) -> None:
    """Mallory's exchanges end with `change`, alice's go on."""
    token = twin.token("mallory")
    with ExitStack() as opened:
        ending = streams(twin, opened, [bearer(token)])
        staying = streams(twin, opened, [bearer(twin.token("alice"))])
        require_live(trial, {**ending})
        began = time.monotonic()
        change(token)
        slowest = all_end(twin, trial, ending, began, cause)
        require_live(trial, staying)
    answer = twin.ask("/live/again", headers=[bearer(token)])
    trial.attack("a new request with the same token", answer.status == status, answer)
    trial.record("the new request", twin.record(answer).get("cause") == cause)
    trial.note(f"the slowest of three ended {slowest * 1000:.0f} ms after the change was asked for")


def revoked(twin: Twin, trial: Trial) -> None:
    """A revoked token ends what it began, at once, and begins nothing more."""

    def revoke(token: str) -> None:
        facts = claims_of(token)
        wish = {"jti": facts["jti"], "issuer": facts["iss"]}
        twin.client.post("/v1/tokens/revoked", wish)

    _ends(twin, trial, revoke, "token_revoked", 401)
    _revoked_certificate(twin, trial)
    _revoked_identity(twin, trial)


def _revoked_certificate(twin: Twin, trial: Trial) -> None:
    credential, other = (twin.mesh.issue(Leaf((_SHOP,))) for _ in range(2))
    with ExitStack() as opened:
        ending, staying = (
            Stream(twin.place.tls, "/live/ticks", credential=one.file)
            for one in (credential, other)
        )
        for stream in (ending, staying):
            opened.callback(stream.close)
        trial.control("a stream of a workload", ending.goes_on() and staying.goes_on())
        began = time.monotonic()
        twin.client.post("/v1/authorities/mesh/revoked", {"serial": credential.serial})
        all_end(twin, trial, {"a workload's stream": ending}, began, "certificate_revoked")
        trial.control("the stream of another workload", staying.goes_on())


def _revoked_identity(twin: Twin, trial: Trial) -> None:
    """A SPIFFE ID is revoked: every certificate that says it, those of later too, and no other ID."""
    thief, other = (twin.mesh.issue(Leaf((one,))) for one in (_THIEF, _SHOP))
    with ExitStack() as opened:
        ending = streams(twin, opened, [], thief.file)
        staying = streams(twin, opened, [], other.file)
        require_live(trial, ending)
        began = time.monotonic()
        try:
            twin.client.post("/v1/revocations", {"what": _THIEF, "reason": "verify"})
            slowest = all_end(twin, trial, ending, began, "identity_revoked")
            require_live(trial, staying)
            for what, credential in (
                ("a new connection of the ID", thief),
                ("a new certificate of the ID", twin.mesh.issue(Leaf((_THIEF,)))),
            ):
                answer = twin.ask("/live/again", credential=credential.file)
                trial.attack(what, answer.status == 401, answer)
                cause = twin.record(answer).get("cause")
                trial.record(what, cause == "identity_revoked", cause)
        finally:
            with suppress(Exception):
                twin.client.post("/v1/revocations/lifted", {"what": _THIEF})
    trial.note(f"the slowest of a SPIFFE ID ended after {slowest * 1000:.0f} ms")


def flipped(twin: Twin, trial: Trial) -> None:
    """A policy that forbids from now on ends what it would forbid."""
    try:
        _ends(
            twin,
            trial,
            lambda _token: twin.set_policy("not-mallory.cedar", _FORBID),
            "policy_denied",
            403,
        )
    finally:
        with suppress(Exception):
            twin.remove_policy("not-mallory.cedar")


def expired(twin: Twin, trial: Trial) -> None:
    """A connection does not outlive the proof that opened it: token or certificate."""
    credential = twin.mesh.issue(Leaf((_SHOP,), end=float(_LIFE)))
    token = twin.token("mallory", _LIFE)
    listener = twin.place.tls
    with ExitStack() as opened:
        svid = Stream(listener, "/live/ticks", credential=credential.file)
        bearing = Stream2(listener, "/live/ticks", headers=[bearer(token)])
        staying = Stream(listener, "/live/ticks", headers=[bearer(twin.token("alice"))])
        for stream in (svid, bearing, staying):
            opened.callback(stream.close)
        require_live(trial, {"a stream of a workload": svid, "a stream of a token": bearing})
        ends_at = credential.certificate.not_valid_after_utc.timestamp()
        took = all_end(twin, trial, {"an ended SVID": svid}, due(ends_at), "proof_expired")
        until = due(claims_of(token)["exp"] + _leeway(twin))
        all_end(twin, trial, {"an ended token": bearing}, until, "proof_expired")
        trial.control("a stream whose token goes on", staying.goes_on())
    answer = twin.ask("/live/again", credential=credential.file)
    trial.attack("a new connection with the ended SVID", answer.status in (0, 401), answer)
    trial.note(f"an SVID's stream ended {took:.1f} s after it")


def due(moment: float) -> float:
    """A time of the clock, as `time.monotonic` counts."""
    return time.monotonic() + moment - time.time()


def _leeway(twin: Twin) -> int:
    """How much later than it says a token of the twin ends, for clocks that differ."""
    (own,) = (one for one in twin.client.get("/v1/issuers") if one["issuer"] == twin.place.issuer)
    return int(own["leewaySeconds"])


CHECKS: Final = (
    Check(
        12,
        "revoking ends live streams, HTTP/2 and WebSockets",
        (Tenet.ENFORCED,),
        (Pillar.IDENTITY, Pillar.NETWORKS),
        "Restart the node to end what is under way, and install it again from a source that you trust.",
        on_twin=revoked,
    ),
    Check(
        13,
        "a policy that changes ends what it forbids",
        (Tenet.DYNAMIC, Tenet.ENFORCED),
        (Pillar.APPLICATIONS, Pillar.NETWORKS),
        "Restart the node to end what is under way, and install it again from a source that you trust.",
        on_twin=flipped,
    ),
    Check(
        14,
        "a connection ends with the proof that opened it",
        (Tenet.PER_SESSION,),
        (Pillar.IDENTITY, Pillar.NETWORKS),
        "Check the machine's clock; then install the node again from a source that you trust.",
        on_twin=expired,
    ),
)
