"""Writing a file so that a reader, or a crash at any instant, meets the old content or the new,
never a mix.

Owns: the order write, fsync, rename, fsync of the folder; and the meaning of a failing disk. Must
not: know formats other than JSON.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from vedette.errors import UnavailableError

TEMPORARY_SUFFIX: Final = ".tmp"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_atomic(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replaces the content of `path` and returns when it is on the disk.

    Raises `UnavailableError` disk_full or disk_failed; `path` then holds what it held before.
    """
    write_parts_atomic(path, [data], mode)


def write_parts_atomic(path: Path, parts: Iterable[bytes], mode: int = 0o600) -> None:
    """Replaces the content of `path` by what comes in parts, none of which is kept in memory.

    Raises as `write_atomic`, and whatever the parts raise; `path` then holds what it held before.
    """
    with _explained(path):
        temporary = _write_temporary(path, parts, mode)
        with _removed_on_failure(temporary):
            temporary.replace(path)
        sync_folder(path.parent)


def restore(path: Path, before: bytes | None) -> None:
    """Puts back what a file held, 0600; None: there was none, and there is none again. Raises `UnavailableError`."""
    if before is not None:
        write_atomic(path, before)
        return
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def create_private(path: Path, data: bytes) -> None:
    """Creates `path`, readable by the owner only; complete or not there at all.

    Raises `FileExistsError` when it exists (a key is never replaced by accident),
    `UnavailableError` for the disk.
    """
    with _explained(path):
        temporary = _write_temporary(path, [data], 0o600)
        with _removed_on_failure(temporary):
            os.link(temporary, path)
        temporary.unlink()
        sync_folder(path.parent)


def write_json(path: Path, value: Any, mode: int = 0o600) -> None:
    """Replaces `path` with compact JSON and a newline. Raises as `write_atomic`."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    write_atomic(path, text.encode() + b"\n", mode)


def read_json(path: Path) -> Any:
    """The JSON in `path`; None when the file is absent or holds no JSON (it is then written anew)."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def sync_folder(folder: Path) -> None:
    """Makes renames and removals in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_temporary(path: Path, parts: Iterable[bytes], mode: int) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}{TEMPORARY_SUFFIX}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, mode)
    with _removed_on_failure(temporary):
        try:
            os.fchmod(descriptor, mode)
            for part in parts:
                rest = memoryview(part)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return temporary


@contextlib.contextmanager
def _removed_on_failure(temporary: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise disk_error(error, path) from error


def disk_error(error: OSError, path: Path) -> UnavailableError:
    """What an `OSError` of a write means to a person."""
    if error.errno in _FULL:
        return UnavailableError("disk_full", f"there is no space left to write {path.name}")
    return UnavailableError("disk_failed", f"cannot write {path}: {error.strerror}")
