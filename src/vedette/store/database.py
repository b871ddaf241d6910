"""A SQLite file whose transactions survive a power cut, used by all threads of one process.

Owns: how it is opened (write-ahead log, synchronous=FULL, 0600), its lock, and what its failures mean to a person. Must
not: know a table.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from vedette.errors import UnavailableError

_BUSY_SECONDS: Final = 5.0


class Database:
    """The base of what is kept in SQLite. Every call raises `UnavailableError` store_busy, disk_full, disk_failed."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path = path
        self._lock = threading.RLock()
        with _explained(path):
            self._connection = _connect(path, read_only)
            if not read_only:
                path.chmod(0o600)
                self._connection.execute("PRAGMA journal_mode=WAL")
                self._connection.execute("PRAGMA synchronous=FULL")

    def close(self) -> None:
        """Closes the database."""
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock, _explained(self._path):
            yield

    @contextlib.contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
        with self._reading():
            self._connection.execute(begin)
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _connect(path: Path, read_only: bool) -> sqlite3.Connection:
    mode = "ro" if read_only else "rwc"
    if read_only and not os.access(path.parent, os.W_OK) and not Path(f"{path}-wal").exists():
        mode += "&immutable=1"  # a copy on a medium that takes no lock files
    address = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(
        address, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, uri=True
    )


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Raises `UnavailableError` store_busy, disk_full or disk_failed for an error of the database in `path`."""
    try:
        yield
    except sqlite3.Error as error:
        raise _unavailable(error, path) from error


def _unavailable(error: sqlite3.Error, path: Path) -> UnavailableError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return UnavailableError("store_busy", f"{path.name} is locked by another process")
    if code == sqlite3.SQLITE_FULL:
        return UnavailableError("disk_full", f"there is no space left to write {path.name}")
    return UnavailableError("disk_failed", f"cannot use {path}: {error}")
