"""One supervised process: how it is started, watched, restarted and replaced.

Owns: the delay before a restart, and a process that is on its way out. Must not: decide when; `supervise` and `upgrade`
do.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vedette import processes
from vedette.clock import now, to_rfc3339
from vedette.control.supervisor.signals import say
from vedette.control.supervisor.state import ProcessState

HEALTHY_AFTER = 10.0

_LONGEST_DELAY = 5.0


def restart_delay(failures: int) -> float:
    """Seconds to wait before the restart after `failures` failures in a row: none, 0.1, 0.2, … 5."""
    return 0.0 if failures <= 1 else processes.restart_delay(failures - 1, _LONGEST_DELAY)


@dataclass(slots=True)
class Child:
    """One supervised process: how to start it, and what it is doing."""

    role: str
    arguments: list[str]
    environment: dict[str, str]
    descriptors: list[int]
    log: Path
    patience: float
    state: ProcessState = field(default_factory=ProcessState)
    pidfd: int | None = None
    failures: int = 0
    up_since: float = 0.0
    start_at: float | None = 0.0
    is_replaced: bool = False  # told to end, to be started again: no failure

    def start(self, clock: Callable[[], float]) -> None:
        """Starts the process."""
        pid = processes.spawn(self.arguments, self.environment, self.descriptors, self.log)
        self.state.startedAt = to_rfc3339(now())
        self._watch(pid, clock())

    def adopt(
        self, found: processes.Found, known: ProcessState, clock: Callable[[], float]
    ) -> None:
        """Watches a process that an earlier supervisor started."""
        self.state.restarts = known.restarts
        self.state.startedAt = known.startedAt or to_rfc3339(now())
        self._watch(found.pid, clock())

    def replace(self, pid: int, clock: Callable[[], float]) -> Leaving | None:
        """Watches `pid` from now on. Returns the process watched until now, if it lives; it is to end."""
        leaving = None
        if self.pidfd is not None and self.state.pid is not None:
            leaving = Leaving(self.role, self.state.pid, self.pidfd, clock() + self.patience)
        self.state.startedAt = to_rfc3339(now())
        self._watch(pid, clock())
        return leaving

    def _watch(self, pid: int, moment: float) -> None:
        self.pidfd = processes.open_pidfd(pid)
        self.state.pid, self.state.startTicks = pid, processes.start_ticks(pid)
        self.state.state = "running"
        self.up_since, self.start_at = moment, None
        if self.pidfd is None:
            self.ended(moment)

    def ended(self, moment: float) -> None:
        """Plans the restart."""
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None
        if self.is_replaced:
            self.is_replaced, self.failures = False, 0
        else:
            self.state.restarts += 1
            self.failures = self._failures_until(moment)
        self.start_at = moment + restart_delay(self.failures)
        self.state.pid, self.state.startTicks, self.state.state = None, None, "waiting"

    def _failures_until(self, moment: float) -> int:
        return 1 if moment - self.up_since >= HEALTHY_AFTER else self.failures + 1


@dataclass(slots=True)
class Leaving:
    """A process that finishes what it has and is not started again; killed at `deadline` (monotonic seconds)."""

    role: str
    pid: int
    pidfd: int
    deadline: float

    def has_left(self, moment: float) -> bool:
        """Whether it has ended; one that should have by now is killed."""
        if moment >= self.deadline:
            say("supervisor", f"{self.role} (pid {self.pid}) did not end in time; killing it")
            processes.send(self.pidfd, signal.SIGKILL)
            processes.has_ended(self.pidfd, 5.0)
        if not processes.has_ended(self.pidfd):
            return False
        os.close(self.pidfd)
        return True
