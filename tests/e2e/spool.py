"""Reads what the engine wrote to its spool: records of requests and lines of function logs.

Owns: reading append-only files that may end in preallocated NUL bytes, without reading anything twice. Must not: write.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Line = dict[str, Any]

_CHUNK = 65_536


class Spool:
    """The lines of one kind in a folder, read as it grows."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._folder = folder
        self._kind = kind
        self._offsets: dict[str, int] = {}
        self._lines: list[Line] = []

    def lines(self) -> list[Line]:
        """Every such line written so far, oldest first within a file."""
        for path in sorted(self._folder.glob("*.jsonl")):
            self._read(path)
        return self._lines

    def _read(self, path: Path) -> None:
        offset = self._offsets.get(path.name, 0)
        try:
            data = _data_from(path, offset)
        except FileNotFoundError:  # an engine that starts removes files that hold nothing
            return
        whole = data[: data.rfind(b"\n") + 1]
        read = [json.loads(line) for line in whole.splitlines()]
        self._lines += [line for line in read if line["kind"] == self._kind]
        self._offsets[path.name] = offset + len(whole)

    def wait_for(self, wanted: Callable[[Line], bool], timeout: float = 60.0) -> list[Line]:
        """The lines for which `wanted` holds, as soon as there is one. Fails after `timeout` seconds without."""
        deadline = time.monotonic() + timeout
        while True:
            found = [line for line in self.lines() if wanted(line)]
            if found:
                return found
            if time.monotonic() > deadline:
                last = self._lines[-3:]
                raise AssertionError(
                    f"no such line in {self._folder} within {timeout} s; the last of "
                    f"{len(self._lines)}: {json.dumps(last, indent=1)}"
                )
            time.sleep(0.01)


def _data_from(path: Path, offset: int) -> bytes:
    """The bytes from `offset` to the first NUL or the end."""
    data = b""
    with path.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(_CHUNK):
            data += chunk.partition(b"\0")[0]
            if b"\0" in chunk:
                break
    return data
