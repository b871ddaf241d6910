"""How the processes of models are: run/models/state.json.

Owns: its shape, writing it (the keeper) and reading it (control). Must not: decide what a state is; `keeper_worker`
does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

from vedette.store.atomic import write_json

State = Literal["starting", "ready", "idle", "failed", "leaving"]
_LIMIT = 16 << 20


class WorkerError(TypedDict):
    """Why a worker is not ready: a code of the worker's, or `worker_failed`, and a sentence."""

    code: str
    message: str


class WorkerState(TypedDict):
    """One worker. `since`: of its state, RFC 3339; `error` is the last one, until it is ready again; `loadMillis`: how
    long it took to load its model; `memoryBytes`: resident, in whole MiB.
    """

    name: str
    version: int
    state: State
    pid: int | None
    restarts: int
    since: str
    error: WorkerError | None
    loadMillis: float | None
    memoryBytes: int | None


def write_states(path: Path, states: Mapping[str, WorkerState]) -> None:
    """Replaces the file whole. Raises `UnavailableError` when the disk refuses."""
    write_json(path, {"models": states})


def read_states(path: Path) -> dict[str, WorkerState]:
    """What the keeper last wrote, by worker; empty when there is nothing that could be read."""
    try:
        with path.open("rb") as file:
            models: Any = json.loads(file.read(_LIMIT))["models"]
            return {str(worker): row for worker, row in models.items() if "state" in row}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def memory_of(pid: int) -> int | None:
    """Bytes that a process has in memory, rounded down to MiB so that a breath is no news; None when it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20 << 20
