"""Samples of what a model is asked, as they came from its process: redacted there, and nothing of who asked.

Owns: control/samples, a SQLite file (0600) for each model, how large they become and when each sample goes. What goes
is overwritten in the file; a disk may keep its blocks. Must not: know what is in one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vedette.errors import UnavailableError
from vedette.store.atomic import disk_error
from vedette.store.database import Database

SCHEMA_VERSION: Final = 1
_TABLE: Final = """CREATE TABLE IF NOT EXISTS samples (
    id INTEGER PRIMARY KEY,
    version INTEGER NOT NULL,
    at INTEGER NOT NULL,
    ends INTEGER NOT NULL,
    head TEXT NOT NULL,
    content BLOB NOT NULL)"""
_BATCH: Final = 64
"""Rows that are read, or removed, at a time."""


@dataclass(frozen=True, slots=True)
class KeptSample:
    """One sample. `at`, `ends`: when it came and when it goes, in seconds of Unix time; `head`: its inputs as JSON of
    the Open Inference Protocol, without elements; `content`: their elements, one input after the other.
    """

    version: int
    at: int
    ends: int
    head: str
    content: bytes


@dataclass(frozen=True, slots=True)
class SampleCount:
    """What is kept of a version, in seconds of Unix time and bytes."""

    version: int
    count: int
    bytes: int
    oldest: int
    newest: int


class SampleStore(Database):
    """The samples of one model, usable from all threads of one process."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file. Raises `UnavailableError` store_busy, store_newer, disk_full, disk_failed."""
        super().__init__(path)
        with self._reading():
            # Removed rows are overwritten, and the file becomes smaller with them.
            self._connection.execute("PRAGMA secure_delete=ON")
            if self._pragma("auto_vacuum") != 1:
                self._connection.execute("PRAGMA auto_vacuum=FULL")
                self._connection.execute("VACUUM")
        with self._transaction():
            version = self._pragma("user_version")
            if version > SCHEMA_VERSION:
                message = f"{path.name} has version {version}; this is for {SCHEMA_VERSION}"
                raise UnavailableError("store_newer", message)
            if version < SCHEMA_VERSION:
                self._connection.execute(_TABLE)
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def add(self, samples: Iterable[KeptSample], most: int) -> None:
        """Keeps samples; the oldest go, so that what is kept takes `most` bytes of the disk."""
        with self._transaction():
            self._connection.executemany(
                "INSERT INTO samples (version, at, ends, head, content) VALUES (?, ?, ?, ?, ?)",
                [(it.version, it.at, it.ends, it.head, it.content) for it in samples],
            )
            while self._used() > most and self._remove(
                f"id IN (SELECT id FROM samples ORDER BY id LIMIT {_BATCH if self._many() else 1})"
            ):
                pass
        self._empty_log()

    def expire(self, now: int) -> int:
        """Removes what has been kept as long as it was to be, and says how much."""
        with self._reading():
            query = "SELECT EXISTS (SELECT 1 FROM samples WHERE ends <= ?)"
            (is_due,) = self._connection.execute(query, (now,)).fetchone()
        return self._removed("ends <= ?", now) if is_due else 0

    def remove_version(self, version: int) -> int:
        """Removes what is of a version, and says how much."""
        return self._removed("version = ?", version)

    def remove_all(self) -> int:
        """Removes all, and says how much."""
        return self._removed("1")

    def counts(self) -> list[SampleCount]:
        """What is kept, by version."""
        with self._reading():
            rows = self._connection.execute(
                "SELECT version, count(*), sum(length(head) + length(content)), min(at), max(at) "
                "FROM samples GROUP BY version ORDER BY version"
            )
            return [SampleCount(*row) for row in rows.fetchall()]

    def read(self, since: int = 0, version: int | None = None) -> Iterator[KeptSample]:
        """Samples that came from `since` on, oldest first, a few in memory at a time."""
        last = 0
        while True:
            with self._reading():
                rows = self._connection.execute(
                    "SELECT id, version, at, ends, head, content FROM samples "
                    f"WHERE id > ? AND at >= ? AND version = ifnull(?, version) ORDER BY id LIMIT {_BATCH}",
                    (last, since, version),
                ).fetchall()
            if not rows:
                return
            for last, *fields in rows:  # noqa: B007 - the last one is where to go on
                yield KeptSample(*fields)

    def _many(self) -> bool:
        (count,) = self._connection.execute("SELECT count(*) FROM samples").fetchone()
        return bool(count > 8 * _BATCH)

    def _used(self) -> int:
        pages = self._pragma("page_count") - self._pragma("freelist_count")
        return pages * self._pragma("page_size")

    def _pragma(self, name: str) -> int:
        (value,) = self._connection.execute(f"PRAGMA {name}").fetchone()
        return int(value)

    def _removed(self, condition: str, *values: int) -> int:
        with self._transaction():
            gone = self._remove(condition, *values)
        self._empty_log()
        return gone

    def _remove(self, condition: str, *values: int) -> int:
        removed = self._connection.execute(f"DELETE FROM samples WHERE {condition}", values)
        return removed.rowcount

    def _empty_log(self) -> None:
        """The write-ahead log holds what was written before it was removed."""
        with self._reading():
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


class SampleStores:
    """The samples of all models of a node. Methods may be called from any thread; one process writes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        self._open: dict[str, SampleStore] = {}

    def names(self) -> list[str]:
        """Models of which there is a file."""
        return sorted(each.stem for each in self._folder.glob("*.db"))

    def of(self, name: str) -> SampleStore | None:
        """What is kept of a model; None: nothing was. Raises `UnavailableError`."""
        return self.made(name) if self._path(name).exists() else None

    def made(self, name: str) -> SampleStore:
        """What is kept of a model, made when there is nothing yet. Raises `UnavailableError`."""
        with self._lock:
            if name not in self._open:
                try:
                    self._folder.mkdir(mode=0o700, exist_ok=True)
                except OSError as error:
                    raise disk_error(error, self._folder) from error
                self._open[name] = SampleStore(self._path(name))
            return self._open[name]

    def forget(self, name: str) -> int:
        """Removes a model's file, and says how many samples were in it. Raises `UnavailableError`."""
        with self._lock:
            store = self.of(name)
            if store is None:
                return 0
            gone = store.remove_all()
            store.close()
            del self._open[name]
            try:
                for suffix in ("-wal", "-shm", ""):
                    Path(f"{self._path(name)}{suffix}").unlink(missing_ok=True)
            except OSError as error:
                raise disk_error(error, self._path(name)) from error
            return gone

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.db"
