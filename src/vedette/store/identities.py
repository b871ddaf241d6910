"""What the issuer of identities must not forget: workload entries, join tokens, bundles of other trust domains,
revoked serials.

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

_JOIN_TOKENS: Final = """CREATE TABLE IF NOT EXISTS join_tokens (
    digest TEXT PRIMARY KEY,
    definition TEXT NOT NULL,
    ends_at TEXT NOT NULL,
    used_at TEXT)"""


@dataclass(frozen=True, slots=True)
class RevokedSerial:
    """A certificate that counts no more; after `ends_at` it would not anyway."""

    serial: int
    revoked_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class KeptJoinToken:
    """A join token by its SHA-256 in hex; `definition` is JSON."""

    digest: str
    definition: str
    ends_at: datetime
    used_at: datetime | None


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

    def join_tokens(self) -> list[KeptJoinToken]:
        """The join tokens that are known, by digest."""
        with self._reading():
            if not self._has("join_tokens"):
                return []
            rows = self._connection.execute(
                "SELECT digest, definition, ends_at, used_at FROM join_tokens ORDER BY digest"
            ).fetchall()
        return [
            KeptJoinToken(
                digest, text, from_rfc3339(ends), None if used is None else from_rfc3339(used)
            )
            for digest, text, ends, used in rows
        ]

    def put_join_token(self, token: KeptJoinToken) -> None:
        """Keeps a join token that is new."""
        row = (token.digest, token.definition, to_rfc3339(token.ends_at))
        with self._transaction():
            # Made when it is first needed: a version from before goes on without it.
            self._connection.execute(_JOIN_TOKENS)
            self._connection.execute("INSERT INTO join_tokens VALUES (?, ?, ?, NULL)", row)

    def use_join_token(self, digest: str, at: datetime, name: str, definition: str) -> bool:
        """Marks a join token as used and keeps the workload entry that it is exchanged for; whether it was not used
        before. Both or neither.
        """
        with self._transaction():
            marked = self._connection.execute(
                "UPDATE join_tokens SET used_at = ? WHERE digest = ? AND used_at IS NULL",
                (to_rfc3339(at), digest),
            )
            if marked.rowcount == 1:
                self._connection.execute("INSERT INTO workloads VALUES (?, ?)", (name, definition))
        return marked.rowcount == 1

    def remove_join_token(self, digest: str) -> None:
        """Forgets a join token."""
        with self._transaction():
            self._connection.execute("DELETE FROM join_tokens WHERE digest = ?", (digest,))

    def forget_join_tokens(self, before: datetime) -> None:
        """Forgets join tokens that ended before that time."""
        if any(one.ends_at < before for one in self.join_tokens()):
            with self._transaction():
                self._connection.execute(
                    "DELETE FROM join_tokens WHERE ends_at < ?", (to_rfc3339(before),)
                )

    def _has(self, table: str) -> bool:
        found = self._connection.execute(
            "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)
        ).fetchone()
        return found is not None

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
