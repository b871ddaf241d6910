"""Which serials of X509-SVIDs are out, over the death of control: what it cannot remember it could not revoke.

Owns: control/issued/, text files of one line a serial. Must not: know what an entry or a certificate means.

A line is written and not synced: it outlives the process, which is what is asked, and a mint must not wait for a disk.
After a power cut the programs that had these certificates are gone as well.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 4 * 1024 * 1024  # of a file
MAX_FILES: Final = 16
_AGE: Final = 600.0  # seconds after which another file is begun, so that this one can go when all in it has ended
_LONGEST: Final = 512  # bytes of a line

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IssuedSerial:
    """A certificate of the entry `name`; `proof` says what it proves, in hex. `ends_at` in UTC."""

    name: str
    proof: str
    serial: int
    ends_at: datetime


class IssuedSerials:
    """The serials that are out. Methods may be called from any thread; one process writes."""

    def __init__(self, folder: Path, at: datetime) -> None:
        """Reads those that an earlier process left and that have not ended at the time `at`."""
        self._folder = folder
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._used = 0
        self._begun = 0.0
        self._ends: dict[Path, float] = {}
        self._earlier: dict[str, list[IssuedSerial]] = defaultdict(list)
        self._is_failing = False
        for one in self._left(at):
            self._earlier[one.name].append(one)

    def add(self, one: IssuedSerial, at: datetime) -> None:
        """Keeps a serial. A disk that fails is logged: the certificate is given all the same, and ends by itself."""
        ends = one.ends_at.timestamp()
        line = f"{one.serial:x} {int(ends)} {one.proof} {one.name}\n".encode()
        with self._lock:
            try:
                os.write(self._file(len(line), at.timestamp()), line)
            except OSError as error:
                if not self._is_failing:
                    _log.error("serials are not kept, and not revoked after a restart: %s", error)
                self._is_failing = True
                return
            self._is_failing = False
            self._used += len(line)
            current = next(reversed(self._ends))
            self._ends[current] = max(self._ends[current], ends)

    def names(self) -> list[str]:
        """The entries that have serials out which an earlier process made."""
        with self._lock:
            return sorted(self._earlier)

    def end(self, name: str, proof: str | None) -> list[tuple[int, datetime]]:
        """Serials of earlier processes, each with its end, that prove something else than `proof` (None: nothing is
        proved any more); they are told once.
        """
        with self._lock:
            held = self._earlier.pop(name, [])
            kept = [one for one in held if one.proof == proof]
            if kept:
                self._earlier[name] = kept
            return [(one.serial, one.ends_at) for one in held if one.proof != proof]

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._close()

    def _file(self, size: int, at: float) -> int:
        """The file to write to; begins another one when it is time, and removes those in which all has ended."""
        is_full = self._used + size > MAX_BYTES or abs(at - self._begun) > _AGE
        if self._descriptor is not None and not is_full:
            return self._descriptor
        self._close()
        self._folder.mkdir(mode=0o700, exist_ok=True)
        over = [path for path, ends in self._ends.items() if ends < at]
        over += [path for path in list(self._ends)[: -MAX_FILES + 1] if path not in over]
        for path in over:
            path.unlink(missing_ok=True)
            del self._ends[path]
        last = max((int(path.stem) for path in self._folder.glob("*.log")), default=0)
        path = self._folder / f"{last + 1:08}.log"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(path, flags, 0o600)
        self._used, self._begun = 0, at
        self._ends[path] = 0.0
        return self._descriptor

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _left(self, at: datetime) -> Iterator[IssuedSerial]:
        for path in sorted(self._folder.glob("*.log")):
            self._ends[path] = 0.0
            with contextlib.suppress(OSError), path.open("rb") as file:
                while line := file.readline(_LONGEST):
                    one = _read(line)
                    if one is not None:
                        self._ends[path] = max(self._ends[path], one.ends_at.timestamp())
                        if one.ends_at > at:
                            yield one


def _read(line: bytes) -> IssuedSerial | None:
    """None for a line that was torn."""
    try:
        serial, ends, proof, name = line.decode("ascii").removesuffix("\n").split(" ")
        return IssuedSerial(name, proof, int(serial, 16), datetime.fromtimestamp(int(ends), UTC))
    except (ValueError, OverflowError, OSError):
        return None
