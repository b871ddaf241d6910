"""One wanted model: its socket, the process that serves it, and what is done when that ends.

Owns: the states of a worker, the delay before the next start, and what callers are told while nobody serves. Must not:
know other workers; `keeper` does.
"""

from __future__ import annotations

import select
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from vedette.clock import now, to_rfc3339
from vedette.errors import VedetteError
from vedette.models import keeper_sockets
from vedette.models.keeper_process import Process, failure
from vedette.models.keeper_pulse import LOOKS, PATIENCE, Pulse
from vedette.models.keeper_state import State, WorkerError, WorkerState, memory_of
from vedette.models.keeper_visitors import Visitors, refusal
from vedette.models.keeper_wanted import Wanted
from vedette.processes import restart_delay

READY_PATIENCE: Final = 120.0
"""Seconds for loading a model."""
GRACE: Final = 10.0
"""Seconds that a worker is left alone when its model is wanted no more: for calls under way."""
HEALTHY_AFTER: Final = 10.0
DRAIN_MARGIN: Final = 4.0
KILL_AGAIN: Final = 1.0
COLD_START: Final = 2.0
"""Seconds that callers of an idle model wait on its socket while it is loaded; then they are told to come again."""

_LONGEST_DELAY = 10.0


class Start(Protocol):
    """Starts the process of a model on a listening socket. Raises `VedetteError`, `OSError`."""

    def __call__(self, wanted: Wanted, listener: int) -> Process:
        """The process."""


