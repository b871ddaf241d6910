"""The guardian: holds the node's sockets and keeps one supervisor running.

Owns: the supervisor's life. Must not: touch the supervisor's children; see the package's docstring.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from pathlib import Path

from vedette import processes
from vedette.control.supervisor.signals import SignalSocket, become_subreaper, say
from vedette.control.supervisor.state import GUARDIAN_VARIABLE, PLAN_VARIABLE, Plan
from vedette.store.home import Home

_STOP_PATIENCE = 25.0  # seconds; more than the supervisor gives the engine
_PAUSE_AFTER_QUICK_DEATH = 0.5


class Guardian:
    """Runs until SIGTERM, until `vedette up` in the foreground ends, or until the supervisor stops the node."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._home = Home(Path(plan.home))
        self._signals = SignalSocket(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        self._life = plan.life_fd

    def run(self) -> int:
        """Guards. Returns 0 after the node has stopped."""
        become_subreaper()
        while True:
            started = time.monotonic()
            pid = self._start_supervisor()
            if self._watch(pid):
                return 0
            say("guardian", f"the supervisor (pid {pid}) died; starting another")
            if time.monotonic() - started < _PAUSE_AFTER_QUICK_DEATH:
                time.sleep(_PAUSE_AFTER_QUICK_DEATH)

    def _start_supervisor(self) -> int:
        arguments = processes.command_line(
            processes.module_command("vedette.control.supervisor.supervise"),
            "supervisor",
            self._home.root,
        )
        environment = {**os.environ, GUARDIAN_VARIABLE: str(os.getpid())}
        return processes.spawn(
            arguments, environment, self._plan.descriptors(), self._home.supervisor_log
        )

    def _watch(self, pid: int) -> bool:
        """Waits for the supervisor to end; True when the node is to stop and has."""
        pidfd = os.pidfd_open(pid)
        deadline: float | None = None
        status: int | None = None
        try:
            while status is None:
                stop = self._wait(pidfd, deadline)
                if stop and deadline is None:
                    processes.send(pidfd, signal.SIGTERM)
                    deadline = time.monotonic() + _STOP_PATIENCE
                status = _collect(pid)
                if status is None and deadline is not None and time.monotonic() >= deadline:
                    processes.send(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
        if deadline is None and status != 0:
            return False
        self._end_what_is_left()
        return True

    def _wait(self, pidfd: int, deadline: float | None) -> bool:
        """Sleeps until the supervisor ends, a signal comes or the deadline passes; True when told to stop."""
        poller = select.poll()
        poller.register(self._signals.fileno(), select.POLLIN)
        poller.register(pidfd, select.POLLIN)
        if self._life is not None:
            poller.register(self._life, select.POLLIN)
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        ready = {descriptor for descriptor, _ in poller.poll(timeout)}
        stop = bool(self._signals.take() - {signal.SIGCHLD})
        if self._life in ready:  # `vedette up` in the foreground has ended: its node ends with it
            self._life, stop = None, True
        return stop

    def _end_what_is_left(self) -> None:
        left = [
            found.pid
            for role in ("engine", "control", "models", "model")
            for found in processes.find(self._home.root, role)
        ]
        processes.end_all(left, 1.0)
        processes.reap()


def _collect(supervisor: int) -> int | None:
    """Reaps every child that has ended; the supervisor's wait status when it was among them."""
    status = None
    try:
        while True:
            pid, ended = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return status
            if pid == supervisor:
                status = ended
    except ChildProcessError:
        return status


def main() -> int:
    """Runs as started by `vedette up`, or in place of a supervisor that lost its guardian."""
    plan = Plan.from_json(os.environ[PLAN_VARIABLE])
    for descriptor in plan.descriptors():
        os.set_inheritable(descriptor, False)
    return Guardian(plan).run()


if __name__ == "__main__":
    sys.exit(main())
