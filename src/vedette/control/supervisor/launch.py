"""Starting and stopping a whole node, for `vedette up` and `vedette down`.

Owns: the lock on a home folder, the order of a start (lock, leftovers, sockets, bootstrap, guardian, ready), and that
a stop leaves no process behind. Must not: hold a key; `control.bootstrap` makes them, in a short process of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vedette import __version__, processes
from vedette.control.supervisor import remembered, sockets
from vedette.control.supervisor.state import (
    PLAN_VARIABLE,
    Plan,
    PlannedListener,
    SupervisorState,
    read_state,
)
from vedette.engine.client import EngineClient, EngineStatus, UnixHTTPConnection
from vedette.errors import UnavailableError, VedetteError, error_from_dict
from vedette.store.home import Home

READY_PATIENCE = 60.0
STOP_PATIENCE = 30.0
_FAILED_STARTS = 4


def _engine_command() -> list[str]:
    return processes.module_command("vedette.engine.process")


def _control_command() -> list[str]:
    return processes.module_command("vedette.control.process")


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """What `vedette up` was asked for; None: as last time, else the default. `foreground`: the node ends
    when the calling process does.
    """

    listen: Sequence[str] | None = None
    metrics: str | None = None
    location: str | None = None
    name: str | None = None
    site: str | None = None
    key_encryption_key: Path | None = None
    ca_key: str | None = None
    workers: int | None = None
    tls_min_version: str | None = None
    foreground: bool = True
    engine_command: Sequence[str] = field(default_factory=_engine_command)
    control_command: Sequence[str] = field(default_factory=_control_command)
    models_command: Sequence[str] | None = None
    """None: the keeper of models as it is installed."""

    def recalled(self, home: Home) -> tuple[dict[str, Any], dict[str, Any]]:
        """The settings to start with, and those of them that nobody said this time."""
        said = {
            "listen": list(self.listen) if self.listen else None,
            "metrics": self.metrics,
            "workers": self.workers,
            "tlsMinVersion": self.tls_min_version,
        }
        return remembered.recall(home, said)


@dataclass(slots=True)
class Launched:
    """A started node. `life` is held open by a foreground caller; when it closes, the node ends."""

    guardian: int
    metrics_address: str
    life: int | None


def launch(home: Home, options: LaunchOptions) -> Launched:
    """Starts a node and returns at once; `wait_until_ready` waits for it to serve.

    Raises `UnavailableError` node_running, address_in_use; `ConfigError` address_invalid, socket_path_too_long.
    """
    settings, _ = options.recalled(home)
    addresses = [
        sockets.parse_address(text) for text in settings.get("listen", [sockets.DEFAULT_LISTEN])
    ]
    if settings.get("metrics"):
        sockets.parse_metrics_address(settings["metrics"])  # before anything is made
    workers = settings.get("workers") or os.cpu_count() or 1
    home.require_socket_paths()
    home.create()
    with contextlib.ExitStack() as opened:
        lock = opened.enter_context(_locked(home))
        end_leftovers(home)
        listeners = sockets.bind_listeners(addresses, workers)
        for listener in listeners:
            for bound in listener.sockets:
                opened.enter_context(bound)
        _bootstrap(home, options, [address.host for address in addresses])
        metrics = opened.enter_context(sockets.bind_metrics(settings.get("metrics")))
        engine = opened.enter_context(sockets.bind_unix(home.engine_socket))
        admin = opened.enter_context(sockets.bind_unix(home.admin_socket))
        workload = opened.enter_context(sockets.bind_unix(home.workload_socket, 0o666))
        life = _life_pipe(opened) if options.foreground else None
        plan = Plan(
            home=str(home.root),
            version=__version__,
            location=_location(home),
            workers=workers,
            tls_min_version=settings.get("tlsMinVersion", "1.3"),
            listeners=[_planned(listener) for listener in listeners],
            engine_fd=engine.fileno(),
            admin_fd=admin.fileno(),
            metrics_fd=metrics.fileno(),
            metrics_address=sockets.shown_address(metrics),
            lock_fd=lock,
            engine_command=list(options.engine_command),
            control_command=list(options.control_command),
            life_fd=life[0] if life else None,
            workload_fd=workload.fileno(),
            models_command=list(options.models_command) if options.models_command else None,
        )
        remembered.remember(home, settings)
        return Launched(
            _start_guardian(home, plan), plan.metrics_address, life[1] if life else None
        )


@contextlib.contextmanager
def _locked(home: Home) -> Iterator[int]:
    """The descriptor of the node's lock. Guardian and supervisor inherit it: it is free when both have ended."""
    descriptor = os.open(home.supervisor_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise UnavailableError(
            "node_running", f"a node is already running in {home.root}"
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _life_pipe(opened: contextlib.ExitStack) -> tuple[int, int]:
    reader, writer = os.pipe()
    opened.callback(os.close, reader)
    return reader, writer


def _planned(listener: sockets.Listener) -> PlannedListener:
    numbers = [bound.fileno() for bound in listener.sockets]
    return PlannedListener(listener.name, listener.address, listener.scheme, listener.url, numbers)


def _location(home: Home) -> str:
    return str(json.loads(home.node_file.read_bytes())["location"])


def _bootstrap(home: Home, options: LaunchOptions, hosts: Sequence[str]) -> None:
    """Keys, certificates and the first snapshot, in a process that ends before the supervisor begins."""
    command = [*processes.module_command("vedette.control.bootstrap"), "--home", str(home.root)]
    said = {
        "--name": options.name,
        "--site": options.site,
        "--location": options.location,
        "--key-encryption-key": options.key_encryption_key,
        "--ca-key": options.ca_key,
    }
    for flag, value in said.items():
        command += [flag, str(value)] if value else []
    for host in hosts:
        command += ["--host", host]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    with contextlib.suppress(ValueError, KeyError, IndexError):
        raise error_from_dict(json.loads(done.stderr.splitlines()[-1]))
    raise UnavailableError("node_start_failed", f"the node's keys could not be made: {done.stderr}")


def _start_guardian(home: Home, plan: Plan) -> int:
    arguments = processes.command_line(
        processes.module_command("vedette.control.supervisor.guardian"), "guardian", home.root
    )
    environment = {**os.environ, PLAN_VARIABLE: plan.to_json()}
    return processes.spawn(arguments, environment, plan.descriptors(), home.supervisor_log)


def wait_until_ready(
    home: Home, patience: float = READY_PATIENCE, on_wait: Callable[[str], None] | None = None
) -> EngineStatus:
    """Returns when the engine serves a snapshot and control answers.

    Raises `UnavailableError` node_start_failed with what the failing process said last.
    """
    deadline = time.monotonic() + patience
    waiting = "the engine"
    while time.monotonic() < deadline:
        _require_alive(home)
        status = _engine_status(home)
        if status is None or status["error"] or not status["digest"]:
            waiting = "the engine" if status is None else f"a snapshot ({status['error']})"
        elif not _control_answers(home):
            waiting = "control"
        else:
            return status
        if on_wait:
            on_wait(waiting)
        time.sleep(0.02)
    raise UnavailableError(
        "node_start_failed", f"still waiting for {waiting} after {patience:.0f} s"
    )


def _require_alive(home: Home) -> None:
    state = read_state(home.supervisor_file)
    if state is None:
        return
    for role, process, log in (
        ("the engine", state.engine, home.engine_log),
        ("control", state.control, home.control_log),
    ):
        if process.restarts >= _FAILED_STARTS:
            raise UnavailableError("node_start_failed", f"{role} does not start: {last_words(log)}")


def last_words(log: Path, lines: int = 3) -> str:
    """The last lines of a log, for an error message."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "it said nothing"
    return " / ".join(text.strip().splitlines()[-lines:]) or "it said nothing"


def _engine_status(home: Home) -> EngineStatus | None:
    with contextlib.suppress(VedetteError):
        return EngineClient(home.engine_socket, timeout=2.0).status()
    return None


def _control_answers(home: Home) -> bool:
    connection = UnixHTTPConnection(home.admin_socket, 2.0)
    try:
        connection.request("GET", "/v1/status")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def is_running(home: Home) -> bool:
    """Whether a guardian or a supervisor holds the node's lock."""
    try:
        descriptor = os.open(home.supervisor_lock, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def stop(home: Home, patience: float = STOP_PATIENCE) -> bool:
    """Stops the node and everything left of it; returns when nothing is left. False when there was nothing.

    The engine finishes the requests it has (at most 10 s).
    """
    found = {role: processes.find(home.root, role) for role in processes.ROLES}
    everything = [process.pid for role in processes.ROLES for process in found[role]]
    if not everything:
        return False
    leaders = found["guardian"] or found["supervisor"]
    processes.end_all([process.pid for process in leaders], patience)
    end_leftovers(home)
    return True


def end_leftovers(home: Home) -> None:
    """Ends what a killed supervisor and guardian left running, and removes the files that say they run."""
    for role in processes.ROLES:
        processes.end_all([process.pid for process in processes.find(home.root, role)], 12.0)
    for path in (
        home.supervisor_file,
        home.engine_socket,
        home.admin_socket,
        home.workload_socket,
        home.models_state,
    ):
        path.unlink(missing_ok=True)


def read_node_state(home: Home) -> SupervisorState:
    """What the supervisor last wrote. Raises `UnavailableError` node_not_running."""
    state = read_state(home.supervisor_file)
    if state is None or not is_running(home):
        raise not_running(home)
    return state


def require_node(home: Home) -> None:
    """Raises `UnavailableError` node_not_running where there never was a node."""
    if not home.node_file.exists():
        raise UnavailableError(
            "node_not_running",
            f"there is no node at {home.root}",
            "Name the folder of one with --home or VEDETTE_HOME; `vedette up --home FOLDER` makes one.",
        )


def not_running(home: Home) -> UnavailableError:
    """The error of every command that needs a node where there is none."""
    return UnavailableError(
        "node_not_running",
        f"the node at {home.root} is not running",
        f"Start it with: vedette up --home {home.root}",
    )
