"""The records that attacks leave, read from the spool as it grows.

Owns: reading only what was written since the suite began. Must not: write, or hold more than the suite made.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from vedette.observability import spool

Line = dict[str, Any]
PATIENCE: Final = 5.0  # seconds; a record is there when its answer has ended
MOST: Final = 100_000  # lines; a node that is busy meanwhile must not fill memory
_CHUNK: Final = 1 << 20


class Records:
    """Lines of a folder of segments that come after this object was made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: dict[str, int] = {}
        self._lines: list[Line] = []
        self._lock = threading.Lock()
        for segment in spool.segments(folder):
            self._places[segment.name] = self._end_of(segment)

    def lines(self) -> list[Line]:
        """Everything written since, in order within a segment. May be called from any thread."""
        with self._lock:
            for segment in spool.segments(self._folder):
                place = self._places.get(segment.name, 0)
                data = _data_from(segment, place)
                whole = data[: data.rfind(b"\n") + 1]
                self._places[segment.name] = place + len(whole)
                self._lines += [json.loads(line) for line in whole.splitlines() if line]
            del self._lines[:-MOST]
            return self._lines.copy()

    def find(self, wanted: Callable[[Line], bool], patience: float = PATIENCE) -> Line | None:
        """The first such line, waiting for it; None when it does not come."""
        deadline = time.monotonic() + patience
        while True:
            for line in self.lines():
                if wanted(line):
                    return line
            if time.monotonic() > deadline:
                return None
            time.sleep(0.01)

    def of(self, request_id: str | None, kind: str = "request") -> Line:
        """The record of a request; empty when there is none."""
        if not request_id:
            return {}
        found = self.find(lambda line: line.get("requestId") == request_id and line["kind"] == kind)
        return found or {}

    @staticmethod
    def _end_of(segment: Path) -> int:
        descriptor = os.open(segment, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return spool.data_end(descriptor)
        finally:
            os.close(descriptor)


def _data_from(segment: Path, place: int) -> bytes:
    """Bytes up to the first NUL: what follows is preallocated (`spool.data_end`)."""
    data = b""
    with segment.open("rb") as file:
        file.seek(place)
        while chunk := file.read(_CHUNK):
            data += chunk.partition(b"\0")[0]
            if b"\0" in chunk:
                break
    return data
