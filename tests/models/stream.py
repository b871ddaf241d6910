"""A stream as a worker's caller has it: lines out and lines in, over one connection.

Owns: HTTP/1.1 with chunks both ways, by hand: no client of the standard library reads an answer before its request has
ended. Must not: know what the events mean.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from tests.models.workers import WAIT, Worker


class Stream:
    """One stream. `status` is there once the head of the answer is."""

    def __init__(
        self, worker: Worker, query: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(WAIT)
        self.socket.connect(str(worker.socket_path))
        fields = {"host": "m", "transfer-encoding": "chunked", **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.socket.sendall(f"POST {worker.base}/stream{query} HTTP/1.1\r\n{head}\r\n".encode())
        self._file = self.socket.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        self.headers: dict[str, str] = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode().partition(":")
            self.headers[name.lower()] = value.strip()
        self._rest = b""

    def send(self, *events: Any) -> None:
        """Sends events, one line each, in one chunk."""
        self.send_bytes(b"".join(json.dumps(each).encode() + b"\n" for each in events))

    def send_bytes(self, piece: bytes) -> None:
        """Sends a chunk as it is."""
        self.socket.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))

    def end(self) -> None:
        """Says that no event follows."""
        self.socket.sendall(b"0\r\n\r\n")

    def line(self) -> dict[str, Any] | None:
        """The next result; None: there is none any more."""
        while b"\n" not in self._rest:
            size = self._file.readline()
            if not size:
                return None
            length = int(size, 16)
            piece = self._file.read(length + 2)[:length]
            if not piece:
                return None
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        return said

    def ask(self, event: Any) -> dict[str, Any]:
        """One event, and its result."""
        self.send(event)
        said = self.line()
        assert said is not None
        return said

    def body(self) -> bytes:
        """Of an answer that is whole."""
        return self._file.read(int(self.headers["content-length"]))

    def close(self) -> None:
        """Leaves without a word."""
        self._file.close()
        self.socket.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def answers(worker: Worker, events: Iterable[Any], at_once: int = 500) -> list[dict[str, Any]]:
    """The results of all events, on a stream of their own."""
    found: list[dict[str, Any]] = []
    with Stream(worker) as stream:
        block: list[Any] = []
        for event in events:
            block.append(event)
            if len(block) == at_once:
                stream.send(*block)
                found += [stream.line() or {} for _ in block]
                block.clear()
        if block:
            stream.send(*block)
        stream.end()
        while (said := stream.line()) is not None:
            found.append(said)
    return found
