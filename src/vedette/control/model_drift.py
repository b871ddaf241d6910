"""Whether what models are asked and answer is as it was: asked of their workers, kept beside their versions.

Owns: control/drift, a file for each version that has learnt; handing that to the next worker of the version; the gate
of `vedette model promote --max-drift` (ADR 0059). Must not: see a value, or measure anything; the worker does
(crates/models/src/seen.rs). Or wake a worker that nobody asks.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from vedette.config.model import Count, Model, attempt, wire_value
from vedette.config.served import ServedModel
from vedette.control.drift_messages import DriftColumn, DriftState, ModelDrift, Side
from vedette.control.worker_asking import ask_worker, is_ready
from vedette.errors import ConfigError, UnavailableError
from vedette.models.keeper_state import read_states
from vedette.store.atomic import write_atomic
from vedette.store.home import Home

INTERVAL: Final = 5.0
"""Seconds between two looks at all workers: so much of what was seen is lost when one crashes."""
WRITE_INTERVAL: Final = 30.0
"""Seconds between two writes of a file, which changes as long as somebody asks."""
LEARNS: Final = 1_000
"""Requests that a worker learns from (crates/models/src/seen.rs)."""
_MOST_REPORT: Final = 64 << 10
_MOST_BINS: Final = 32
_MOST_COLUMNS: Final = 16

_Bins = tuple[Count, ...]


class _Kept(Model):
    """What a worker goes on with."""

    edges: tuple[float, ...] = Field(max_length=_MOST_BINS)
    counts: _Bins = Field(max_length=_MOST_BINS)
    now: _Bins = Field(max_length=_MOST_BINS)
    before: _Bins = Field(max_length=_MOST_BINS)


class _Column(Model):
    """A column as a worker tells of it."""

    name: str
    side: Side
    state: DriftState
    runs: Count = Field(ge=0)
    psi: float | None = Field(ge=0)
    ks: float | None = Field(ge=0, le=1)
    kept: _Kept | None


class _Report(Model):
    """What a worker tells; no state: there is nothing in it that could be watched."""

    state: DriftState | None
    columns: tuple[_Column, ...] = Field(max_length=_MOST_COLUMNS)


class DriftWatch:
    """Drift of the models that serve. Methods may be called from any thread."""

    def __init__(
        self,
        home: Home,
        served: Callable[[], Sequence[ServedModel]],
        kept: Callable[[], Collection[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`served`: the models that serve; `kept`: workers of all versions that the node keeps."""
        self._home = home
        self._served = served
        self._kept = kept
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, _Report] = {}
        self._written: dict[str, tuple[float, _Report]] = {}

    def run(self, stopping: threading.Event) -> None:
        """Looks every few seconds until `stopping`; what is known then is written."""
        while not stopping.wait(INTERVAL):
            self.look()
        for worker, report in list(self._known.items()):
            self._write(worker, report)

    def look(self) -> None:
        """Asks each worker that is ready; one that is away is asked next time."""
        served = self._served()
        states = read_states(self._home.models_state)
        for model in served:
            if is_ready(states.get(model.worker)):
                self._ask(model)
        workers = {each.worker for each in served}
        for worker in self._known.keys() - workers:
            self._write(worker, self._known[worker])
            with self._lock:
                del self._known[worker]

    def of(self, model: ServedModel) -> ModelDrift | None:
        """What was last told of a version; None: nothing, or nothing of it is watched."""
        return _told(model, self._last(model.worker))

    def require(self, name: str, model: ServedModel | None, most: float) -> None:
        """Asks the worker of the version that serves. Raises `ConfigError` model_drifted when what comes now is further
        from what is usual than `most` (an index), model_drift_unknown when nobody can say.
        """
        if model is None:
            raise ConfigError("model_drift_unknown", f"no version of {name!r} serves")
        state = read_states(self._home.models_state).get(model.worker)
        report = self._ask(model) if is_ready(state) else None
        drift = _told(model, report or self._last(model.worker))
        what = f"{name} {model.version}"
        if drift is None or drift.psi is None:
            raise ConfigError("model_drift_unknown", f"{what}: {_unknown(drift)}")
        worst = max(drift.columns, key=lambda each: each.psi or 0.0)
        if drift.psi > most:
            raise ConfigError(
                "model_drifted",
                f"{what}: the {worst.side} {worst.name!r} is no longer as it was: its PSI is {drift.psi:.2f}, more "
                f"than {most:g}",
            )

    def _last(self, worker: str) -> _Report | None:
        with self._lock:
            report = self._known.get(worker)
        return report or self._read(worker)

    def _ask(self, model: ServedModel) -> _Report | None:
        """What its worker tells, which goes on where an earlier one has ended; None: it does not answer."""
        path = self._home.model_socket(model.worker)
        report = _said(path, "GET", b"")
        if report is None:
            return None
        before = self._last(model.worker)
        if before is not None and _is_behind(report, before):
            report = _said(path, "POST", _bytes(before))
            if report is None:
                return None  # what is kept stays, and is handed over next time
        with self._lock:
            self._known[model.worker] = report
            at, written = self._written.get(model.worker, (0.0, None))
        is_due = written is None or self._clock() - at >= WRITE_INTERVAL
        if is_due or (written is not None and _is_behind(written, report)):
            self._write(model.worker, report)
        return report

    def _file(self, worker: str) -> Path:
        return self._home.drift / f"{worker}.json"

    def _read(self, worker: str) -> _Report | None:
        with contextlib.suppress(OSError), self._file(worker).open("rb") as file:
            return _parsed(file.read(_MOST_REPORT + 1))
        return None

    def _write(self, worker: str, report: _Report) -> None:
        """Keeps what has learnt. A disk that refuses is no failure: it is tried again."""
        has_learnt = any(each.kept is not None for each in report.columns)
        _, written = self._written.get(worker, (0.0, None))
        if not has_learnt or report == written:
            return
        file = self._file(worker)
        with contextlib.suppress(OSError, UnavailableError):
            self._home.drift.mkdir(mode=0o700, exist_ok=True)
            if not file.exists():
                self._forget()
            write_atomic(file, _bytes(report))
            with self._lock:
                self._written[worker] = (self._clock(), report)

    def _forget(self) -> None:
        """Removes what is of versions that the node does not keep."""
        kept = {*self._kept(), *(each.worker for each in self._served())}
        for file in self._home.drift.iterdir():
            if file.stem not in kept:
                file.unlink(missing_ok=True)
        with self._lock:
            for worker in self._written.keys() - kept:
                del self._written[worker]


