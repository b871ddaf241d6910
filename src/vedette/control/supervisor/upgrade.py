"""Replacing engine and control by what is installed now, without a request lost.

Owns: the order of it. A second engine is started on the same sockets and says on a pipe that it could serve; the first
is then told to hand over (SIGUSR1) and lets go of the lock in `spool/` that the second waits for; it finishes what it
has and ends. The keeper of models is told once the second has taken over, and sees to the rest by itself
(`vedette.models.keeper`). Control comes last: it never has two. Must not: talk to the engine or to control, as the
supervisor never does; who asked for the upgrade does (`vedette upgrade`), and reads run/upgrade.json.

When the second engine cannot serve, it is ended, and the first has noticed nothing (ADR 0015).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from vedette import processes
from vedette.control.supervisor.child import Child, Leaving
from vedette.control.supervisor.signals import say
from vedette.errors import UnavailableError
from vedette.store.atomic import write_atomic
from vedette.store.home import Home

READY_PATIENCE = 60.0  # seconds; a snapshot of thousands of functions is loaded
ENGINE_VARIABLE = "VEDETTE_ENGINE_CONFIG"

_LAST_WORDS = 512


@dataclass(slots=True)
class UpgradeState:
    """The content of run/upgrade.json.

    `state` is asked, running, done or failed; `step` what it waits for: ready, drained, control; `engine` and `control`
    say which to replace, the pids after it are those before.
    """

    id: str
    engine: bool = True
    control: bool = True
    state: str = "asked"
    step: str = ""
    reason: str | None = None
    old_engine: int | None = None
    old_control: int | None = None

    def write(self, path: Path) -> None:
        """Replaces the file whole. Raises `UnavailableError` when the disk refuses."""
        write_atomic(path, json.dumps(asdict(self)).encode() + b"\n")


def read_upgrade(path: Path) -> UpgradeState | None:
    """The upgrade last asked for; None when there is none or it cannot be read as one."""
    try:
        return UpgradeState(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


class Upgrade:
    """One upgrade; `step` is called whenever something may have happened."""

    def __init__(
        self,
        home: Home,
        state: UpgradeState,
        engine: Child,
        control: Child,
        clock: Callable[[], float],
    ) -> None:
        self._home = home
        self._state = state
        self._engine = engine
        self._control = control
        self._clock = clock
        self._fresh: int | None = None  # the second engine, while it gets ready
        self._fresh_fd: int | None = None
        self._pipe: int | None = None
        self._replaced = False
        self._chosen: int | None = None  # the second engine, once it is the engine
        self.deadline = clock() + READY_PATIENCE

    def begin(self) -> None:
        """Starts the second engine; or tells that an upgrade was given up, when a supervisor has died over it."""
        if self._state.state != "asked":
            self._end("failed", "the supervisor ended in the middle of it")
            return
        self._state.old_engine = self._engine.state.pid
        self._state.old_control = self._control.state.pid
        self._state.state = "running"
        if self._state.engine:
            self._enter("ready")
            self._start_engine()
        else:
            self._replace_control()

    def _start_engine(self) -> None:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        child = self._engine
        config = {**json.loads(child.environment[ENGINE_VARIABLE]), "readyFd": writer}
        environment = {**child.environment, ENGINE_VARIABLE: json.dumps(config)}
        try:
            descriptors = [*child.descriptors, writer]
            self._fresh = processes.spawn(child.arguments, environment, descriptors, child.log)
        finally:
            os.close(writer)
        self._pipe, self._fresh_fd = reader, processes.open_pidfd(self._fresh)
        say("supervisor", f"a second engine (pid {self._fresh}) gets ready")

    def descriptors(self) -> list[int | None]:
        """What to wake up for."""
        return [self._pipe]

    def stands_in_for(self, child: Child) -> bool:
        """Whether `child` need not be started: the second engine is about to take its place."""
        return child is self._engine and self._fresh is not None

    def has_replaced(self) -> bool:
        """Whether the last step made the second engine the engine."""
        replaced, self._replaced = self._replaced, False
        return replaced

    def is_over(self) -> bool:
        """Whether there is nothing left to do."""
        return self._state.state in ("done", "failed")

    def step(self, *, is_leaving: bool) -> Leaving | None:
        """Goes on if it can. Returns the engine that is to be told to leave. `is_leaving`: one is on its way out."""
        if self._state.step == "ready":
            return self._take_report()
        if self._state.step == "drained" and not is_leaving:
            if self._state.control:
                self._replace_control()
            else:
                self._finish()
        elif self._state.step == "control" and self._control.state.pid not in (
            None,
            self._state.old_control,
        ):
            self._finish()
        if not self.is_over() and self._clock() >= self.deadline:
            self._end("failed", f"waited too long for {self._state.step}")
        return None

    def _take_report(self) -> Leaving | None:
        assert self._pipe is not None
        try:
            report = os.read(self._pipe, 65_536)
        except BlockingIOError:
            if self._clock() >= self.deadline:
                self.give_up(f"the new engine was not ready within {READY_PATIENCE:.0f} s")
            return None
        refused = _refused(report) if report else _last_words(self._home.engine_log)
        if refused is not None:
            self.give_up(f"the new engine cannot serve: {refused}")
            return None
        assert self._fresh is not None
        say("supervisor", f"the engine (pid {self._fresh}) takes over")
        leaving = self._engine.replace(self._fresh, self._clock)
        self._chosen, self._replaced = self._fresh, True
        self._forget_fresh()
        self._enter("drained", self._engine.patience + 10.0)
        return leaving

    def _replace_control(self) -> None:
        """The supervisor's loop starts it again, on the same sockets."""
        if self._control.pidfd is not None:
            self._control.is_replaced = True
            processes.send(self._control.pidfd, signal.SIGTERM)
        self._enter("control", self._control.patience + 10.0)

    def _finish(self) -> None:
        if self._chosen is not None and self._engine.state.pid != self._chosen:
            self._end("failed", "the new engine ended after it took over, and was started again")
        else:
            self._end("done")

    def give_up(self, reason: str) -> None:
        """Ends the second engine, if it is not the engine yet, and says why."""
        if self._fresh_fd is not None:
            processes.send(self._fresh_fd, signal.SIGKILL)
            processes.has_ended(self._fresh_fd, 5.0)
        self._forget_fresh()
        self._end("failed", reason)

    def _forget_fresh(self) -> None:
        for descriptor in (self._fresh_fd, self._pipe):
            if descriptor is not None:
                os.close(descriptor)
        self._fresh = self._fresh_fd = self._pipe = None

    def _enter(self, step: str, patience: float = READY_PATIENCE) -> None:
        self._state.step = step
        self.deadline = self._clock() + patience
        self._write()

    def _end(self, state: str, reason: str | None = None) -> None:
        say("supervisor", f"the upgrade is {state}" + (f": {reason}" if reason else ""))
        self._state.state, self._state.reason = state, reason
        self._write()

    def _write(self) -> None:
        with contextlib.suppress(UnavailableError):  # a full disk must not stop it half-way
            self._state.write(self._home.upgrade_file)


def _refused(report: bytes) -> str | None:
    try:
        error = json.loads(report)["error"]
    except (ValueError, KeyError, TypeError):
        return f"it said {report[:80]!r}"
    return None if error is None else str(error)


def _last_words(log: Path) -> str:
    """What an engine that ended without a report said last."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_WORDS))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else "it ended without a word"
