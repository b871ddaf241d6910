"""Checks 15 to 17: what was permitted for a while, or on what is known, is over by itself; and so is the last policy
when control is away.

Owns: grants, facts and `policyHolds` of the twin, short enough to be waited for. Must not: end anything itself that
has to end without being told.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from vedette.verification.checks import Check, Pillar, Tenet, Trial
from vedette.verification.leases import Live, all_end, require_live, streams
from vedette.verification.twin import Twin, apply
from vedette.verification.web import bearer

_LASTS: Final = 6
"""Seconds of a grant or a fact that ends by itself: enough to open three streams on a machine that is busy."""
_HOLDS: Final = 4
"""Seconds of `policyHolds`: control looks each second, and may be late on a machine that is busy."""
_EARLY: Final = 1.5
"""Seconds that something may end before its time: moments are whole seconds."""
_BACK: Final = 20.0
_FACT: Final = "disk-encrypted"
_NODE: Final = """\
apiVersion: vedette.dev/v1alpha1
kind: Node
metadata: {{name: node}}
spec: {{policyHolds: {holds}}}
"""


def _ask(twin: Twin, subject: str) -> int:
    return twin.ask("/live/once", subject).status


def _refused(twin: Twin, trial: Trial, what: str, subject: str) -> None:
    """A request of somebody whom no policy permits it now, with its record."""
    answer = twin.ask("/live/once", subject)
    if trial.attack(what, answer.status == 403, answer):
        cause = twin.record(answer).get("cause")
        trial.record(what, cause == "policy_denied", cause)


def _end_in_time(twin: Twin, trial: Trial, those: dict[str, Live], due: float) -> None:
    """Each goes on until its time, and no longer."""
    slowest = all_end(twin, trial, those, due, "policy_denied")
    trial.control("going on until its time", slowest > -_EARLY, f"{-slowest:.1f} s early")
    trial.note(f"the slowest ended {slowest:.1f} s after its time")


# --- 15 ------------------------------------------------------------------------------------------------------------


def granted(twin: Twin, trial: Trial) -> None:
    """A grant permits its principal until its time; then nothing new begins and nothing goes on."""
    _refused(twin, trial, "a call before the grant", "guest")
    wish = {"principal": "guest", "target": "route/live", "methods": ["GET"], "name": "verify"}
    due = time.monotonic() + _LASTS
    twin.client.post("/v1/grants", {**wish, "seconds": _LASTS})
    try:
        with ExitStack() as opened:
            ending = streams(twin, opened, [bearer(twin.token("guest"))])
            staying = streams(twin, opened, [bearer(twin.token("alice"))])
            require_live(trial, ending)
            trial.control("a call while it is granted", _ask(twin, "guest") == 200)
            _refused(twin, trial, "a call of somebody else while it is granted", "carol")
            answer = twin.ask("/live/once", "guest", method="POST")
            trial.attack("another method than the granted", answer.status == 403, answer)
            _end_in_time(twin, trial, ending, due)
            require_live(trial, staying)
        _refused(twin, trial, "a call after the grant", "guest")
    finally:
        with suppress(Exception):
            twin.client.delete("/v1/grants/verify")


# --- 16 ------------------------------------------------------------------------------------------------------------


def postures(twin: Twin, trial: Trial) -> None:
    """What rests on a fact ends when the fact is not so any more, and when nobody says it again."""
    for subject in ("daisy", "erin"):
        _refused(twin, trial, f"a call of {subject} of whom nothing is known", subject)
    try:
        _say(twin, "erin", 600)
        due = time.monotonic() + _LASTS
        _say(twin, "daisy", _LASTS)
        with ExitStack() as opened:
            stale = streams(twin, opened, [bearer(twin.token("daisy"))])
            false = streams(twin, opened, [bearer(twin.token("erin"))])
            staying = streams(twin, opened, [bearer(twin.token("alice"))])
            require_live(trial, stale)
            require_live(trial, false)
            _say(twin, "erin", 600, fact="patched")
            require_live(trial, false)
            began = time.monotonic()
            _say(twin, "erin", 600, value=False)
            took = all_end(twin, trial, false, began, "policy_denied")
            trial.note(f"a fact that is false ended it after {took * 1000:.0f} ms")
            _refused(twin, trial, "a call with a fact that is false", "erin")
            _end_in_time(twin, trial, stale, due)
            require_live(trial, staying)
        _refused(twin, trial, "a call with a fact that is stale", "daisy")
    finally:
        for subject in ("daisy", "erin"):
            with suppress(Exception):
                twin.client.post("/v1/posture/removed", {"subject": subject})


def _say(twin: Twin, subject: str, seconds: int, *, fact: str = _FACT, value: bool = True) -> None:
    wish = {"subject": subject, "fact": fact, "value": value, "seconds": seconds}
    twin.client.put("/v1/posture", wish)


# --- 17 ------------------------------------------------------------------------------------------------------------


def control_away(twin: Twin, trial: Trial) -> None:
    """Without control the engine decides as before for a time, then it refuses everything but fixed answers."""
    alice, carol = twin.token("alice"), twin.token("carol")
    with _holding(twin, f"{_HOLDS}s"), ExitStack() as opened:
        ending = streams(twin, opened, [bearer(alice)])
        require_live(trial, ending)
        with _stopped(twin):
            due = time.monotonic() + _HOLDS
            for what, headers, status in (
                ("a call that policies forbid", [bearer(carol)], 403),
                ("a call without proof", [], 401),
                ("a call with a broken token", [bearer(alice[:-2])], 401),
            ):
                answer = twin.ask("/orders", headers=headers)
                trial.attack(f"{what} while control is away", answer.status == status, answer)
            answer = twin.ask("/orders", headers=[bearer(alice)])
            trial.control("a permitted call while control is away", answer.status == 200, answer)
            slowest = all_end(twin, trial, ending, due, "control_away")
            _closed(twin, trial, alice)
            answer = twin.ask("/fixed")
            trial.control("a fixed answer without control", answer.status == 200, answer)
        trial.control("a permitted call when control is back", _is_back(twin, alice))
    trial.note(f"policyHolds {_HOLDS} s: the slowest stream ended {slowest:.1f} s after it")


def _closed(twin: Twin, trial: Trial, token: str) -> None:
    answer = twin.ask("/orders", headers=[bearer(token)])
    what = "a permitted call when the last policy holds no more"
    if trial.attack(what, answer.status == 503, answer):
        cause = twin.record(answer).get("cause")
        trial.record(what, cause == "control_away", cause)


def _is_back(twin: Twin, token: str) -> bool:
    deadline = time.monotonic() + _BACK
    while twin.ask("/orders", headers=[bearer(token)]).status != 200:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@contextmanager
def _holding(twin: Twin, time_text: str) -> Iterator[None]:
    """The last policy holds for so long."""
    apply(twin.client, _NODE.format(holds=time_text))
    try:
        yield
    finally:
        apply(twin.client, _NODE.format(holds="24h"))


@contextmanager
def _stopped(twin: Twin) -> Iterator[None]:
    """Control stands still."""
    pid = twin.place.pids()["control"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


CHECKS: Final = (
    Check(
        15,
        "a time-boxed grant ends by itself",
        (Tenet.DYNAMIC,),
        (Pillar.IDENTITY, Pillar.APPLICATIONS),
        "Check the machine's clock; end grants yourself (`vedette grant --end`) until the node is installed again.",
        on_twin=granted,
    ),
    Check(
        16,
        "a posture fact that goes stale closes what it opened",
        (Tenet.DYNAMIC, Tenet.INTEGRITY),
        (Pillar.DEVICES,),
        "Check the machine's clock; do not permit by `context.posture` until the node is installed again.",
        on_twin=postures,
    ),
    Check(
        17,
        "without control the last policy holds, then closes",
        (Tenet.ENFORCED,),
        (Pillar.NETWORKS, Pillar.APPLICATIONS),
        "Keep control running (`vedette status`), and install the node again from a source that you trust.",
        on_twin=control_away,
    ),
)
