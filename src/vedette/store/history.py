"""What was active when, and by whose hand: the truth about the node's desired state.

Owns: control/node.db, SQLite with a write-ahead log and synchronous=FULL, so that what `record`
returned survives a power cut. The files in engine/ follow it (`activation`). Must not: know what a
snapshot means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from vedette.clock import from_rfc3339, now, to_rfc3339
from vedette.errors import ConfigError, UnavailableError
from vedette.store.database import Database

SCHEMA_VERSION: Final = 1
_TABLES: Final = (
    "CREATE TABLE schema_version (version INTEGER NOT NULL)",
    "CREATE TABLE snapshots (digest TEXT PRIMARY KEY, envelope BLOB NOT NULL)",
    """CREATE TABLE activations (
        generation INTEGER PRIMARY KEY AUTOINCREMENT,
        digest TEXT NOT NULL,
        action TEXT NOT NULL,
        actor TEXT NOT NULL,
        activated_at TEXT NOT NULL)""",
    f"INSERT INTO schema_version VALUES ({SCHEMA_VERSION})",
)
# Added later; a node of an older version leaves it alone, so the version stays.
_APPLIED: Final = """CREATE TABLE IF NOT EXISTS applied (
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        owner TEXT NOT NULL,
        file TEXT NOT NULL,
        PRIMARY KEY (kind, name))"""
_BROUGHT: Final = """CREATE TABLE IF NOT EXISTS brought (
        function TEXT PRIMARY KEY,
        component TEXT NOT NULL,
        generation INTEGER NOT NULL)"""
FEED: Final = "feed "
"""Actions that begin so are of what a feed brought, decided by nobody."""
_DECIDED: Final = f"action NOT LIKE '{FEED}%'"
_COLUMNS: Final = "generation, digest, action, actor, activated_at"


@dataclass(frozen=True, slots=True)
class Entry:
    """One activation. `generation` counts up by one; the same digest can be active more than once."""

    generation: int
    digest: str
    action: str
    actor: str
    activated_at: datetime


@dataclass(frozen=True, slots=True)
class Applied:
    """An object of the snapshot that belongs to a manifest: `owner` is the manifest's kind and name,
    such as `Route/shop`, and `file` where it stood.
    """

    kind: str
    name: str
    owner: str
    file: str


class History(Database):
    """The activations of a node, usable from all threads of one process."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the database. Raises `UnavailableError` store_busy, store_newer,
        disk_full, disk_failed.
        """
        super().__init__(path)
        self._prepare()

    def record(self, digest: str, action: str, actor: str, envelope: bytes) -> int:
        """Makes `digest` the active snapshot and returns its generation, once that is on the disk.

        What a feed brought takes the place of what one brought right before it: a feed that changes
        each minute must not push out what people did. Raises `UnavailableError`; the history is then unchanged.
        """
        with self._transaction():
            self._connection.execute(
                "INSERT INTO snapshots VALUES (?, ?) "
                "ON CONFLICT (digest) DO UPDATE SET envelope = excluded.envelope",
                (digest, envelope),
            )
            if action.startswith(FEED):
                self._connection.execute(
                    "DELETE FROM activations WHERE generation = "
                    f"(SELECT max(generation) FROM activations) AND NOT ({_DECIDED})"
                )
            cursor = self._connection.execute(
                "INSERT INTO activations (digest, action, actor, activated_at) VALUES (?, ?, ?, ?)",
                (digest, action, actor, to_rfc3339(now(), microseconds=True)),
            )
            generation = cursor.lastrowid
        assert generation is not None
        return generation

    def active(self) -> Entry | None:
        """The newest activation; None on a node that never had one."""
        entries = self.entries(limit=1)
        return entries[0] if entries else None

    def previous(self) -> Entry | None:
        """The newest activation of another snapshot than the active one that can still be
        activated. What feeds brought is passed over: the last decision is what is gone back on.
        """
        newest = "(SELECT digest FROM activations WHERE {} ORDER BY generation DESC LIMIT 1)"
        entries = self._select(
            f"digest NOT IN ({newest.format('TRUE')}, {newest.format(_DECIDED)}) "
            f"AND digest IN (SELECT digest FROM snapshots) AND {_DECIDED}",
            limit=1,
        )
        return entries[0] if entries else None

    def entries(self, limit: int = 50) -> list[Entry]:
        """The newest activations first."""
        return self._select("TRUE", limit)

    def entry_of(self, digest: str) -> Entry | None:
        """The newest activation of that snapshot."""
        entries = self._select("digest = ?", 1, digest)
        return entries[0] if entries else None

    def envelope(self, digest: str) -> bytes:
        """The signed snapshot. Raises `ConfigError` snapshot_unknown, also when it was collected
        long ago.
        """
        with self._reading():
            row = self._connection.execute(
                "SELECT envelope FROM snapshots WHERE digest = ?", (digest,)
            ).fetchone()
        if row is None:
            raise ConfigError("snapshot_unknown", f"there is no snapshot {digest} in the history")
        return bytes(row[0])

    def recent_digests(self, generations: int) -> frozenset[str]:
        """The digests of the last so many generations, those of feeds not counted; the active one is
        always among them.
        """
        decided = self._select(_DECIDED, max(generations, 1))
        oldest = decided[-1].generation if decided else 0
        entries = self._select("generation >= ?", -1, oldest)
        return frozenset(entry.digest for entry in entries)

    def forget_envelopes(self, keep: frozenset[str]) -> int:
        """Drops the envelopes of snapshots not in `keep` and returns how many; their entries stay."""
        with self._transaction():
            known = self._connection.execute("SELECT digest FROM snapshots").fetchall()
            gone = [(digest,) for (digest,) in known if digest not in keep]
            self._connection.executemany("DELETE FROM snapshots WHERE digest = ?", gone)
        return len(gone)

    def applied(self) -> list[Applied]:
        """What belongs to manifests, by kind and name."""
        with self._reading():
            rows = self._connection.execute(
                "SELECT kind, name, owner, file FROM applied ORDER BY kind, name"
            ).fetchall()
        return [Applied(*row) for row in rows]

    def set_applied(self, rows: Iterable[Applied]) -> None:
        """Replaces what belongs to manifests. Raises `UnavailableError`."""
        values = [(row.kind, row.name, row.owner, row.file) for row in rows]
        with self._transaction():
            self._connection.execute("DELETE FROM applied")
            self._connection.executemany("INSERT INTO applied VALUES (?, ?, ?, ?)", values)

    def note_components(self, generation: int, components: Mapping[str, str]) -> None:
        """Keeps that `generation` brought those `components`, by function, that were others before, and forgets
        functions that are gone. Raises `UnavailableError`.
        """
        with self._reading():
            rows = self._connection.execute("SELECT function, component FROM brought").fetchall()
        before = dict(rows)
        gone = [(name,) for name in before if name not in components]
        other = [
            (name, component, generation)
            for name, component in components.items()
            if before.get(name) != component
        ]
        if gone or other:
            with self._transaction():
                self._connection.executemany("DELETE FROM brought WHERE function = ?", gone)
                self._connection.executemany(
                    "INSERT INTO brought VALUES (?, ?, ?) ON CONFLICT (function) DO UPDATE SET "
                    "component = excluded.component, generation = excluded.generation "
                    "WHERE excluded.generation > brought.generation",
                    other,
                )

    def brought_by(self, function: str, component: str) -> int | None:
        """The generation that brought this component of a function, if it still has it."""
        with self._reading():
            row = self._connection.execute(
                "SELECT generation FROM brought WHERE function = ? AND component = ?",
                (function, component),
            ).fetchone()
        return None if row is None else int(row[0])

    def _select(self, condition: str, limit: int, *values: str | int) -> list[Entry]:
        query = (
            f"SELECT {_COLUMNS} FROM activations WHERE {condition} ORDER BY generation DESC LIMIT ?"
        )
        with self._reading():
            rows = self._connection.execute(query, (*values, limit)).fetchall()
        return [
            Entry(generation, digest, action, actor, from_rfc3339(activated_at))
            for generation, digest, action, actor, activated_at in rows
        ]

    def _prepare(self) -> None:
        with self._transaction():
            tables = self._connection.execute(
                "SELECT name FROM sqlite_master WHERE name = 'schema_version'"
            ).fetchall()
            if not tables:
                for statement in _TABLES:
                    self._connection.execute(statement)
            self._connection.execute(_APPLIED)
            self._connection.execute(_BROUGHT)
            (version,) = self._connection.execute("SELECT version FROM schema_version").fetchone()
        if version > SCHEMA_VERSION:
            self._connection.close()
            raise UnavailableError(
                "store_newer", f"node.db has version {version}; this is for {SCHEMA_VERSION}"
            )
