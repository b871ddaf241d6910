"""Callers of a model that nobody serves yet: each is told so, by HTTP, and when to come again.

Owns: the connections that the keeper has accepted, until they are closed. Must not: keep anything that callers send, or
look at more of it than where the head of their request ends (RFC 9112 §2.1).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

MOST: Final = 256
"""Visitors of one model at once; further ones wait in the kernel until one has gone."""
PATIENCE: Final = 10.0
"""Seconds from a connection to the end of its request's head."""
LINGER: Final = 2.0
"""Seconds that who was answered may be silent before the connection is closed; at once when it has closed its side."""
LONGEST: Final = 30.0

_PIECE: Final = 65_536
_PIECES: Final = 16
_HEAD_ENDS: Final = (b"\r\n\r\n", b"\n\n")
_LONGEST_HEAD: Final = 65_536


def refusal(error: str, seconds: float) -> bytes:
    """The answer 503, as the worker would write it; `seconds` until it may be worth to ask again."""
    body = json.dumps({"error": error}).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\n"
        "content-type: application/json\r\n"
        f"content-length: {len(body)}\r\n"
        f"retry-after: {min(3_600, max(1, -int(-seconds // 1)))}\r\n"
        "connection: close\r\n\r\n"
    )
    return head.encode() + body


@dataclass(slots=True)
class Visitor:
    """One connection. `tail`: what was last read of a head that has not ended."""

    connection: socket.socket
    leaves_at: float
    ends_at: float
    tail: bytes = b""
    read: int = 0
    is_told: bool = False

    def step(self, moment: float, answer: bytes) -> bool:
        """Reads what has come, answers once the head is there. Whether there is more to come."""
        if moment >= min(self.leaves_at, self.ends_at):
            return False
        with contextlib.suppress(BlockingIOError):
            for _ in range(_PIECES):
                piece = self.connection.recv(_PIECE)
                if not piece:
                    return False
                self._take(piece, moment, answer)
        return True

    def _take(self, piece: bytes, moment: float, answer: bytes) -> None:
        self.read += len(piece)
        if self.is_told:
            self.leaves_at = moment + LINGER
            return
        seen = self.tail + piece
        self.tail = seen[-3:]
        if any(end in seen for end in _HEAD_ENDS) or self.read > _LONGEST_HEAD:
            # Before the rest of the request is there: who sends it need not send all of it.
            self.connection.sendall(answer)
            self.connection.shutdown(socket.SHUT_WR)
            self.is_told, self.leaves_at = True, moment + LINGER


class Visitors:
    """Those of one model."""

    def __init__(self) -> None:
        self._there: list[Visitor] = []

    def descriptors(self) -> list[int]:
        """What to wake up for."""
        return [each.connection.fileno() for each in self._there]

    def has_room(self) -> bool:
        """Whether one more may come."""
        return len(self._there) < MOST

    def due(self) -> float | None:
        """When somebody has been silent for too long."""
        return min((min(each.leaves_at, each.ends_at) for each in self._there), default=None)

    def accept(self, listener: socket.socket, moment: float) -> None:
        """Takes in who waits, as far as there is room."""
        with contextlib.suppress(OSError):
            listener.setblocking(False)  # a worker may have changed it for both
            while self.has_room():
                connection, _ = listener.accept()
                connection.setblocking(False)
                self._there.append(Visitor(connection, moment + PATIENCE, moment + LONGEST))

    def step(self, moment: float, answer: bytes) -> None:
        """Answers who has asked; lets go of who has gone."""
        staying = []
        for each in self._there:
            try:
                stays = each.step(moment, answer)
            except OSError:
                stays = False
            if stays:
                staying.append(each)
            else:
                each.connection.close()
        self._there = staying

    def close(self) -> None:
        """Lets go of all."""
        for each in self._there:
            each.connection.close()
        self._there = []

    def hand_over(self) -> list[dict[str, Any]]:
        """For the program that takes this one's place: descriptors that it inherits, and what is known of each."""
        for each in self._there:
            each.connection.set_inheritable(True)
        return [
            {"fd": each.connection.fileno(), "tail": each.tail.hex(), "isTold": each.is_told}
            for each in self._there
        ]

    def keep(self) -> None:
        """Nobody has taken this program's place."""
        for each in self._there:
            each.connection.set_inheritable(False)

    def take_over(self, rows: Iterable[Mapping[str, Any]], moment: float) -> None:
        """What was handed over."""
        for row in rows:
            os.set_inheritable(row["fd"], False)
            connection = socket.socket(fileno=row["fd"])
            connection.setblocking(False)
            visitor = Visitor(connection, moment + PATIENCE, moment + LONGEST)
            visitor.tail, visitor.is_told = bytes.fromhex(row["tail"]), row["isTold"]
            self._there.append(visitor)