def _is_behind(report: _Report, before: _Report) -> bool:
    """Whether something was learnt before that is not known now."""
    learnt = {(each.name, each.side) for each in before.columns if each.kept is not None}
    return any((each.name, each.side) in learnt for each in report.columns if each.kept is None)


def _told(model: ServedModel, report: _Report | None) -> ModelDrift | None:
    """The report of a model's worker as far as it is about tensors that the model has."""
    if report is None or report.state is None:
        return None
    tensors: dict[str, set[str]] = {
        "input": {each.name for each in model.inputs},
        "score": {each.name for each in model.outputs},
    }
    columns = tuple(
        DriftColumn(**each.model_dump(exclude={"kept"}))
        for each in report.columns
        if each.name in tensors[each.side]
    )
    known = [each.psi for each in columns if each.psi is not None]
    return ModelDrift(state=report.state, psi=max(known, default=None), columns=columns)


def _unknown(drift: ModelDrift | None) -> str:
    if drift is None:
        return "its process says nothing of drift"
    if drift.state == "learning":
        seen = max((each.runs for each in drift.columns), default=0)
        return f"it has seen {seen} of {LEARNS:,} requests that it learns from what is usual"
    return "too few requests have come since it learnt what is usual"


def _bytes(report: _Report) -> bytes:
    return json.dumps(wire_value(report), separators=(",", ":")).encode()


def _parsed(data: bytes) -> _Report | None:
    if len(data) > _MOST_REPORT:
        return None
    try:
        return attempt(_Report, json.loads(data))[0]
    except (ValueError, RecursionError):
        return None


def _said(path: Path, method: Literal["GET", "POST"], body: bytes) -> _Report | None:
    """What a worker tells; None: nothing of use. It may be anybody's model."""
    answer = ask_worker(path, method, "/drift", body, _MOST_REPORT)
    return _parsed(answer.body) if answer is not None and answer.status == 200 else None
