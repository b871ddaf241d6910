"""A caller of the SPIFFE Workload API that can also leave the header out, or send it twice.

Owns: one HTTP/2 connection over the Unix socket, a call at a time. Must not: share code with the server but the shapes
of messages.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import h2.events
from h2.config import H2Configuration
from h2.connection import H2Connection

from vedette.control.workload import wire

HEADER: Final = [(b"workload.spiffe.io", b"true")]
OK: Final = 0
INVALID_ARGUMENT: Final = 3
PERMISSION_DENIED: Final = 7
_PATIENCE: Final = 20.0
_READ: Final = 1 << 16


@dataclass(slots=True)
class Reply:
    """Messages of a call so far; `status` is the gRPC status once it ended."""

    messages: list[bytes] = field(default_factory=list)
    status: int | None = None
    told: str = ""


class WorkloadCaller:
    """One connection with one call at a time."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_PATIENCE)
        self._socket.connect(str(path))
        self._http = H2Connection(H2Configuration(header_encoding=None))
        self._http.initiate_connection()
        self._partial = b""
        self._reply = Reply()

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()

    def begin(
        self, method: str, message: bytes, headers: list[tuple[bytes, bytes]] = HEADER
    ) -> None:
        """Begins a call with one message. `method` is of the Workload API, or a path that begins with `/`."""
        path = method if method.startswith("/") else f"/{wire.SERVICE}/{method}"
        stream = self._http.get_next_available_stream_id()
        fields = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":authority", b"localhost"),
            (b":path", path.encode()),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        ]
        self._partial, self._reply = b"", Reply()
        self._http.send_headers(stream, [*fields, *headers])
        self._http.send_data(
            stream, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True
        )
        self._socket.sendall(self._http.data_to_send())

    def next(self, response: str) -> Any:
        """The next message of a call; None when the call ended first. Raises `OSError` when nothing comes."""
        found = self.next_bytes()
        return None if found is None else wire.decode(response, found)

    def next_bytes(self) -> bytes | None:
        """The same as it came."""
        while not self._reply.messages and self._reply.status is None:
            self._read()
        return self._reply.messages.pop(0) if self._reply.messages else None

    def status(self) -> int:
        """The status with which a call ends."""
        while self._reply.status is None:
            self._read()
        return self._reply.status

    @property
    def told(self) -> str:
        """What the server said with it."""
        return self._reply.told

    def _read(self) -> None:
        data = self._socket.recv(_READ)
        if not data:
            raise ConnectionError("the Workload API closed the connection")
        for event in self._http.receive_data(data):
            self._take(event)
        self._socket.sendall(self._http.data_to_send())

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.DataReceived):
            self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self._partial += event.data or b""
            while len(self._partial) >= 5:
                size = 5 + int.from_bytes(self._partial[1:5], "big")
                if len(self._partial) < size:
                    break
                self._reply.messages.append(self._partial[5:size])
                self._partial = self._partial[size:]
        elif isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
            found = {bytes(name): bytes(value) for name, value in event.headers or ()}
            if b"grpc-status" in found:
                self._reply.status = int(found[b"grpc-status"])
                self._reply.told = found.get(b"grpc-message", b"").decode("utf-8", "replace")
        elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
            self._reply.status = -1 if self._reply.status is None else self._reply.status


@contextmanager
def calling(path: Path) -> Iterator[WorkloadCaller]:
    """A connection that is closed in the end."""
    caller = WorkloadCaller(path)
    try:
        yield caller
    finally:
        caller.close()


def status_of(path: Path, method: str, headers: list[tuple[bytes, bytes]] = HEADER) -> int:
    """The status of a call with an empty message on a connection of its own; 0 when the first message came."""
    with calling(path) as caller:
        caller.begin(method, b"", headers)
        return 0 if caller.next("X509SVIDResponse") is not None else caller.status()


def validated(path: Path, audience: str, svid: str) -> tuple[str, str]:
    """Whom a JWT-SVID proves, and what was said when it proves nobody."""
    message = wire.encode("ValidateJWTSVIDRequest", audience=audience, svid=svid)
    with calling(path) as caller:
        caller.begin("ValidateJWTSVID", message)
        answer = caller.next("ValidateJWTSVIDResponse")
        return ("" if answer is None else answer.spiffe_id), caller.told
