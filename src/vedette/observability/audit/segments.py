"""Which bytes of a segment are finished records, for the audit log.

Owns: cutting a segment into batches, and what tells a segment from another of its name. Must not: change one, or look
into a record.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vedette.observability.audit.tree import leaf_hash

CHECK_BYTES: Final = 8
LONGEST: Final = 4 * 1024 * 1024
"""Bytes of the longest record: a whole segment of the engine's."""

_CHUNK: Final = 1024 * 1024
_FINGERPRINT: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Piece:
    """Finished records: the bytes `start` to `stop`. `is_raw`: what a killed engine left behind, as it is."""

    start: int
    stop: int
    records: list[bytes]
    is_raw: bool = False


def lines_of(data: bytes) -> list[bytes]:
    """The lines of whole lines."""
    lines = data.split(b"\n")
    lines.pop()
    return lines


def pieces(descriptor: int, offset: int, is_closed: Callable[[], bool]) -> Iterator[Piece]:
    """The finished records from `offset` on, at most `LONGEST` bytes at a time.

    A line is finished when its newline is there and no NUL before it: mapped memory is copied into in any order. In a
    segment that nobody writes any more, what lies behind a NUL up to the last newline is one raw record; what follows
    that newline is no record (a new engine cuts it off).
    """
    while first := os.pread(descriptor, 1, offset):
        if first == b"\0" and not is_closed():
            return  # the rest is still empty, as of most segments in use
        data = _before_nul(os.pread(descriptor, _CHUNK, offset))
        end = data.rfind(b"\n") + 1
        if not end:
            piece = _long(descriptor, offset) if len(data) == _CHUNK else None
            piece = piece or _left_behind(descriptor, offset, is_closed)
            if piece is None:
                return
            yield piece
            offset = piece.stop
            continue
        yield Piece(offset, offset + end, lines_of(data[:end]))
        offset += end


def fingerprint(descriptor: int) -> bytes:
    """What tells this segment from a later one of the same name: its first line, hashed."""
    return leaf_hash(os.pread(descriptor, _FINGERPRINT, 0).split(b"\n", 1)[0])[:CHECK_BYTES]


def is_done(path: Path, done: int) -> bool:
    """Whether no record follows byte `done` of a segment that nobody writes to."""
    with path.open("rb") as segment:
        segment.seek(done)
        while chunk := segment.read(_CHUNK):
            if b"\n" in chunk:
                return False
    return True


def _before_nul(chunk: bytes) -> bytes:
    nul = chunk.find(b"\0")
    return chunk if nul < 0 else chunk[:nul]


def _long(descriptor: int, offset: int) -> Piece | None:
    """A line that is longer than a chunk; one that has no end within `LONGEST` is cut there, and raw."""
    data = _before_nul(os.pread(descriptor, LONGEST, offset))
    end = data.find(b"\n")
    if end >= 0:
        return Piece(offset, offset + end + 1, [data[:end]])
    return Piece(offset, offset + LONGEST, [data], is_raw=True) if len(data) == LONGEST else None


def _left_behind(descriptor: int, offset: int, is_closed: Callable[[], bool]) -> Piece | None:
    if not is_closed():
        return None
    data = os.pread(descriptor, LONGEST, offset)
    end = data.rfind(b"\n") + 1
    return Piece(offset, offset + end, [data[:end]], is_raw=True) if end else None
