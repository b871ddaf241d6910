"""Which bytes of the spool are in the audit log, in which order, and the heads that were signed.

Owns: control/audit.db, SQLite with a write-ahead log and synchronous=FULL. Lines stay in their segments: here are
ranges of bytes, hashes and signatures. Must not: know what the hashes mean; `observability.audit` does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vedette.errors import ConfigError, UnavailableError
from vedette.store.database import Database

SCHEMA_VERSION: Final = 1
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)",
    """CREATE TABLE IF NOT EXISTS segments (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        folder TEXT NOT NULL,
        name TEXT NOT NULL,
        fingerprint BLOB NOT NULL,
        done INTEGER NOT NULL,
        removing INTEGER)""",
    """CREATE TABLE IF NOT EXISTS batches (
        first INTEGER PRIMARY KEY,
        count INTEGER NOT NULL,
        segment INTEGER,
        start INTEGER NOT NULL,
        stop INTEGER NOT NULL,
        is_raw INTEGER NOT NULL,
        nodes BLOB NOT NULL,
        checks BLOB NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS gaps ON batches (first) WHERE segment IS NULL",
    "CREATE INDEX IF NOT EXISTS batches_of ON batches (segment)",
    """CREATE TABLE IF NOT EXISTS heads (
        sequence INTEGER PRIMARY KEY,
        size INTEGER NOT NULL,
        root BLOB NOT NULL,
        time TEXT NOT NULL,
        previous BLOB,
        gaps BLOB,
        signature BLOB NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS heads_at ON heads (size)",
    "CREATE TABLE IF NOT EXISTS tree (id INTEGER PRIMARY KEY CHECK (id = 1), size INTEGER, nodes BLOB)",
)
_BATCH: Final = "first, count, segment, start, stop, is_raw, nodes, checks"
_HEAD: Final = "sequence, size, root, time, previous, gaps, signature"
_NONE: Final = type(None)


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """A file of the spool. `done` bytes of it are in the log; `fingerprint` tells it from another of that name.

    `removing` is its inode once it is being removed for want of room.
    """

    id: int
    folder: str
    name: str
    fingerprint: bytes
    done: int
    removing: int | None


@dataclass(frozen=True, slots=True)
class BatchRow:
    """Records `first` to `first + count`: the bytes `start` to `stop` of a segment, or, without one, a gap.

    `nodes` are hashes of subtrees, `checks` the first eight bytes of each leaf's hash. `is_raw`: one record that is no
    line, the bytes as they are.
    """

    first: int
    count: int
    segment: int | None
    start: int
    stop: int
    is_raw: bool
    nodes: bytes
    checks: bytes


@dataclass(frozen=True, slots=True)
class HeadRow:
    """A signed head."""

    sequence: int
    size: int
    root: bytes
    time: str
    previous: bytes | None
    gaps: bytes | None
    signature: bytes


class AuditStore(Database):
    """The index of the audit log. Usable from all threads of one process; one at a time is in a transaction."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Opens or creates the database; read-only it must be there.

        Raises `ConfigError` audit_unreadable, `UnavailableError` store_newer, store_busy, disk_full, disk_failed.
        """
        if read_only and not path.is_file():
            raise ConfigError("audit_unreadable", f"there is no {path}")
        super().__init__(path, read_only=read_only)
        with self._reading():
            if not read_only:
                self._prepare()
            self._require_version()

    def transaction(self) -> AbstractContextManager[None]:
        """What is written inside is on the disk whole when this ends, or not at all when it raises."""
        return self._transaction()

    def reading(self) -> AbstractContextManager[None]:
        """What is read inside is of one moment."""
        return self._transaction("BEGIN")

    # --- the tree --------------------------------------------------------------------------------------------------

    def tree(self) -> tuple[int, bytes]:
        """How many records are in the log, and the hashes of the subtrees they make up."""
        row = self._one("SELECT size, nodes FROM tree")
        return (0, b"") if row is None else (int(row[0]), bytes(row[1]))

    def set_tree(self, size: int, nodes: bytes) -> None:
        """Notes how far the log is."""
        self._write("INSERT OR REPLACE INTO tree VALUES (1, ?, ?)", size, nodes)

    # --- segments --------------------------------------------------------------------------------------------------

    def segments(self) -> list[SegmentRow]:
        """Every segment of which something is in the log, in the order in which they were met."""
        rows = self._all(
            "SELECT id, folder, name, fingerprint, done, removing FROM segments ORDER BY id"
        )
        return [_segment(row) for row in rows]

    def add_segment(self, folder: str, name: str, fingerprint: bytes) -> SegmentRow:
        """A segment that is met for the first time."""
        cursor = self._write(
            "INSERT INTO segments (folder, name, fingerprint, done) VALUES (?, ?, ?, 0)",
            folder,
            name,
            fingerprint,
        )
        assert cursor.lastrowid is not None
        return SegmentRow(cursor.lastrowid, folder, name, fingerprint, 0, None)

    def set_done(self, segment: int, done: int) -> None:
        """Notes how many bytes of a segment are in the log."""
        self._write("UPDATE segments SET done = ? WHERE id = ?", done, segment)

    def set_removing(self, segment: int, inode: int) -> None:
        """Notes that a segment's file is to be removed."""
        self._write("UPDATE segments SET removing = ? WHERE id = ?", inode, segment)

    def forget_segment(self, segment: int) -> None:
        """Forgets a segment whose records are gaps by now."""
        self._write("DELETE FROM segments WHERE id = ?", segment)

    # --- batches ---------------------------------------------------------------------------------------------------

    def add_batch(self, batch: BatchRow) -> None:
        """Adds records to the log."""
        self._write(
            f"INSERT INTO batches ({_BATCH}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            batch.first,
            batch.count,
            batch.segment,
            batch.start,
            batch.stop,
            batch.is_raw,
            batch.nodes,
            batch.checks,
        )

    def batches(self, first: int = 0) -> Iterator[BatchRow]:
        """The batches from record `first` on, in order. Read within `reading`."""
        rows = self._connection.execute(
            f"SELECT {_BATCH} FROM batches WHERE first >= ? ORDER BY first", (first,)
        )
        return (_batch(row) for row in rows)

    def batches_of(self, segment: int) -> list[BatchRow]:
        """The batches of one segment, in order."""
        rows = self._all(f"SELECT {_BATCH} FROM batches WHERE segment = ? ORDER BY first", segment)
        return [_batch(row) for row in rows]

    def gaps(self) -> list[BatchRow]:
        """The batches whose records were removed, in order."""
        rows = self._all(f"SELECT {_BATCH} FROM batches WHERE segment IS NULL ORDER BY first")
        return [_batch(row) for row in rows]

    def remove_batches(self, firsts: Iterable[int]) -> None:
        """Forgets the batches that begin there; others take their place."""
        self._connection.executemany(
            "DELETE FROM batches WHERE first = ?", [(one,) for one in firsts]
        )

    # --- heads -----------------------------------------------------------------------------------------------------

    def add_head(self, head: HeadRow) -> None:
        """Adds a signed head."""
        self._write(
            f"INSERT INTO heads ({_HEAD}) VALUES (?, ?, ?, ?, ?, ?, ?)",
            head.sequence,
            head.size,
            head.root,
            head.time,
            head.previous,
            head.gaps,
            head.signature,
        )

    def newest_head(self) -> HeadRow | None:
        """The head that was signed last."""
        row = self._one(f"SELECT {_HEAD} FROM heads ORDER BY sequence DESC LIMIT 1")
        return None if row is None else _head(row)

    def heads(self, size: int = 0) -> Iterator[HeadRow]:
        """The heads of at least `size` records, in order. Read within `reading`."""
        rows = self._connection.execute(
            f"SELECT {_HEAD} FROM heads WHERE size >= ? ORDER BY sequence", (size,)
        )
        return (_head(row) for row in rows)

    def last_head_before(self, time: str) -> HeadRow | None:
        """The last head that was signed before `time` (RFC 3339, microseconds, Z)."""
        row = self._one(
            f"SELECT {_HEAD} FROM heads WHERE time < ? ORDER BY sequence DESC LIMIT 1", time
        )
        return None if row is None else _head(row)

    def forget_heads(self, first: int, end: int) -> None:
        """Forgets the heads that end between these two records: what they say cannot be checked any more."""
        self._write("DELETE FROM heads WHERE size > ? AND size < ?", first, end)

    # --- inside ----------------------------------------------------------------------------------------------------

    def _write(self, statement: str, *values: object) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        with self._reading():
            row: tuple[Any, ...] | None = self._connection.execute(query, values).fetchone()
        return row

    def _all(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._reading():
            return self._connection.execute(query, values).fetchall()

    def _prepare(self) -> None:
        with self.transaction():
            for statement in _TABLES:
                self._connection.execute(statement)
            if self._one("SELECT version FROM schema_version") is None:
                self._write("INSERT INTO schema_version VALUES (?)", SCHEMA_VERSION)

    def _require_version(self) -> None:
        try:
            row = self._connection.execute("SELECT version FROM schema_version").fetchone()
        except sqlite3.DatabaseError:
            self._connection.close()
            raise ConfigError("audit_unreadable", f"{self._path} holds no audit log") from None
        if row is None or row[0] > SCHEMA_VERSION:
            self._connection.close()
            raise UnavailableError("store_newer", f"{self._path.name} is of a newer version")


def _segment(row: tuple[Any, ...]) -> SegmentRow:
    _require(row, (int, str, str, bytes, int, (int, _NONE)))
    return SegmentRow(*row)


def _batch(row: tuple[Any, ...]) -> BatchRow:
    _require(row, (int, int, (int, _NONE), int, int, int, bytes, bytes))
    first, count, segment, start, stop, is_raw, nodes, checks = row
    return BatchRow(first, count, segment, start, stop, bool(is_raw), nodes, checks)


def _head(row: tuple[Any, ...]) -> HeadRow:
    _require(row, (int, int, bytes, str, (bytes, _NONE), (bytes, _NONE), bytes))
    return HeadRow(*row)


def _require(row: tuple[Any, ...], types: tuple[Any, ...]) -> None:
    """A column of SQLite holds anything; what is not of its type is of another hand."""
    if not all(isinstance(value, kind) for value, kind in zip(row, types, strict=True)):
        raise ConfigError("audit_unreadable", "the index of the audit log was changed")
