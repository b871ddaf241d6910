"""Whether the process of a model still answers anybody: it is asked now and then, and given time.

Owns: when it is asked, over the model's socket as callers are, and when it has been silent for too long. One that is
stopped, or turns in a circle, keeps its connections open and looks alive to the kernel. One connection is kept from the
beginning: a process that is well takes only so many, and callers who wait for their turn may have all others. Must not:
end it; `keeper_worker` does.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

INTERVAL: Final = 15.0
"""Seconds between an answer and the next question."""
PATIENCE: Final = 10.0
"""Seconds between two looks for an answer. Several, so that a machine that slept as a whole has time to wake up."""
LOOKS: Final = 3
_PIECE: Final = 1 << 16


@dataclass(slots=True)
class Pulse:
    """Of one process. Moments are seconds of the keeper's clock."""

    path: Path
    question: bytes
    """Any will do that keeps no process from resting."""
    _connection: socket.socket | None = None
    _waits: bool = False
    _at: float | None = None
    _looks: int = 0

    def descriptors(self) -> list[int]:
        """What to wake up for."""
        return [self._connection.fileno()] if self._connection is not None and self._waits else []

    def due(self) -> float | None:
        """When something is to be done."""
        return self._at

    def is_there(self, moment: float) -> bool:
        """Whether the process is to be taken for alive. Asks it when it is time to."""
        if self._at is None:
            self._ask()
            self._at = moment + INTERVAL
        if self._waits and self._has_come():
            self._waits, self._looks, self._at = False, 0, moment + INTERVAL
        if moment < self._at:
            return True
        if not self._waits:
            self._ask()
        self._looks += 1
        self._at = moment + PATIENCE
        return self._looks <= LOOKS

    def forget(self) -> None:
        """There is no process, or another one."""
        self._hang_up()
        self._waits, self._at, self._looks = False, None, 0

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _ask(self) -> None:
        """A queue of connections that is full is no answer either; who got none tries again with the next look."""
        if self._connection is not None:
            self._has_come()  # what was left of the last answer, or the end
        try:
            if self._connection is None:
                self._connection = socket.socket(socket.AF_UNIX)
                self._connection.setblocking(False)
                self._connection.connect(str(self.path))
            self._connection.sendall(self.question)
            self._waits = True
        except OSError:
            self._hang_up()

    def _has_come(self) -> bool:
        """Whether there is an answer, or at least an end: somebody has dealt with it. Takes in what is there."""
        found = False
        while self._connection is not None:
            try:
                piece = self._connection.recv(_PIECE)
            except BlockingIOError:
                break
            except OSError:
                piece = b""
            found = True
            if not piece:
                self._hang_up()
        return found
