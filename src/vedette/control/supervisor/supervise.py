"""The supervisor: starts engine, control and the keeper of models, restarts each alone, stops all.

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
from collections.abc import Mapping
from pathlib import Path

from vedette import __version__, processes
from vedette.clock import now, to_rfc3339
from vedette.control.supervisor.child import Child, Leaving
from vedette.control.supervisor.signals import SignalSocket, say
from vedette.control.supervisor.state import (
    GUARDIAN_VARIABLE,
    PLAN_VARIABLE,
    Plan,
    ProcessState,
    SupervisorState,
    read_state,
)
from vedette.control.supervisor.upgrade import Upgrade, read_upgrade
from vedette.errors import UnavailableError
from vedette.store.home import Home

ENGINE_PATIENCE = 12.0  # seconds; the engine drains for at most 10
CONTROL_PATIENCE = 5.0
MODELS_PATIENCE = 5.0
STATE_RETRY = 1.0

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# SSL_CERT_*: whose certificates the engine trusts when it reaches out, as for every program.
_MODELS_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "RUST_BACKTRACE")
_ENGINE_ENVIRONMENT = (*_MODELS_ENVIRONMENT, "SSL_CERT_FILE", "SSL_CERT_DIR")


class Supervisor:
    """Runs until SIGTERM, then stops its children; becomes the guardian when the guardian dies."""

    def __init__(self, plan: Plan, guardian: int, *, guardian_lives: bool) -> None:
        self._plan = plan
        self._home = Home(Path(plan.home))
        self._clock = time.monotonic
        self._guardian = guardian
        self._guardian_fd = processes.open_pidfd(guardian) if guardian_lives else None
        self._signals = SignalSocket(*_STOP_SIGNALS, signal.SIGCHLD, signal.SIGUSR1)
        self._stopping = False
        self._state_is_written = True
        self._engine = _engine_child(plan, self._home)
        self._control = _control_child(plan, self._home)
        self._models = _models_child(plan, self._home)
        self._children = [self._engine, self._control, self._models]
        self._leaving: list[Leaving] = []
        self._upgrade: Upgrade | None = None

    def run(self) -> int:
        """Supervises. Returns 0 after an orderly stop; does not return when it becomes the guardian."""
        self._adopt_children()
        self._take_up_upgrade()
        while not self._stopping:
            self._start_due_children()
            self._go_on_with_upgrade()
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
            self._let_go(child, [process for process in found if process != chosen])
        self._write_state()

    def _let_go(self, child: Child, others: list[processes.Found]) -> None:
        """Ends what an upgrade has left half done: an engine that waits for its turn, or one that is leaving."""
        for other in others:
            pidfd = processes.open_pidfd(other.pid, other.started)
            if pidfd is not None:
                processes.send(pidfd, signal.SIGTERM)
                deadline = self._clock() + child.patience
                self._leaving.append(Leaving(child.role, other.pid, pidfd, deadline))

    def _take_up_upgrade(self) -> None:
        """Begins the upgrade that was asked for, and says that one was given up when a supervisor died over it."""
        state = read_upgrade(self._home.upgrade_file)
        if state is not None and state.state in ("asked", "running"):
            upgrade = Upgrade(self._home, state, self._engine, self._control, self._clock)
            upgrade.begin()
            self._upgrade = None if upgrade.is_over() else upgrade

    def _go_on_with_upgrade(self) -> None:
        self._leaving = [each for each in self._leaving if not each.has_left(self._clock())]
        if self._upgrade is None:
            return
        leaving = self._upgrade.step(is_leaving=bool(self._leaving))
        if self._upgrade.has_replaced():
            self._write_state()  # before the old engine is told: whoever looks next keeps the new one
            if leaving is not None:
                processes.send(leaving.pidfd, signal.SIGUSR1)
                self._leaving.append(leaving)
            if self._models.pidfd is not None:  # it goes on as what is installed now, under its pid
                processes.send(self._models.pidfd, signal.SIGUSR1)
            self._upgrade.step(is_leaving=bool(self._leaving))
        if self._upgrade.is_over():
            self._upgrade = None

    def _start_due_children(self) -> None:
        moment = self._clock()
        started = False
        for child in self._children:
            if self._upgrade is not None and self._upgrade.stands_in_for(child):
                continue
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
        watched += [each.pidfd for each in self._leaving]
        if self._upgrade is not None:
            watched += self._upgrade.descriptors()
        for pidfd in [*watched, self._guardian_fd]:
            if pidfd is not None:
                poller.register(pidfd, select.POLLIN)
        poller.poll(self._patience())
        taken = self._signals.take()
        if taken & set(_STOP_SIGNALS):
            self._stopping = True
        elif signal.SIGUSR1 in taken and self._upgrade is None:
            renew(self._plan)
        processes.reap()
        for child in self._children:
            if child.pidfd is not None and processes.has_ended(child.pidfd):
                say("supervisor", f"{child.role} (pid {child.state.pid}) ended; starting it again")
                child.ended(self._clock())
                self._write_state()

    def _patience(self) -> float | None:
        """Milliseconds until something is due; None when nothing is."""
        due = [each.deadline for each in self._leaving]
        for child in self._children:
            waits = self._upgrade is not None and self._upgrade.stands_in_for(child)
            if child.start_at is not None and not waits:
                due.append(child.start_at)
        if self._upgrade is not None:
            due.append(self._upgrade.deadline)
        if not self._state_is_written:
            due.append(self._clock() + STATE_RETRY)
        return max(0.0, min(due) - self._clock()) * 1000 if due else None

    def _stop_children(self) -> None:
        say("supervisor", "stopping")
        if self._upgrade is not None:
            self._upgrade.give_up("the node was stopped")
        self._end([*self._leaving, *self._told_to_leave(self._engine, self._control)])
        # Not before the engine has finished: what it has under way may still ask a model.
        self._end(self._told_to_leave(self._models))
        processes.reap()
        for path in (self._home.supervisor_file, self._home.engine_socket, self._home.admin_socket):
            path.unlink(missing_ok=True)

    def _told_to_leave(self, *children: Child) -> list[Leaving]:
        moment = self._clock()
        return [
            Leaving(child.role, child.state.pid, child.pidfd, moment + child.patience)
            for child in children
            if child.pidfd is not None and child.state.pid is not None
        ]

    def _end(self, leaving: list[Leaving]) -> None:
        for each in leaving:
            processes.send(each.pidfd, signal.SIGTERM)
        for each in leaving:
            processes.has_ended(each.pidfd, max(0.0, each.deadline - self._clock()))
            each.has_left(self._clock())

    def _write_state(self) -> None:
        plan = self._plan
        own = ProcessState(os.getpid(), "running", startTicks=processes.start_ticks(os.getpid()))
        guardian = ProcessState(
            self._guardian, "running", startTicks=processes.start_ticks(self._guardian)
        )
        own.startedAt = to_rfc3339(now())
        state = SupervisorState(__version__, plan.home, plan.location, guardian, own)
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
        "modelsDir": str(home.models_run),
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
    descriptors = [plan.admin_fd, plan.metrics_fd]
    if plan.workload_fd is not None:
        config["workloadFd"] = plan.workload_fd
        descriptors.append(plan.workload_fd)
    environment = _without_plan(os.environ)
    environment["VEDETTE_CONTROL_CONFIG"] = json.dumps(config)
    return Child(
        "control",
        processes.command_line(plan.control_command, "control", home.root),
        environment,
        descriptors,
        home.control_log,
        CONTROL_PATIENCE,
    )


def _models_child(plan: Plan, home: Home) -> Child:
    command = plan.models_command or processes.module_command("vedette.models.keeper")
    return Child(
        "models",
        processes.command_line(command, "models", home.root),
        {name: os.environ[name] for name in _MODELS_ENVIRONMENT if name in os.environ},
        [],
        home.models_log,
        MODELS_PATIENCE,
    )


def _without_plan(environment: Mapping[str, str]) -> dict[str, str]:
    own = (PLAN_VARIABLE, GUARDIAN_VARIABLE)
    return {name: value for name, value in environment.items() if name not in own}


def become_guardian(plan: Plan) -> None:
    """Replaces this program by the guardian."""
    say("supervisor", "the guardian died; taking its place")
    _become(plan, "guardian", "vedette.control.supervisor.guardian")


def renew(plan: Plan) -> None:
    """Replaces this program by the supervisor that is installed now; it finds the children and the upgrade to make."""
    say("supervisor", "an upgrade is asked for; beginning with the supervisor itself")
    _become(plan, "supervisor", "vedette.control.supervisor.supervise")


def _become(plan: Plan, role: str, module: str) -> None:
    """Same pid, same descriptors. Signals stay blocked until the next program can take them, so none is lost."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    for descriptor in plan.descriptors():
        os.set_inheritable(descriptor, True)
    command = processes.module_command(module)
    arguments = processes.command_line(command, role, Path(plan.home))
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
