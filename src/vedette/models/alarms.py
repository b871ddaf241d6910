"""Alarms of streams, as their processes wrote them: JSON lines in log/models.log among what else is there.

Owns: finding them, and waiting for the next. Must not: believe a line further than its shape: the log has what the
processes of all models say.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

LONGEST_LINE: Final = 4_096
"""Bytes; the name of a stream has at most 128."""
_INTERVAL: Final = 0.2
_PIECE: Final = 1 << 20
_LATEST: Final = 253_402_300_799_999  # the year 9999, in milliseconds


@dataclass(frozen=True, slots=True)
class Alarm:
    """One event that scored as high as its model's threshold.

    `unix_millis`: when; `stream`: its name, None for one without; `n`: which event of it; `suppressed`: alarms of the
    model since the one before that were counted and not written.
    """

    unix_millis: int
    model: str
    version: int
    stream: str | None
    n: int
    score: float
    suppressed: int


def parse(line: bytes) -> Alarm | None:
    """The alarm that a line of the log is; None for any other line."""
    if len(line) > LONGEST_LINE or not line.startswith(b"{"):
        return None
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return _alarm(said) if isinstance(said, dict) and said.get("kind") == "alarm" else None


def _alarm(said: dict[str, Any]) -> Alarm | None:
    model, stream, score = said.get("model"), said.get("stream"), said.get("score")
    if not isinstance(model, str) or not isinstance(stream, str | None):
        return None
    if not isinstance(score, int | float) or not math.isfinite(score):
        return None
    counts = [_count(said.get(name)) for name in ("unixMillis", "version", "n", "suppressed")]
    millis, version, n, suppressed = counts
    if millis is None or version is None or n is None or suppressed is None:
        return None
    return Alarm(millis, model, version, stream, n, float(score), suppressed)


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= _LATEST else None


def read_alarms(log: Path, model: str, last: int) -> list[Alarm]:
    """The last alarms of a model that the log and the one before it have, oldest first."""
    found: deque[Alarm] = deque(maxlen=last)
    for path in (log.with_suffix(".log.1"), log):
        try:
            with path.open("rb") as file:
                found.extend(each for each in _alarms(file) if each.model == model)
        except FileNotFoundError:
            continue
    return list(found)


def _alarms(file: BinaryIO) -> Iterator[Alarm]:
    while line := file.readline(LONGEST_LINE + 1):
        alarm = parse(line)
        if alarm is not None:
            yield alarm


def follow_alarms(log: Path, model: str, interval: float = _INTERVAL) -> Iterator[Alarm]:
    """Alarms of a model from now on, as they are written; also after the log was begun anew. Does not end."""
    return _following(log, model, interval, _size(log), _inode(log))


def _following(log: Path, model: str, interval: float, at: int, inode: int) -> Iterator[Alarm]:
    rest = b""
    while True:
        if _inode(log) != inode or _size(log) < at:
            at, inode, rest = 0, _inode(log), b""
        try:
            with log.open("rb") as file:
                file.seek(at)
                piece = file.read(_PIECE)
        except FileNotFoundError:
            piece = b""
        at += len(piece)
        *lines, rest = (rest + piece).split(b"\n")
        rest = rest[: LONGEST_LINE + 1]
        yield from (each for line in lines if (each := parse(line)) and each.model == model)
        if not piece:
            time.sleep(interval)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _inode(path: Path) -> int:
    return path.stat().st_ino if path.exists() else 0
