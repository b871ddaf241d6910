"""The supervisor: starts engine and control, restarts each alone, stops both.

Owns: the children's lives and run/supervisor.json. Must not: talk to them, or end them when it dies itself. See the
package's docstring for why it has a guardian.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vedette.clock import now, to_rfc3339
from vedette.control.supervisor import processes
from vedette.control.supervisor.signals import SignalSocket, say
from vedette.control.supervisor.state import (
    GUARDIAN_VARIABLE,
    PLAN_VARIABLE,
    Plan,
    ProcessState,
    SupervisorState,
    read_state,
)
from vedette.errors import UnavailableError
from vedette.store.home import Home

ENGINE_PATIENCE = 12.0  # seconds; the engine drains for at most 10
CONTROL_PATIENCE = 5.0
HEALTHY_AFTER = 10.0
STATE_RETRY = 1.0

_FIRST_DELAY, _LONGEST_DELAY = 0.1, 5.0
# SSL_CERT_*: whose certificates the engine trusts when it reaches out, as for every program.
_ENGINE_ENVIRONMENT = (
    *("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "RUST_BACKTRACE"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR"),
)


def restart_delay(failures: int) -> float:
    """Seconds to wait before the restart after `failures` failures in a row: none, 0.1, 0.2, … 5."""
    return 0.0 if failures <= 1 else min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** (failures - 2))


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
        self.failures = 1 if moment - self.up_since >= HEALTHY_AFTER else self.failures + 1
        self.start_at = moment + restart_delay(self.failures)
        self.state.pid, self.state.startTicks, self.state.state = None, None, "waiting"
        self.state.restarts += 1


class Supervisor:
    """Runs until SIGTERM, then stops its children; becomes the guardian when the guardian dies."""

    def __init__(self, plan: Plan, guardian: int, *, guardian_lives: bool) -> None:
        self._plan = plan
        self._home = Home(Path(plan.home))
        self._clock = time.monotonic
        self._guardian = guardian
        self._guardian_fd = processes.open_pidfd(guardian) if guardian_lives else None
        self._signals = SignalSocket(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        self._stopping = False
        self._state_is_written = True
        self._children = [_engine_child(plan, self._home), _control_child(plan, self._home)]

    def run(self) -> int:
        """Supervises. Returns 0 after an orderly stop; does not return when it becomes the guardian."""
        self._adopt_children()
        while not self._stopping:
            self._start_due_children()
            self._wait()
            if self._guardian_fd is None or processes.has_ended(self._guardian_fd):
                become_guardian(self._plan)
        self._stop_children()
        return 0

    def _adopt_children(self) -> None:
        """Takes over what a killed supervisor left, and ends what should not be there twice."""
        known = read_state(self._home.supervisor_file)
        for child in self._children:
            before = getattr(known, child.role) if known else ProcessState()
            found = processes.find(self._home.root, child.role)
            if not found:
                child.state.restarts = before.restarts + (before.pid is not None)
                continue
            chosen = next((process for process in found if process.pid == before.pid), found[0])
            child.adopt(chosen, before, self._clock)
            processes.end_all([process.pid for process in found if process != chosen], 1.0)
        self._write_state()

    def _start_due_children(self) -> None:
        moment = self._clock()
        started = False
        for child in self._children:
            if child.start_at is not None and child.start_at <= moment:
                child.start(self._clock)
                started = True
        if started or not self._state_is_written:
            self._write_state()

    def _wait(self) -> None:
        """Sleeps until something ends, a signal comes, or a restart is due."""
        poller = select.poll()
        poller.register(self._signals.fileno(), select.POLLIN)
        watched = [child.pidfd for child in self._children]
        for pidfd in [*watched, self._guardian_fd]:
            if pidfd is not None:
                poller.register(pidfd, select.POLLIN)
        due = [child.start_at for child in self._children if child.start_at is not None]
        if not self._state_is_written:
            due.append(self._clock() + STATE_RETRY)
        timeout = max(0.0, min(due) - self._clock()) * 1000 if due else None
        poller.poll(timeout)
        if self._signals.take() - {signal.SIGCHLD}:
            self._stopping = True
        processes.reap()
        for child in self._children:
            if child.pidfd is not None and processes.has_ended(child.pidfd):
                say("supervisor", f"{child.role} (pid {child.state.pid}) ended; starting it again")
                child.ended(self._clock())
                self._write_state()

    def _stop_children(self) -> None:
        say("supervisor", "stopping")
        running = [child for child in self._children if child.pidfd is not None]
        for child in running:
            assert child.pidfd is not None
            processes.send(child.pidfd, signal.SIGTERM)
        begun = self._clock()
        for child in running:
            assert child.pidfd is not None
            left = child.patience - (self._clock() - begun)
            if not processes.has_ended(child.pidfd, max(0.0, left)):
                say(
                    "supervisor",
                    f"{child.role} did not stop within {child.patience:.0f} s; killing it",
                )
                processes.send(child.pidfd, signal.SIGKILL)
                processes.has_ended(child.pidfd, 5.0)
        processes.reap()
        for path in (self._home.supervisor_file, self._home.engine_socket, self._home.admin_socket):
            path.unlink(missing_ok=True)

    def _write_state(self) -> None:
        plan = self._plan
        own = ProcessState(os.getpid(), "running", startTicks=processes.start_ticks(os.getpid()))
        guardian = ProcessState(
            self._guardian, "running", startTicks=processes.start_ticks(self._guardian)
        )
        own.startedAt = to_rfc3339(now())
        state = SupervisorState(plan.version, plan.home, plan.location, guardian, own)
        for child in self._children:
            setattr(state, child.role, child.state)
        state.listeners = [
            {"name": one.name, "address": one.address, "scheme": one.scheme, "url": one.url}
            for one in plan.listeners
        ]
        state.metrics = {"url": f"http://{plan.metrics_address}/metrics"}
        try:
            state.write(self._home.supervisor_file)
        except UnavailableError as error:  # a full disk must not stop supervision; tried again soon
            if self._state_is_written:
                say("supervisor", f"cannot write {self._home.supervisor_file}: {error}")
            self._state_is_written = False
        else:
            self._state_is_written = True


def _engine_child(plan: Plan, home: Home) -> Child:
    listeners = [
        {"name": one.name, "address": one.address, "scheme": one.scheme, "fds": one.fds}
        for one in plan.listeners
    ]
    config = {
        "engineDir": str(home.engine),
        "spoolDir": str(home.spool_requests.parent),
        "location": plan.location,
        "workers": plan.workers,
        "tlsMinVersion": plan.tls_min_version,
        "listeners": listeners,
        "controlFd": plan.engine_fd,
    }
    environment = {name: os.environ[name] for name in _ENGINE_ENVIRONMENT if name in os.environ}
    # The allocator asks for huge pages, of which an idle engine then holds 16 MB that it never touched.
    environment["MIMALLOC_ALLOW_THP"] = "0"
    environment["VEDETTE_ENGINE_CONFIG"] = json.dumps(config)
    return Child(
        "engine",
        processes.command_line(plan.engine_command, "engine", home.root),
        environment,
        [plan.engine_fd, *(fd for one in plan.listeners for fd in one.fds)],
        home.engine_log,
        ENGINE_PATIENCE,
    )


def _control_child(plan: Plan, home: Home) -> Child:
    config = {"adminFd": plan.admin_fd, "metricsFd": plan.metrics_fd}
    environment = _without_plan(os.environ)
    environment["VEDETTE_CONTROL_CONFIG"] = json.dumps(config)
    return Child(
        "control",
        processes.command_line(plan.control_command, "control", home.root),
        environment,
        [plan.admin_fd, plan.metrics_fd],
        home.control_log,
        CONTROL_PATIENCE,
    )


def _without_plan(environment: Mapping[str, str]) -> dict[str, str]:
    own = (PLAN_VARIABLE, GUARDIAN_VARIABLE)
    return {name: value for name, value in environment.items() if name not in own}


def become_guardian(plan: Plan) -> None:
    """Replaces this program by the guardian. Signals stay blocked until it can take them, so none is lost."""
    say("supervisor", "the guardian died; taking its place")
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    for descriptor in plan.descriptors():
        os.set_inheritable(descriptor, True)
    arguments = processes.command_line(
        processes.module_command("vedette.control.supervisor.guardian"), "guardian", Path(plan.home)
    )
    os.execve(arguments[0], arguments, {**os.environ, PLAN_VARIABLE: plan.to_json()})


def main() -> int:
    """Runs as started by the guardian."""
    plan = Plan.from_json(os.environ[PLAN_VARIABLE])
    for descriptor in plan.descriptors():
        os.set_inheritable(descriptor, False)
    guardian = int(os.environ[GUARDIAN_VARIABLE])
    return Supervisor(plan, guardian, guardian_lives=os.getppid() == guardian).run()


if __name__ == "__main__":
    sys.exit(main())
