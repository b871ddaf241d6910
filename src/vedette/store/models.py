"""Which versions of which models are kept, which one serves and which did before; what inspections found, what else
belongs to a model's file, and whose signatures of models count.

Owns: control/models.db. Which version serves is decided by the snapshot: here is what it leaves out. The highest
version of a name stays known though all are removed. Must not: know what a definition means.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from vedette.clock import from_rfc3339, to_rfc3339
from vedette.errors import UnavailableError
from vedette.store.database import Database

SCHEMA_VERSION: Final = 2
_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS versions (
        name TEXT NOT NULL,
        version INTEGER NOT NULL,
        blob TEXT NOT NULL,
        definition TEXT NOT NULL,
        added_at TEXT NOT NULL,
        actor TEXT NOT NULL,
        PRIMARY KEY (name, version))""",
    """CREATE TABLE IF NOT EXISTS marks (
        name TEXT PRIMARY KEY,
        highest INTEGER NOT NULL,
        serving INTEGER,
        previous INTEGER)""",
    "CREATE TABLE IF NOT EXISTS inspections (digest TEXT PRIMARY KEY, found TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS attached (
        file TEXT NOT NULL,
        role TEXT NOT NULL,
        blob TEXT NOT NULL,
        note TEXT NOT NULL,
        PRIMARY KEY (file, role))""",
    """CREATE TABLE IF NOT EXISTS signers (
        fingerprint TEXT PRIMARY KEY,
        pem TEXT NOT NULL,
        added_at TEXT NOT NULL,
        actor TEXT NOT NULL)""",
)


@dataclass(frozen=True, slots=True)
class KeptVersion:
    """One version of a model; `definition` is JSON, `blob` the digest of its file."""

    name: str
    version: int
    blob: str
    definition: str
    added_at: datetime
    actor: str


@dataclass(frozen=True, slots=True)
class Marks:
    """Of one name: the highest version there ever was, the one that serves and the one that served before it."""

    highest: int
    serving: int | None
    previous: int | None


@dataclass(frozen=True, slots=True)
class Attached:
    """What belongs to a file whichever version it is: `blob`: the digest of its content, `note`: what is told of it."""

    blob: str
    note: str


@dataclass(frozen=True, slots=True)
class TrustedSigner:
    """Whose signatures of models count: `fingerprint` of a certificate (SHA-256 in hex), and the certificate, PEM."""

    fingerprint: str
    pem: bytes
    added_at: datetime
    actor: str


class ModelStore(Database):
    """The registry's tables, usable from all threads of one process."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the database. Raises `UnavailableError` store_busy, store_newer, disk_full, disk_failed."""
        super().__init__(path)
        with self._transaction():
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                message = f"{path.name} has version {version}; this is for {SCHEMA_VERSION}"
                raise UnavailableError("store_newer", message)
            # Else nothing is written: a full disk must not keep control from starting.
            if version < SCHEMA_VERSION:
                for statement in _TABLES:
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def versions(self) -> list[KeptVersion]:
        """Every version, by name and number."""
        with self._reading():
            rows = self._connection.execute(
                "SELECT name, version, blob, definition, added_at, actor FROM versions "
                "ORDER BY name, version"
            ).fetchall()
        return [
            KeptVersion(name, version, blob, definition, from_rfc3339(at), actor)
            for name, version, blob, definition, at, actor in rows
        ]

    def marks(self) -> dict[str, Marks]:
        """The marks of every name that there ever was."""
        with self._reading():
            rows = self._connection.execute(
                "SELECT name, highest, serving, previous FROM marks"
            ).fetchall()
        return {name: Marks(*rest) for name, *rest in rows}

    def put(self, version: KeptVersion) -> None:
        """Keeps a version that does not serve; on the disk when it returns."""
        with self._transaction():
            self._put(version)

    def note_serving(self, served: Collection[KeptVersion]) -> None:
        """Keeps that exactly these serve now. What is known of a version already stays but for its definition."""
        known = self.marks()
        with self._transaction():
            for each in served:
                self._put(each)
                before = known.get(each.name)
                if before is None or before.serving != each.version:
                    self._serve(each.name, each.version)
            for name in known.keys() - {each.name for each in served}:
                if known[name].serving is not None:
                    self._serve(name, None)

    def remove(self, name: str, versions: Iterable[int]) -> None:
        """Forgets versions; that there were so many stays known."""
        with self._transaction():
            for version in versions:
                self._connection.execute(
                    "DELETE FROM versions WHERE name = ? AND version = ?", (name, version)
                )
                self._connection.execute(
                    "UPDATE marks SET previous = NULL WHERE name = ? AND previous = ?",
                    (name, version),
                )

    def blobs(self) -> frozenset[str]:
        """The digests of all files that are kept, and of what belongs to files."""
        with self._reading():
            rows = self._connection.execute(
                "SELECT blob FROM versions UNION SELECT blob FROM attached"
            ).fetchall()
        return frozenset(blob for (blob,) in rows)

    def attached(self, role: str) -> dict[str, Attached]:
        """What belongs to files in that role, by digest of the file."""
        with self._reading():
            rows = self._connection.execute(
                "SELECT file, blob, note FROM attached WHERE role = ?", (role,)
            ).fetchall()
        return {file: Attached(blob, note) for file, blob, note in rows}

    def attach(self, file: str, role: str, what: Attached | None) -> None:
        """Keeps what belongs to a file, in place of what there was; None: nothing does."""
        with self._transaction():
            self._connection.execute(
                "DELETE FROM attached WHERE file = ? AND role = ?", (file, role)
            )
            if what is not None:
                self._connection.execute(
                    "INSERT INTO attached VALUES (?, ?, ?, ?)", (file, role, what.blob, what.note)
                )

    def signers(self) -> list[TrustedSigner]:
        """Everybody whose signatures count, in the order in which they came."""
        with self._reading():
            rows = self._connection.execute(
                "SELECT fingerprint, pem, added_at, actor FROM signers ORDER BY added_at, fingerprint"
            ).fetchall()
        return [
            TrustedSigner(fingerprint, pem.encode(), from_rfc3339(at), actor)
            for fingerprint, pem, at, actor in rows
        ]

    def trust(self, signer: TrustedSigner) -> None:
        """Has a signer count; one that does already stays as it is."""
        row = (signer.fingerprint, signer.pem.decode(), to_rfc3339(signer.added_at), signer.actor)
        with self._transaction():
            self._connection.execute("INSERT OR IGNORE INTO signers VALUES (?, ?, ?, ?)", row)

    def distrust(self, fingerprint: str) -> None:
        """Has a signer count no more."""
        with self._transaction():
            self._connection.execute("DELETE FROM signers WHERE fingerprint = ?", (fingerprint,))

    def inspection(self, digest: str) -> str | None:
        """What an inspection of that file found, JSON; None when there was none."""
        with self._reading():
            row = self._connection.execute(
                "SELECT found FROM inspections WHERE digest = ?", (digest,)
            ).fetchone()
        return None if row is None else str(row[0])

    def put_inspection(self, digest: str, found: str) -> None:
        """Keeps what an inspection found."""
        with self._transaction():
            self._connection.execute(
                "INSERT OR REPLACE INTO inspections VALUES (?, ?)", (digest, found)
            )

    def forget_inspections(self, keep: Collection[str]) -> None:
        """Forgets what was found of files that are not in `keep`, and what belonged to them."""
        with self._reading():
            rows = self._connection.execute(
                "SELECT digest FROM inspections UNION SELECT file FROM attached"
            ).fetchall()
        gone = [row for row in rows if row[0] not in keep]
        if gone:
            with self._transaction():
                self._connection.executemany("DELETE FROM inspections WHERE digest = ?", gone)
                self._connection.executemany("DELETE FROM attached WHERE file = ?", gone)

    def _put(self, version: KeptVersion) -> None:
        self._connection.execute(
            "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (name, version) DO UPDATE SET "
            "blob = excluded.blob, definition = excluded.definition",
            (
                version.name,
                version.version,
                version.blob,
                version.definition,
                to_rfc3339(version.added_at),
                version.actor,
            ),
        )
        self._connection.execute(
            "INSERT INTO marks VALUES (?, ?, NULL, NULL) ON CONFLICT (name) DO UPDATE SET "
            "highest = max(highest, excluded.highest)",
            (version.name, version.version),
        )

    def _serve(self, name: str, version: int | None) -> None:
        self._connection.execute(
            "UPDATE marks SET previous = serving, serving = ? WHERE name = ?", (version, name)
        )
