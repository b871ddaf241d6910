"""What the issuer of identities must not forget: workload entries, bundles of other trust domains, revoked serials.

Owns: control/identity.db. Must not: know what an entry or a bundle means, or hold a key.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from vedette.clock import from_rfc3339, to_rfc3339
from vedette.errors import UnavailableError
from vedette.store.database import Database

SCHEMA_VERSION: Final = 1
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS workloads (name TEXT PRIMARY KEY, definition TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS bundles (trust_domain TEXT PRIMARY KEY, document BLOB NOT NULL)",
    """CREATE TABLE IF NOT EXISTS revoked (
        serial TEXT PRIMARY KEY,
        revoked_at TEXT NOT NULL,
        ends_at TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS counters (
        name TEXT PRIMARY KEY,
        number INTEGER NOT NULL,
        content TEXT NOT NULL)""",
)


@dataclass(frozen=True, slots=True)
class RevokedSerial:
    """A certificate that counts no more; after `ends_at` it would not anyway."""

    serial: int
    revoked_at: datetime
    ends_at: datetime


class IdentityStore(Database):
    """The issuer's tables, usable from all threads of one process."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the database. Raises `UnavailableError` store_busy, store_newer, disk_full, disk_failed."""
        super().__init__(path)
        with self._transaction():
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise UnavailableError(
                    "store_newer", f"{path.name} has version {version}; this is for 1"
                )
            # Else nothing is written: a full disk must not keep control from starting.
            if version < SCHEMA_VERSION:
                for statement in _TABLES:
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def workloads(self) -> dict[str, str]:
        """The definition of each entry (JSON), by name."""
        with self._reading():
            rows = self._connection.execute("SELECT name, definition FROM workloads ORDER BY name")
            return dict(rows.fetchall())

    def put_workload(self, name: str, definition: str) -> None:
        """Keeps an entry, in the place of what had that name; on the disk when it returns."""
        with self._transaction():
            self._connection.execute(
                "INSERT INTO workloads VALUES (?, ?) "
                "ON CONFLICT (name) DO UPDATE SET definition = excluded.definition",
                (name, definition),
            )

    def remove_workload(self, name: str) -> bool:
        """Forgets an entry; whether there was one."""
        with self._transaction():
            gone = self._connection.execute("DELETE FROM workloads WHERE name = ?", (name,))
        return gone.rowcount > 0

    def bundles(self) -> dict[str, bytes]:
        """The last document of each other trust domain, by its name."""
        with self._reading():
            rows = self._connection.execute(
                "SELECT trust_domain, document FROM bundles ORDER BY trust_domain"
            ).fetchall()
        return {domain: bytes(document) for domain, document in rows}

    def put_bundle(self, trust_domain: str, document: bytes) -> None:
        """Keeps a document, in the place of the one before."""
        with self._transaction():
            self._connection.execute(
                "INSERT INTO bundles VALUES (?, ?) "
                "ON CONFLICT (trust_domain) DO UPDATE SET document = excluded.document",
                (trust_domain, document),
            )

    def remove_bundle(self, trust_domain: str) -> bool:
        """Forgets a trust domain; whether it was known."""
        with self._transaction():
            gone = self._connection.execute(
                "DELETE FROM bundles WHERE trust_domain = ?", (trust_domain,)
            )
        return gone.rowcount > 0

    def revoked(self) -> list[RevokedSerial]:
        """The serials that were revoked, by serial."""
        with self._reading():
            rows = self._connection.execute(
                "SELECT serial, revoked_at, ends_at FROM revoked ORDER BY serial"
            ).fetchall()
        return [
            RevokedSerial(int(serial, 16), from_rfc3339(revoked), from_rfc3339(ends))
            for serial, revoked, ends in rows
        ]

    def revoke(self, serials: Iterable[RevokedSerial]) -> None:
        """Adds serials; one that is there keeps its time."""
        rows = [
            (f"{one.serial:x}", to_rfc3339(one.revoked_at), to_rfc3339(one.ends_at))
            for one in serials
        ]
        with self._transaction():
            self._connection.executemany(
                "INSERT INTO revoked VALUES (?, ?, ?) ON CONFLICT (serial) DO NOTHING", rows
            )

    def forget_revoked(self, before: datetime) -> int:
        """Forgets serials that ended before that time; returns how many."""
        with self._transaction():
            gone = self._connection.execute(
                "DELETE FROM revoked WHERE ends_at < ?", (to_rfc3339(before),)
            )
        return gone.rowcount

    def number_of(self, name: str, content: str) -> int:
        """The number of a thing that changes: from 1, one more each time `content` is another than before."""
        with self._transaction():
            row = self._connection.execute(
                "SELECT number, content FROM counters WHERE name = ?", (name,)
            ).fetchone()
            if row is not None and row[1] == content:
                return int(row[0])
            number = 1 if row is None else int(row[0]) + 1
            self._connection.execute(
                "INSERT INTO counters VALUES (?, ?, ?) ON CONFLICT (name) "
                "DO UPDATE SET number = excluded.number, content = excluded.content",
                (name, number, content),
            )
        return number
