"""A caller that speaks HTTP/2 itself, so that it can also do what a gRPC library would not."""

from __future__ import annotations

import contextlib
import socket
from collections import defaultdict
from pathlib import Path
from typing import Any

import h2.events
from h2.config import H2Configuration
from h2.connection import H2Connection

from vedette.control.workload import wire

HEADER = [(b"workload.spiffe.io", b"true")]
PATIENCE = 120.0  # seconds; only against what hangs


class RawClient:
    """One connection. `messages` and `trailers` are by stream."""

    def __init__(self, path: Path, settings: dict[int, int] | None = None) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(str(path))
        self.http = H2Connection(H2Configuration(header_encoding=None))
        self.http.initiate_connection()
        if settings:
            self.http.update_settings(settings)
        self.messages: dict[int, list[bytes]] = defaultdict(list)
        self.trailers: dict[int, dict[bytes, bytes]] = {}
        self.closed = False
        self.goaway: int | None = None
        self._partial: dict[int, bytearray] = defaultdict(bytearray)
        self.flush()

    def close(self) -> None:
        """Closes the socket."""
        self.socket.close()

    def flush(self) -> None:
        """Sends what is to be sent. That the node closed is for `read` to find, after what it said before."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(self.http.data_to_send())

    def open(
        self,
        method: str,
        headers: list[tuple[bytes, bytes]] = HEADER,
        body: bytes | None = b"\0\0\0\0\0",
        service: str = wire.SERVICE,
        *,
        end: bool = True,
        **changed: bytes,
    ) -> int:
        """Begins a call with one message, the empty one unless told; returns its stream."""
        stream = self.http.get_next_available_stream_id()
        fields = {
            ":method": b"POST",
            ":scheme": b"http",
            ":authority": b"localhost",
            ":path": f"/{service}/{method}".encode(),
            "content-type": b"application/grpc",
            "te": b"trailers",
        }
        fields.update({name.replace("_", "-"): value for name, value in changed.items()})
        head = [(name.encode(), value) for name, value in fields.items()]
        self.http.send_headers(stream, [*head, *headers], end_stream=end and body is None)
        if body is not None:
            self.http.send_data(stream, body, end_stream=end)
        self.flush()
        return stream

    def ask(self, method: str, request: str, **fields: Any) -> int:
        """Begins a call with a message of the specification."""
        data = wire.encode(request, **fields)
        return self.open(method, body=framed(data))

    def read(self) -> None:
        """Waits for bytes and takes them. A process that was killed with bytes unread resets the connection."""
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = True
            return
        for event in self.http.receive_data(data):
            self._take(event)
        self.flush()

    def _take(self, event: Any) -> None:
        kind = type(event)
        if kind is h2.events.DataReceived:
            self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            partial = self._partial[event.stream_id]
            partial += event.data
            while len(partial) >= 5 and len(partial) >= 5 + (size := int.from_bytes(partial[1:5])):
                self.messages[event.stream_id].append(bytes(partial[5 : 5 + size]))
                del partial[: 5 + size]
        elif kind in (h2.events.TrailersReceived, h2.events.ResponseReceived):
            found = dict(event.headers)
            if b"grpc-status" in found:
                self.trailers[event.stream_id] = found
        elif kind is h2.events.StreamReset:
            self.trailers.setdefault(event.stream_id, {b"reset": str(event.error_code).encode()})
        elif kind is h2.events.ConnectionTerminated:
            self.goaway = int(event.error_code)

    def next_message(self, stream: int, response: str) -> Any:
        """The next message of a call, which must come before its end."""
        while not self.messages[stream]:
            assert stream not in self.trailers, self.trailers[stream]
            assert not self.closed
            self.read()
        return wire.decode(response, self.messages[stream].pop(0))

    def status(self, stream: int) -> int:
        """How a call ended."""
        while stream not in self.trailers:
            assert not self.closed
            self.read()
        return int(self.trailers[stream][b"grpc-status"])


def framed(message: bytes) -> bytes:
    """A message with the prefix of gRPC."""
    return b"\0" + len(message).to_bytes(4, "big") + message