@dataclass(slots=True)
class Worker:
    """A model's socket and process. Moments are seconds of `clock`, which never goes back.

    `elder` is a process from before an upgrade; it serves until `process` is ready. `leaves_at`: when it is to end, for
    a model that is wanted no more. `is_idle`: it has ended since nobody asked, and is started by whoever connects.
    """

    wanted: Wanted
    path: Path
    start: Start
    clock: Callable[[], float]
    listener: socket.socket | None = None
    process: Process | None = None
    elder: Process | None = None
    error: WorkerError | None = None
    restarts: int = 0
    failures: int = 0
    start_at: float | None = None
    leaves_at: float | None = None
    since: str = ""
    is_idle: bool = False
    retired: list[Process] = field(default_factory=list)
    """Processes that are to end, for whoever sees to that to take."""
    visitors: Visitors = field(default_factory=Visitors)
    pulse: Pulse = field(init=False)
    _verdict: WorkerError | None = None  # of a process that was told to end and has not yet
    _ready_by: float = 0.0
    _ready_since: float = 0.0
    _started_at: float = 0.0
    _cold_until: float = 0.0  # callers wait for it until then
    _takes: float = 1.0  # seconds that loading took
    _shown: State | None = None

    def __post_init__(self) -> None:
        question = f"GET /v2/models/{self.wanted.name}/ready HTTP/1.1\r\nhost: keeper\r\n\r\n"
        self.pulse = Pulse(self.path, question.encode())

    def serving(self) -> Process | None:
        """The process that answers calls now."""
        if self.process is not None and self.process.is_ready:
            return self.process
        return self.elder

    def is_renewing(self) -> bool:
        """Whether a process of this version takes, or tries to take, an elder's place."""
        return self.elder is not None and (self.process is not None or self.start_at is not None)

    def turns_away(self) -> bool:
        """Whether nobody serves, and who calls is not to wait either."""
        is_away = self.serving() is None and not self.is_idle
        return is_away and self.listener is not None and self.clock() >= self._cold_until

    def descriptors(self) -> list[int]:
        """What to wake up for."""
        found = [each.pidfd for each in (self.process, self.elder) if each is not None]
        found += self.visitors.descriptors() + self.pulse.descriptors()
        if self.process is not None and self.process.line is not None:
            found.append(self.process.line)
        if self.listener is not None and (
            self.is_idle or (self.turns_away() and self.visitors.has_room())
        ):
            found.append(self.listener.fileno())
        return found

    def due(self) -> float | None:
        """When something is to be done though nothing happens."""
        moments = [self.start_at, self.leaves_at, self.visitors.due(), self.pulse.due()]
        if self.process is not None and not self.process.is_ready and self._verdict is None:
            moments.append(self._ready_by)
        if self.serving() is None and self.clock() < self._cold_until:
            moments.append(self._cold_until)
        return min((moment for moment in moments if moment is not None), default=None)

    def step(self) -> None:
        """Does what has become due."""
        moment = self.clock()
        if self.elder is not None and self.elder.has_ended():
            self.elder.collect()
            rests, self.elder = self._rests(self.elder), None
            if self.process is None and self.start_at is None:
                self.is_idle = rests
                self.start_at = None if rests else moment
        if self.process is not None:
            self._watch(self.process, moment)
        if self.is_idle and self.listener is not None and _is_called(self.listener):
            self.is_idle, self.start_at, self._cold_until = False, moment, moment + COLD_START
        if self.start_at is not None and self.start_at <= moment:
            self._start(moment)
        if self.listener is not None and self.turns_away():
            self.visitors.accept(self.listener, moment)
        self.visitors.step(moment, self._unready(moment))

    def _unready(self, moment: float) -> bytes:
        """What callers are told while nobody serves."""
        if self.process is None and self.start_at is not None:
            wait = self.start_at - moment + self._takes
            return refusal("the process of the model has failed, and is started again", wait)
        left = self._started_at + self._takes - moment
        # The engine knows this sentence (crates/engine/src/models/answer.rs).
        return refusal("the model is being loaded", left)

    def _rests(self, process: Process) -> bool:
        """Whether the process has ended since nobody asked, as it is to."""
        is_by_itself = process.is_ready and process.exit_code == 0 and self._verdict is None
        return is_by_itself and self.wanted.idle_millis is not None

    def _watch(self, process: Process, moment: float) -> None:
        if self._verdict is None:
            self._hear(process, moment)
        if process.is_ready and self._verdict is None and not self.pulse.is_there(moment):
            self._end(process, failure(f"it answered nobody for {LOOKS * PATIENCE:.0f} s"))
        if process.has_ended():
            self.pulse.forget()
            end = process.collect()
            self.process = None
            if self._rests(process):
                self.is_idle, self.failures = True, 0
                return
            self._failed(self._verdict or end, was_healthy=self._was_healthy(process, moment))

    def _hear(self, process: Process, moment: float) -> None:
        was_ready = process.is_ready
        error = process.listen()
        if process.is_ready and not was_ready:
            self._ready_since, self.error = moment, None
            self._takes = (process.load_millis or 0.0) / 1000
            if self.elder is not None:
                self.retired.append(self.elder)
                self.elder = None
        elif error is None and not process.is_ready and moment >= self._ready_by:
            error = failure(f"it was not ready within {READY_PATIENCE:.0f} s")
        if error is not None:
            self._end(process, error)

    def _end(self, process: Process, error: WorkerError) -> None:
        process.hang_up()
        process.send(signal.SIGKILL)
        self._verdict = self.error = error

    def _was_healthy(self, process: Process, moment: float) -> bool:
        return process.is_ready and moment - self._ready_since >= HEALTHY_AFTER

    def _failed(self, error: WorkerError, *, was_healthy: bool) -> None:
        self.failures = 1 if was_healthy else self.failures + 1
        self.error, self._verdict = error, None
        self.start_at = self.clock() + restart_delay(self.failures, _LONGEST_DELAY)

    def _start(self, moment: float) -> None:
        if self.failures:
            self.restarts += 1
        self.start_at = None
        try:
            if self.listener is None:
                self.listener = keeper_sockets.bind(self.path)
            self.process = self.start(self.wanted, self.listener.fileno())
            self._started_at, self._ready_by = moment, moment + READY_PATIENCE
        except VedetteError as error:
            self._failed(failure(error.message, error.code), was_healthy=False)
        except OSError as error:
            self._failed(failure(error.strerror or str(error)), was_healthy=False)

    def leave(self) -> None:
        """Has it end after a while, or at once when nobody can have called it."""
        if self.leaves_at is None:
            self.leaves_at = self.clock() + (GRACE if self.serving() or self.is_idle else 0.0)

    def rest(self) -> None:
        """Has it wait for a caller before it is started for the first time."""
        self.start_at = None
        try:
            self.listener = keeper_sockets.bind(self.path)
            self.is_idle = True
        except OSError as error:
            self._failed(failure(error.strerror or str(error)), was_healthy=False)

    def close(self) -> None:
        """Closes its socket. Its processes are then in `retired`; one that was never ready is ended at once."""
        for process in (self.process, self.elder):
            if process is not None and not process.is_ready:
                process.send(signal.SIGKILL)
            if process is not None:
                self.retired.append(process)
        self.process = self.elder = self.start_at = None
        self.pulse.forget()
        self.is_idle = False
        self.visitors.close()
        keeper_sockets.unbind(self.listener, self.path)
        self.listener = None

    def state(self) -> State:
        """What people are told of it."""
        if self.leaves_at is not None:
            return "leaving"
        if self.serving() is not None:
            return "ready"
        if self.is_idle:
            return "idle"
        return "failed" if self.process is None and self.error is not None else "starting"

    def report(self) -> WorkerState:
        """What is written of it."""
        state = self.state()
        if state != self._shown:
            self._shown, self.since = state, to_rfc3339(now(), microseconds=True)
        process = self.serving() or self.process
        return {
            "name": self.wanted.name,
            "version": self.wanted.version,
            "state": state,
            "pid": process.pid if process else None,
            "restarts": self.restarts,
            "since": self.since,
            "error": self.error,
            "loadMillis": process.load_millis if process else None,
            "memoryBytes": memory_of(process.pid) if process else None,
        }


def _is_called(listener: socket.socket) -> bool:
    """Whether somebody has connected whom nobody has accepted."""
    poller = select.poll()
    poller.register(listener, select.POLLIN)
    return bool(poller.poll(0))


@dataclass(slots=True)
class Leaving:
    """A process that finishes what it has; killed when it takes longer than its model's longest run."""

    wanted: Wanted
    process: Process
    kill_at: float
    since: str

    @classmethod
    def of(cls, wanted: Wanted, process: Process, moment: float) -> Leaving:
        """Tells the process to finish."""
        process.send(signal.SIGTERM)
        kill_at = moment + wanted.run_millis / 1000 + DRAIN_MARGIN
        return cls(wanted, process, kill_at, to_rfc3339(now(), microseconds=True))

    def has_left(self, moment: float) -> bool:
        """Whether it has ended; one that should have by now is killed."""
        if moment >= self.kill_at:
            self.process.send(signal.SIGKILL)
            self.kill_at = moment + KILL_AGAIN
        if not self.process.has_ended():
            return False
        self.process.collect()
        return True

    def report(self) -> WorkerState:
        """What is written of it."""
        return {
            "name": self.wanted.name,
            "version": self.wanted.version,
            "state": "leaving",
            "pid": self.process.pid,
            "restarts": 0,
            "since": self.since,
            "error": None,
            "loadMillis": self.process.load_millis,
            "memoryBytes": memory_of(self.process.pid),
        }
