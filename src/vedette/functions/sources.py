"""Which files of a project a person writes, and when they change.

Owns: the folders that builds and tools make, which are never sources. Must not: read a file.

Changes are found by looking at every source's time and size. A project has tens of sources, so a
look takes a fraction of a millisecond; that needs no dependency, and works on every file system,
where notification does not (network mounts, overlay file systems, containers).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

MADE: Final = frozenset(
    {".git", ".vedette", ".venv", "__pycache__", "dist", "node_modules", "target", "venv"}
)
POLL: Final = 0.1  # seconds between two looks
SETTLE: Final = 0.05  # seconds without a change before one counts: editors write in steps

State = dict[Path, tuple[int, int]]


def sources(path: Path) -> Iterator[Path]:
    """The sources of a project folder; a file is its own."""
    if path.is_file():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(set(folders) - MADE)
        for name in sorted(names):
            if not _is_made(name):
                yield Path(folder, name)


def state_of(path: Path) -> State:
    """Time (ns) and size of each source. What vanishes meanwhile is left out."""
    state: State = {}
    for source in sources(path):
        try:
            told = source.stat()
        except OSError:
            continue
        state[source] = (told.st_mtime_ns, told.st_size)
    return state


def wait_for_change(
    path: Path, before: State, sleep: Callable[[float], None] = time.sleep
) -> State:
    """Returns the state once it differs from `before` and stays as it is for `SETTLE` seconds."""
    while (now := state_of(path)) == before:
        sleep(POLL)
    while True:
        sleep(SETTLE)
        later = state_of(path)
        if later == now:
            return now
        now = later


def _is_made(name: str) -> bool:
    return name.endswith((".wasm", ".pyc", ".swp", "~")) or name.startswith(".#")
