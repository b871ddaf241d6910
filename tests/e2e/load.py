"""Steady load from a thread: one new connection per request, so that every request meets the listening socket.

Owns: counting what came of each request, with the moment it began. Must not: retry, or judge.
"""

from __future__ import annotations

import ssl
import threading
import time
from dataclasses import dataclass
from types import TracebackType

from tests.e2e.node import Node
from tests.e2e.wire import send


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request: when it began and ended (monotonic seconds), its status (0: none) and what went wrong."""

    began: float
    ended: float
    status: int
    error: str
    request_id: str


class Load:
    """Asks `/hello` again and again while the block runs; at most `limit` times per thread, `pause` seconds apart."""

    def __init__(
        self, node: Node, protocol: str, threads: int = 2, limit: int = 4_000, pause: float = 0.0
    ) -> None:
        self.outcomes: list[Outcome] = []
        self._node = node
        self._protocol = protocol
        self._limit = limit
        self._pause = pause
        self._header = [("authorization", f"Bearer {node.usual_token}")]
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def __enter__(self) -> Load:
        assert self._node.endpoint
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        for _ in range(self._limit):
            if self._stopped.wait(self._pause):
                return
            self.outcomes.append(self._one())

    def _one(self) -> Outcome:
        began = time.monotonic()
        try:
            answer = send(self._node.endpoint, self._protocol, "/hello", headers=self._header)
        except (OSError, ssl.SSLError) as error:
            return Outcome(began, time.monotonic(), 0, f"{type(error).__name__}: {error}", "")
        return Outcome(began, time.monotonic(), answer.status, "", answer.request_id)

    def served(self) -> list[Outcome]:
        """Requests that were answered 200."""
        return [each for each in self.outcomes if each.status == 200]

    def refused_connections(self) -> list[Outcome]:
        """Requests whose connection was refused: nobody was listening."""
        return [each for each in self.outcomes if each.error.startswith("ConnectionRefusedError")]
