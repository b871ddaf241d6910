"""run/supervisor.json and the plan that guardian and supervisor share.

Owns: the shape of both. Must not: start or watch anything. Readers (status, `vedette down`) may find the file missing
or a moment old; pids in it are checked against their start time before anyone trusts them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vedette.store.atomic import write_atomic

PLAN_VARIABLE = "VEDETTE_SUPERVISOR_PLAN"
GUARDIAN_VARIABLE = "VEDETTE_GUARDIAN_PID"


@dataclass(frozen=True, slots=True)
class PlannedListener:
    """A bound address: one listening descriptor for each engine worker."""

    name: str
    address: str
    scheme: str
    url: str
    fds: list[int]


@dataclass(frozen=True, slots=True)
class Plan:
    """All that guardian and supervisor need, decided once by `vedette up`; carried in the environment, not secret.

    `life_fd` is the read end of a pipe held by a foreground `vedette up`: when that ends, so does the node.
    The commands are the programs started as engine and control, without role and home.
    """

    home: str
    version: str
    location: str
    workers: int
    tls_min_version: str
    listeners: list[PlannedListener]
    engine_fd: int
    admin_fd: int
    metrics_fd: int
    metrics_address: str
    lock_fd: int
    engine_command: list[str]
    control_command: list[str]
    life_fd: int | None = None
    workload_fd: int | None = None
    """None for a node that an older version started: it has no Workload API until it is started again."""
    models_command: list[str] | None = None
    """None: the keeper of models as it is installed."""

    def descriptors(self) -> list[int]:
        """Every descriptor that guardian and supervisor hold."""
        public = [fd for listener in self.listeners for fd in listener.fds]
        optional = [fd for fd in (self.life_fd, self.workload_fd) if fd is not None]
        return [*public, self.engine_fd, self.admin_fd, self.metrics_fd, self.lock_fd, *optional]

    def to_json(self) -> str:
        """The form for the environment."""
        data = asdict(self)
        if self.models_command is None:  # so that a version without models can read it
            del data["models_command"]
        return json.dumps(data)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Reads what `to_json` wrote."""
        data = json.loads(text)
        data["listeners"] = [PlannedListener(**listener) for listener in data["listeners"]]
        return cls(**data)


@dataclass(slots=True)
class ProcessState:
    """One watched process: `state` is starting, running, waiting (before a restart) or stopped; ticks since boot."""

    pid: int | None = None
    state: str = "stopped"
    restarts: int = 0
    startedAt: str | None = None  # noqa: N815 - the wire's spelling
    startTicks: int | None = None  # noqa: N815


@dataclass(slots=True)
class SupervisorState:
    """The content of run/supervisor.json."""

    version: str
    home: str
    location: str
    guardian: ProcessState = field(default_factory=ProcessState)
    supervisor: ProcessState = field(default_factory=ProcessState)
    engine: ProcessState = field(default_factory=ProcessState)
    control: ProcessState = field(default_factory=ProcessState)
    models: ProcessState = field(default_factory=ProcessState)
    listeners: list[dict[str, str]] = field(default_factory=list)
    metrics: dict[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Replaces the file whole."""
        write_atomic(path, json.dumps(asdict(self), indent=1).encode() + b"\n")


def read_state(path: Path) -> SupervisorState | None:
    """The last state written; None when there is none or it cannot be read as one."""
    try:
        data: dict[str, Any] = json.loads(path.read_bytes())
        for name in ("guardian", "supervisor", "engine", "control", "models"):
            data[name] = ProcessState(**data.get(name, {}))  # an older version has no models
        return SupervisorState(**data)
    except (OSError, ValueError, TypeError, KeyError):
        return None
