"""Whether the process of a model still answers anybody: it is asked now and then, and given time.

Owns: when it is asked, over the model's socket as callers are, and when it has been silent for too long. One that is
stopped, or turns in a circle, keeps its connections open and looks alive to the kernel. Must not: end it;
`keeper_worker` does.
"""

from __future__ import annotations

import contextlib
import select
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

INTERVAL: Final = 15.0
"""Seconds between an answer and the next question."""
PATIENCE: Final = 10.0
"""Seconds between two looks for an answer. Several, so that a machine that slept as a whole has time to wake up."""
LOOKS: Final = 3


@dataclass(slots=True)
class Pulse:
    """Of one process. Moments are seconds of the keeper's clock."""

    path: Path
    question: bytes
    """Any will do that keeps no process from resting."""
    _asked: socket.socket | None = None
    _at: float | None = None
    _looks: int = 0

    def descriptors(self) -> list[int]:
        """What to wake up for."""
        return [] if self._asked is None else [self._asked.fileno()]

    def due(self) -> float | None:
        """When something is to be done."""
        return self._at

    def is_there(self, moment: float) -> bool:
        """Whether the process is to be taken for alive. Asks it when it is time to."""
        if self._at is None:
            self._at = moment + INTERVAL
        if self._asked is not None and _has_come(self._asked):
            self.forget()
            self._at = moment + INTERVAL
        if moment < self._at:
            return True
        if self._asked is None and self._looks == 0:
            self._ask()
        self._looks += 1
        self._at = moment + PATIENCE
        return self._looks <= LOOKS

    def forget(self) -> None:
        """There is no process, or another one."""
        if self._asked is not None:
            self._asked.close()
        self._asked, self._at, self._looks = None, None, 0

    def _ask(self) -> None:
        """A queue of connections that is full is no answer either."""
        connection = socket.socket(socket.AF_UNIX)
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            connection.connect(str(self.path))
            connection.sendall(self.question)
            self._asked = connection
            return
        connection.close()


def _has_come(connection: socket.socket) -> bool:
    """Whether there is an answer, or at least an end: somebody has dealt with it."""
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    return bool(poller.poll(0))
