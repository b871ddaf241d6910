"""The models that control wants to run: run/models/wanted.json.

Owns: reading it, again when it has changed. Must not: write it, or know the whole shape of a model: what a worker is
told of one is passed on word for word, and checked there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vedette.ids import is_digest, is_name

LIMIT: Final = 16 << 20
"""Bytes of the file; 10,000 models of 1.6 kB."""
MOST: Final = 10_000
_WORKER: Final = re.compile(r"[0-9a-f]{16}\Z")
_MOST_EXTRAS: Final = 8
_LONGEST_RUN: Final = 3_600_000


class WantedError(Exception):
    """What was read is no list of models; the text says why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One model that is to run. `idle_millis`: its process ends when nobody asks for so long, and starts when somebody
    does; None: it is always there. `served` is all that the snapshot says of it, as on the wire.
    """

    worker: str
    name: str
    version: int
    blob: str
    format: str
    run_millis: int
    idle_millis: int | None
    served: Mapping[str, Any]

    @classmethod
    def read(cls, served: Any) -> Wanted:
        """The model that a JSON value spells. Raises `WantedError`."""
        try:
            found = cls(
                served["worker"],
                served["name"],
                served["version"],
                served["blob"],
                served["format"],
                served["limits"]["runMillis"],
                served.get("idleMillis"),
                served,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise WantedError(f"not a model: {error!r}") from None
        texts = (found.worker, found.name, found.blob, found.format)
        if not all(isinstance(text, str) for text in texts):
            raise WantedError("not a model: text is missing")
        if not (_WORKER.match(found.worker) and is_name(found.name) and is_digest(found.blob)):
            raise WantedError(f"not a model: {found.worker[:32]!r}")
        numbers = (found.version, found.run_millis, found.idle_millis or 1)
        if any(type(number) is not int for number in numbers):
            raise WantedError(
                f"{found.name}: its version, longest run and idle time are whole numbers"
            )
        if not 0 < found.run_millis <= _LONGEST_RUN:
            raise WantedError(f"{found.name}: a run of {found.run_millis} ms")
        found.extras()
        return found

    def extras(self) -> list[tuple[str, str]]:
        """Role and digest of each file that it needs beside its own. Raises `WantedError`."""
        try:
            found = [(each["role"], each["blob"]) for each in self.served.get("files") or ()]
        except (KeyError, TypeError) as error:
            raise WantedError(f"{self.name}: not files: {error!r}") from None
        if len(found) > _MOST_EXTRAS or not all(
            isinstance(role, str) and isinstance(blob, str) and is_digest(blob)
            for role, blob in found
        ):
            raise WantedError(f"{self.name}: not files")
        return found


class WantedFile:
    """The file, and whether it is another than when it was last read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None

    def forget(self) -> None:
        """Makes the next `take` read it, changed or not."""
        self._seen = None

    def take(self) -> dict[str, Wanted] | None:
        """By worker, what is wanted now; None when that is as before, or the file is away.

        Raises `WantedError` once for a file that cannot be read as one: what was wanted before stays so.
        """
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen == self._seen:
                return None
            self._seen = seen
            with self._path.open("rb") as file:
                data = file.read(LIMIT + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WantedError(f"cannot be read: {error.strerror}") from None
        return parse(data)


def parse(data: bytes) -> dict[str, Wanted]:
    """The content of the file, by worker. Raises `WantedError`: one bad entry and none of it counts."""
    if len(data) > LIMIT:
        raise WantedError(f"more than {LIMIT} bytes")
    try:
        rows = json.loads(data)["models"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise WantedError(f"not a list of models: {error!r}") from None
    if not isinstance(rows, list) or len(rows) > MOST:
        raise WantedError(f"not a list of at most {MOST} models")
    return {found.worker: found for found in map(Wanted.read, rows)}
