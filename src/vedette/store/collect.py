"""Garbage: snapshots, blobs and machine code that no recent generation needs.

Owns: deciding what may go and removing it. The order makes a crash harmless: whatever is removed
was already unreachable from the history. Must not: remove what is young, because a deploy uploads
its blob before its snapshot names it.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vedette.ids import digest_hex
from vedette.store.atomic import TEMPORARY_SUFFIX
from vedette.store.blobs import BlobStore
from vedette.store.history import History
from vedette.store.home import Home
from vedette.store.snapshots import SnapshotStore

KEPT_GENERATIONS: Final = 20
GRACE_SECONDS: Final = 3_600.0


@dataclass(frozen=True, slots=True)
class Collected:
    """How much was removed."""

    snapshots: int
    blobs: int
    compiled: int


def collect_garbage(
    home: Home,
    history: History,
    blobs_of: Callable[[bytes], Iterable[str]],
    *,
    engine_key: str | None = None,
    besides: Iterable[str] = (),
    keep: int = KEPT_GENERATIONS,
    grace_seconds: float = GRACE_SECONDS,
) -> Collected:
    """Removes what the last `keep` generations do not need and that is older than `grace_seconds`.

    `blobs_of` gives the digests that an envelope refers to; if it raises, nothing is removed. `besides`: digests
    that something else than a generation needs.
    Machine code for other engines than `engine_key` goes whole when a key is given. Never touches
    what the active snapshot needs.
    """
    kept = history.recent_digests(keep)
    needed = {blob for digest in kept for blob in blobs_of(history.envelope(digest))}
    needed.update(besides)
    oldest = time.time() - grace_seconds
    history.forget_envelopes(kept)
    return Collected(
        snapshots=_collect_snapshots(home, kept, oldest),
        blobs=_collect_blobs(home, needed, oldest),
        compiled=_collect_compiled(home, needed, engine_key, oldest),
    )


def _collect_snapshots(home: Home, kept: frozenset[str], oldest: float) -> int:
    store = SnapshotStore(home.snapshots)
    gone = [each for each in store.digests() if each not in kept and _old(store.path(each), oldest)]
    for digest in gone:
        store.remove(digest)
    _remove_leftovers(home.snapshots, oldest)
    return len(gone)


def _collect_blobs(home: Home, needed: set[str], oldest: float) -> int:
    store = BlobStore(home.blobs)
    gone = [
        each for each in store.digests() if each not in needed and _old(store.path(each), oldest)
    ]
    for digest in gone:
        store.remove(digest)
    _remove_leftovers(home.blobs, oldest)
    return len(gone)


def _collect_compiled(home: Home, needed: set[str], engine_key: str | None, oldest: float) -> int:
    made_of = {digest_hex(digest) for digest in needed}
    removed = 0
    for folder in _folders(home.compiled):
        files = [path for path in folder.glob("[!.]*") if _old(path, oldest)]
        if engine_key is not None and folder.name != engine_key:
            removed += len(list(folder.glob("[!.]*")))
            shutil.rmtree(folder, ignore_errors=True)
            continue
        for path in files:
            if re.split(r"[-.]", path.name)[0] not in made_of:
                path.unlink(missing_ok=True)
                removed += 1
        _remove_leftovers(folder, oldest)
    return removed


def _folders(parent: Path) -> Iterator[Path]:
    with os.scandir(parent) as entries:
        yield from [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]


def _remove_leftovers(folder: Path, oldest: float) -> None:
    """Temporary files of writers that were killed."""
    for path in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        if _old(path, oldest):
            path.unlink(missing_ok=True)


def _old(path: Path, oldest: float) -> bool:
    try:
        return path.stat().st_mtime < oldest
    except FileNotFoundError:
        return False
