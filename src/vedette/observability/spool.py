"""Reads the engine's spool: append-only JSON lines in segments, each written by one engine worker.

Owns: finding the end of a preallocated segment, reading backwards, following, and keeping the spool below its limit.
Must not: change a segment. A segment may end in NUL bytes (preallocated, or its engine was killed): what follows the
first NUL is not data, and a line without its newline is not finished yet.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Line = dict[str, Any]
Keep = Callable[[Line], bool]

REQUESTS_LIMIT = 1024 * 1024 * 1024
LOGS_LIMIT = 256 * 1024 * 1024
ADMIN_LIMIT = 64 * 1024 * 1024

_CHUNK = 256 * 1024


def segments(folder: Path) -> list[Path]:
    """The segments in `folder`, oldest first (by last write, then name); empty when there is no folder."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".jsonl") and entry.is_file(follow_symlinks=False):
                    found.append((entry.stat(follow_symlinks=False).st_mtime_ns, entry.name))
    except FileNotFoundError:
        return []
    return [folder / name for _, name in sorted(found)]


def data_end(descriptor: int) -> int:
    """Where data ends: the first NUL, or the size. JSON text holds no NUL, so a search by halves is exact."""
    low, high = 0, os.fstat(descriptor).st_size
    while low < high:
        middle = (low + high) // 2
        byte = os.pread(descriptor, 1, middle)
        if byte in (b"\0", b""):
            high = middle
        else:
            low = middle + 1
    return low


def lines_backwards(path: Path) -> Iterator[bytes]:
    """The finished lines of a segment, last first."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        position, rest, finished = data_end(descriptor), b"", False
        while position > 0:
            step = min(_CHUNK, position)
            position -= step
            parts = (os.pread(descriptor, step, position) + rest).split(b"\n")
            rest = parts.pop(0)
            for part in reversed(parts):
                if finished and part:
                    yield part
                finished = True
        if finished and rest:
            yield rest
    finally:
        os.close(descriptor)


def last_lines(folder: Path, count: int, keep: Keep) -> list[Line]:
    """The last `count` lines that `keep` wants, over all segments, oldest first."""
    if count <= 0:
        return []
    found: list[Line] = []
    for path in reversed(segments(folder)):
        if len(found) >= count and _is_finished(path) and _last_write(path) < found[0]["time"]:
            continue  # only a finished segment's time of last write is true: the others are mapped memory
        found += _last_of_segment(path, count, keep)
        found.sort(key=_time_of)
        del found[:-count]
    return found


def records_like(request_id: str | None, failed: bool, kind: str | None = None) -> Keep:
    """What keeps lines of one request, of requests that were refused or failed, and of one kind."""

    def keep(line: Line) -> bool:
        if request_id is not None and line.get("requestId") != request_id:
            return False
        if kind is not None and line.get("kind") != kind:
            return False
        # A blocked request has a record that says so: its event is told where events are asked for.
        refused = "cause" in line or (kind is not None and line.get("action") == "blocked")
        return not failed or refused

    return keep


def _last_of_segment(path: Path, count: int, keep: Keep) -> list[Line]:
    found: list[Line] = []
    for raw in lines_backwards(path):
        line = _parse(raw)
        if line is not None and keep(line):
            found.append(line)
            if len(found) == count:
                break
    return found


def _parse(raw: bytes) -> Line | None:
    """The line as an object, or None: a torn line (full disk, power cut) must not hide those after it."""
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("time"), str) else None


def _time_of(line: Line) -> str:
    return str(line["time"])


def _last_write(path: Path) -> str:
    try:
        moment = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except FileNotFoundError:
        return ""
    return moment.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


@dataclass(slots=True)
class _Position:
    inode: int
    offset: int


class Follower:
    """Gives the lines that were finished since the last call, over all segments, also new and replaced ones."""

    def __init__(self, folder: Path, keep: Keep, *, from_now: bool = True) -> None:
        self._folder = folder
        self._keep = keep
        self._positions: dict[str, _Position] = {}
        if from_now:
            self._read_new(self._skip)

    def poll(self) -> list[Line]:
        """New lines, by time. Returns at once, empty when there are none."""
        found: list[Line] = []

        def take(raw: bytes) -> None:
            line = _parse(raw)
            if line is not None and self._keep(line):
                found.append(line)

        self._read_new(take)
        found.sort(key=_time_of)
        return found

    @staticmethod
    def _skip(raw: bytes) -> None:
        """Takes no line: what was written before following began is not new."""

    def _read_new(self, take: Callable[[bytes], None]) -> None:
        present = segments(self._folder)
        for path in present:
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                self._read_segment(path.name, descriptor, take)
            finally:
                os.close(descriptor)
        for gone in self._positions.keys() - {path.name for path in present}:
            del self._positions[gone]

    def _read_segment(self, name: str, descriptor: int, take: Callable[[bytes], None]) -> None:
        facts = os.fstat(descriptor)
        position = self._positions.get(name)
        if position is None or position.inode != facts.st_ino or facts.st_size < position.offset:
            position = self._positions[name] = _Position(facts.st_ino, 0)
        while chunk := os.pread(descriptor, _CHUNK, position.offset):
            data = chunk.split(b"\0", 1)[0]
            end = data.rfind(b"\n") + 1
            if end == 0:
                if len(data) == _CHUNK:
                    position.offset += (
                        _CHUNK  # one line longer than any we write: not ours, step over it
                    )
                    continue
                return
            for raw in data[: end - 1].split(b"\n"):
                take(raw)
            position.offset += end


def prune(folder: Path, limit_bytes: int) -> int:
    """Removes segments, oldest first, until the folder holds at most `limit_bytes`; returns how many.

    One that an engine still writes stays whatever happens: the engine holds a lock on it.
    """
    present = segments(folder)
    sizes = {path: allocated(path) for path in present}
    total, removed = sum(sizes.values()), 0
    for path in present:
        if total <= limit_bytes:
            break
        if is_written(path):
            continue
        path.unlink(missing_ok=True)
        total -= sizes[path]
        removed += 1
    return removed


def allocated(path: Path) -> int:
    """Bytes of disk that a file takes; 0 for one that is gone."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def is_written(path: Path) -> bool:
    """Whether a living process writes to the segment: it holds a lock on it."""
    try:
        with path.open("rb") as segment:
            fcntl.flock(segment, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _is_finished(path: Path) -> bool:
    """Whether the segment was closed in order: it was cut to its data then, so its last byte is not NUL."""
    try:
        with path.open("rb") as segment:
            size = segment.seek(0, os.SEEK_END)
            return size > 0 and os.pread(segment.fileno(), 1, size - 1) != b"\0"
    except FileNotFoundError:
        return True
