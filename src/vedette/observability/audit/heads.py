"""Heads: what is signed about the log, so that it cannot be changed unseen.

Owns: the text of a head (a checkpoint of c2sp.org/tlog-checkpoint with extension lines) and the list of gaps it commits
to. Must not: sign or verify; `identity.notes` does.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from vedette.clock import from_rfc3339
from vedette.errors import ConfigError, TrustError
from vedette.observability.audit.tree import HASH_BYTES, MAX_SIZE

Gap = tuple[int, int]
"""The first record that was removed, and the first after it that was not."""

MAX_HEAD_CHARACTERS: Final = 4096
_NUMBER = re.compile(r"(0|[1-9][0-9]{0,18})\Z")


@dataclass(frozen=True, slots=True)
class Head:
    """What a log says of itself at one moment: its first `size` records have this `root`.

    `sequence` counts heads from 0, `previous` is the digest of the head before this one, `gaps` that of the list of
    records that were removed for want of room; None where there is no such thing.
    """

    origin: str
    size: int
    root: bytes
    sequence: int
    time: str
    previous: bytes | None = None
    gaps: bytes | None = None

    def text(self) -> str:
        """What is signed."""
        lines = [self.origin, str(self.size), _encoded(self.root)]
        lines += [f"sequence {self.sequence}", f"time {self.time}"]
        lines += [] if self.previous is None else [f"previous {_encoded(self.previous)}"]
        lines += [] if self.gaps is None else [f"gaps {_encoded(self.gaps)}"]
        return "".join(f"{line}\n" for line in lines)

    def digest(self) -> bytes:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text().encode()).digest()

    @classmethod
    def parse(cls, text: str) -> Head:
        """Reads a text whose signature was verified. Raises `TrustError` note_invalid."""
        lines = text.split("\n")
        if len(text) > MAX_HEAD_CHARACTERS or len(lines) < 6 or lines.pop() != "":
            raise _invalid()
        words = dict(line.split(" ", 1) for line in lines[3:] if " " in line)
        try:
            found = cls(
                origin=lines[0],
                size=_number(lines[1]),
                root=_hash(lines[2]),
                sequence=_number(words["sequence"]),
                time=words["time"],
                previous=_hash(words["previous"]) if "previous" in words else None,
                gaps=_hash(words["gaps"]) if "gaps" in words else None,
            )
            from_rfc3339(found.time)
        except (KeyError, ValueError, ConfigError):
            raise _invalid() from None
        if found.text() != text:  # one spelling only
            raise _invalid()
        return found


def gaps_digest(gaps: Iterable[Gap]) -> bytes | None:
    """What a head says of removed records: SHA-256 of one line `FIRST-END` for each gap; None without gaps."""
    text = "".join(f"{first}-{end}\n" for first, end in gaps)
    return hashlib.sha256(text.encode()).digest() if text else None


def joined(gaps: Iterable[Gap]) -> list[Gap]:
    """The gaps in order, those that touch or overlap made one."""
    found: list[Gap] = []
    for first, end in sorted(gaps):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((first, end))
    return found


def _number(text: str) -> int:
    if not _NUMBER.match(text) or int(text) >= MAX_SIZE:
        raise ValueError(text)
    return int(text)


def _hash(text: str) -> bytes:
    raw = base64.b64decode(text, validate=True)
    if len(raw) != HASH_BYTES:
        raise ValueError(text)
    return raw


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _invalid() -> TrustError:
    return TrustError("note_invalid", "the note is not a head of an audit log")
