"""The engine's side of a registration (`vedette.engine.registration`): takes a socket, and tells whoever comes through
it which one that is.

Owns: the protocol, and what a test may have it do: say no, tell lines, go. Must not: know what a real engine serves.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
from collections.abc import Callable
from typing import Any

Said = dict[str, Any]


class Registrar:
    """Sockets that were handed over. `sidecars`: those that it knows; None: all."""

    def __init__(self) -> None:
        self.sidecars: set[str] | None = None
        self.refusal = "there is no sidecar of that name"
        self.refused_sides: set[str] = set()
        self.wishes: list[Said] = []
        self._open: list[tuple[socket.socket, Said]] = []
        self._lock = threading.Lock()

    @property
    def open(self) -> list[Said]:
        """Those that are served now."""
        with self._lock:
            return [wish for _, wish in self._open]

    def serve_only(self, sidecars: set[str]) -> None:
        """Lets go of those that are not in a new snapshot."""
        self.sidecars = sidecars
        self._let_go(lambda wish: "sidecar" in wish and wish["sidecar"] not in sidecars)

    def tell(self, line: Said) -> None:
        """Sends a line to each that has registered."""
        with self._lock:
            for connection, _ in self._open:
                connection.sendall(json.dumps(line).encode() + b"\n")

    def drop(self) -> None:
        """Lets go of all, as an engine that dies."""
        self._let_go(lambda _: True)

    def _let_go(self, which: Callable[[Said], bool]) -> None:
        with self._lock, contextlib.suppress(OSError):
            for connection, wish in self._open:
                if which(wish):
                    connection.shutdown(socket.SHUT_RDWR)

    def serve(self, connection: socket.socket) -> None:
        """Takes one registration and serves its socket until the other side is done."""
        said, (number,), _, _ = socket.recv_fds(connection, 65_536, 1)
        assert said.startswith(b"\0")
        assert said.endswith(b"\n")
        wish = json.loads(said[1:])
        with socket.socket(fileno=number) as listener:
            self.wishes.append(wish)
            if self.sidecars is not None and wish.get("sidecar", "") not in self.sidecars:
                connection.sendall(json.dumps({"error": self.refusal}).encode() + b"\n")
                return
            if wish.get("side") in self.refused_sides:
                connection.sendall(b'{"error": "not this side"}\n')
                return
            with self._lock:
                self._open.append((connection, wish))
                connection.sendall(b"{}\n")
            try:
                _answer_each(listener, connection, json.dumps(wish).encode())
            finally:
                with self._lock:
                    self._open.remove((connection, wish))


def _answer_each(listener: socket.socket, until: socket.socket, body: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"
    while True:
        ready, _, _ = select.select([listener, until], [], [])
        if until in ready:
            return
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(65_536)
            connection.sendall(answer % (len(body), body))
