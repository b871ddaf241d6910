"""Runs the checks: those of the node here, those of the twin in a process of its own, in its own network namespace.

Owns: order, time and the verdict. Must not: leave a process or a file behind, however it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, Any, Final

from vedette import __version__, processes
from vedette.clock import now, to_rfc3339
from vedette.errors import UnavailableError, error_from_dict
from vedette.store.home import Home
from vedette.verification.catalogue import NOT_AVAILABLE, WAITING, in_order
from vedette.verification.checks import Check, Outcome, Pillar, Tenet, Trial, attempting
from vedette.verification.place import Place
from vedette.verification.twin import Twin, scratch_folder, undisturbed

PATIENCE: Final = 60.0
"""Seconds for everything; what is not done then has not passed."""
COMPROMISED_PATIENCE: Final = 120.0
_END_PATIENCE: Final = 20.0
_MAX_LINE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Result:
    """How one check ended. `available` is false when this version lacks the defence, or a part of it."""

    check: Check
    passed: bool
    available: bool
    evidence: str
    seconds: float


@dataclass(slots=True)
class Report:
    """All results of a run, and of what."""

    node: str
    snapshot: str | None
    started_at: str
    results: list[Result] = field(default_factory=list)
    seconds: float = 0.0
    isolated: bool = False

    @property
    def passed(self) -> bool:
        """Whether every check that was asked for has passed."""
        return bool(self.results) and all(result.passed for result in self.results)

    def as_dict(self) -> dict[str, Any]:
        """The report for programs (docs/verify.md)."""
        return {
            "version": __version__,
            "node": self.node,
            "snapshot": self.snapshot,
            "startedAt": self.started_at,
            "durationSeconds": round(self.seconds, 3),
            "ownNetwork": self.isolated,
            "passed": self.passed,
            "checks": [_result(one) for one in self.results],
            "tenets": self._grouped(Tenet, "tenets"),
            "pillars": self._grouped(Pillar, "pillars"),
        }

    def _grouped(self, kinds: type[Tenet] | type[Pillar], name: str) -> list[dict[str, Any]]:
        found = []
        for kind in kinds:
            those = [one for one in self.results if kind in getattr(one.check, name)]
            if those:
                passed = all(one.passed for one in those)
                ids = [one.check.id for one in those]
                found.append({"name": kind.value, "passed": passed, "checks": ids})
        return found


def _result(one: Result) -> dict[str, Any]:
    return {
        "id": one.check.id,
        "name": one.check.name,
        "passed": one.passed,
        "available": one.available,
        "evidence": one.evidence,
        "tenets": [tenet.value for tenet in one.check.tenets],
        "pillars": [pillar.value for pillar in one.check.pillars],
        "mend": None if one.passed else one.check.mend,
        "seconds": round(one.seconds, 3),
    }


Timed = tuple[Outcome, float]


def run_suite(
    home: Home, checks: Sequence[Check], say: Callable[[str], None] = lambda _text: None
) -> Report:
    """Attacks the node at `home`, and a twin. Raises `VedetteError` when the node cannot be asked."""
    began = time.monotonic()
    place = Place.of(home)
    snapshot = place.status["snapshot"]
    started = to_rfc3339(now())
    report = Report(place.trust_domain, snapshot["digest"] if snapshot else None, started)
    with contextlib.ExitStack() as opened:
        of_twin: dict[int, Timed] = {}
        twin = None
        if any(check.on_twin for check in checks):
            folder = opened.enter_context(scratch_folder())
            ids = ",".join(str(check.id) for check in checks if check.on_twin)
            twin = opened.enter_context(_process("process", str(folder), ids))
        say("Attacking the node")
        of_node = {check.id: on_node(place, check) for check in checks if check.on_node}
        if twin is not None:
            say("Attacking a twin of it")
            of_twin, report.isolated = _read_results(twin, began + PATIENCE)
    report.results = [
        merged(check, of_node.get(check.id), of_twin.get(check.id)) for check in checks
    ]
    report.seconds = time.monotonic() - began
    return report


def run_compromised(nodes: int, say: Callable[[str], None] = lambda _text: None) -> dict[str, Any]:
    """The report of nodes that are attacked from each other (`compromised`). Raises `VedetteError`."""
    began, started = time.monotonic(), to_rfc3339(now())
    say(f"Starting {nodes} nodes, each in a network namespace of its own")
    with scratch_folder() as folder, _process("compromised", str(folder), str(nodes)) as child:
        assert child.stdout is not None
        told = next(_lines_until(child.stdout, began + COMPROMISED_PATIENCE), None)
    if told is None:
        raise UnavailableError("verification_failed", "the nodes could not be attacked in time")
    report: dict[str, Any] = json.loads(told)
    if "error" in report:
        raise error_from_dict(report["error"])
    took = {"durationSeconds": round(time.monotonic() - began, 3)}
    return {"version": __version__, "startedAt": started, **took, **report}


def on_node(place: Place, check: Check) -> Timed:
    """Runs the part of a check that changes nothing."""
    trial, began = Trial(), time.monotonic()
    assert check.on_node is not None
    with attempting(trial, "the check"):
        check.on_node(place, trial)
    return trial.outcome(), time.monotonic() - began


def on_twin(twin: Twin, check: Check) -> Timed:
    """Runs the part of a check that may change things."""
    trial, began = Trial(), time.monotonic()
    assert check.on_twin is not None
    with attempting(trial, "the check"):
        check.on_twin(twin, trial)
    return trial.outcome(), time.monotonic() - began


def all_on_twin(twin: Twin, checks: Sequence[Check]) -> Iterator[tuple[int, Timed]]:
    """Runs those parts in their order, and those that wait side by side."""
    ordered = in_order(check for check in checks if check.on_twin)
    for check in ordered:
        if check.prepare is not None:
            with attempting(Trial(), "preparing"):  # the check itself finds out what is missing
                check.prepare(twin)
    waiting = [check for check in ordered if check.id in WAITING]
    if waiting:
        threads = ThreadPoolExecutor(len(waiting))
        try:
            outcomes = threads.map(lambda check: on_twin(twin, check), waiting)
            yield from zip((check.id for check in waiting), outcomes, strict=True)
        finally:
            # After a Ctrl-C nobody waits for them: they end with the twin.
            threads.shutdown(wait=False, cancel_futures=True)
    for check in ordered:
        if check.id not in WAITING:
            yield check.id, on_twin(twin, check)


def merged(check: Check, node: Timed | None, twin: Timed | None) -> Result:
    """One verdict of both parts: each must have passed, and each that there is must have been run."""
    if not check.is_available:
        return Result(check, False, False, NOT_AVAILABLE, 0.0)
    parts = []
    if check.on_node:
        parts.append(("node", node or (Outcome(False, "it was not tried"), 0.0)))
    if check.on_twin:
        parts.append(("twin", twin or (Outcome(False, "it was not tried, or not in time"), 0.0)))
    outcomes = [outcome for _, (outcome, _) in parts]
    return Result(
        check,
        all(one.passed for one in outcomes),
        not any(one.unavailable for one in outcomes),
        "; ".join(f"{where}: {outcome.evidence}" for where, (outcome, _) in parts),
        sum(seconds for _, (_, seconds) in parts),
    )


# --- the twin's process --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _process(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process with nodes of its own; it is ended in the end, and told to tidy up first."""
    command = [*processes.module_command(f"vedette.verification.{module}"), *arguments]
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a Ctrl-C is for this process, which then tells that one
    )
    try:
        yield child
    finally:
        with undisturbed():
            _end(child)


def _end(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    try:
        child.communicate(timeout=_END_PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()


def _read_results(child: subprocess.Popen[str], deadline: float) -> tuple[dict[int, Timed], bool]:
    """What the process tells, a line each; what did not come in time is not there."""
    found: dict[int, Timed] = {}
    isolated = False
    assert child.stdout is not None
    for line in _lines_until(child.stdout, deadline):
        told = json.loads(line)
        if "isolated" in told:
            isolated = bool(told["isolated"])
            continue
        outcome = Outcome(told["passed"], told["evidence"], told["unavailable"])
        found[told["id"]] = (outcome, told["seconds"])
    return found, isolated


def _lines_until(source: IO[str], deadline: float) -> Iterator[str]:
    descriptor, rest = source.fileno(), b""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([descriptor], [], [], left)[0]:
            return
        data = os.read(descriptor, 1 << 16)
        if not data or len(rest) > _MAX_LINE:
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace")
