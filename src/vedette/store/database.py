"""What a failing SQLite database means to a person.

Owns: that translation. Must not: open one; `history` and `audit` do.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from vedette.errors import UnavailableError


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
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
