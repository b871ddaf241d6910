"""gRPC over HTTP/2 on a Unix socket, for callers whom the kernel vouches for (gRPC over HTTP2, RFC 9113).

Owns: streams, framing and status of calls, and the limits on what a caller can make the node hold. Must not: know a
method; `Service` does. `h2` speaks HTTP/2. Why not a whole gRPC library: ADR 0028.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Final, Protocol
from urllib.parse import quote

from h2.connection import H2Connection

from vedette.control.workload.attest import Peer

MAX_MESSAGE: Final = 64 * 1024
MAX_QUEUED: Final = 16
PREFIX: Final = 5  # compressed flag and length, before each message
_CONTENT_TYPE: Final = b"application/grpc"
KEPT: Final = frozenset({b":method", b":path", b"content-type", b"workload.spiffe.io"})
"""Fields that are kept as long as a call is open; a caller could fill memory with others."""
_LONGEST: Final = 256  # bytes of such a field
_MOST: Final = 8

Headers = list[tuple[bytes, bytes]]


class Status(IntEnum):
    """The codes of gRPC that this server answers (grpc/doc/statuscodes.md)."""

    OK = 0
    INVALID_ARGUMENT = 3
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class CallError(Exception):
    """A call ends with that status; the message is for the caller."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Service(Protocol):
    """What calls are for."""

    def opened(self, call: Call) -> None:
        """A call has its head. Raises `CallError`."""

    def message(self, call: Call, data: bytes) -> None:
        """One whole message of a caller. Raises `CallError`."""

    def half_closed(self, call: Call) -> None:
        """The caller will send no more. Raises `CallError`."""


class Call:
    """One call: a stream of HTTP/2. Used on the loop's thread only.

    What waits to be sent is bounded: `push` puts a newer message in the place of one that was not begun, so a caller
    that never reads costs two messages.
    """

    def __init__(self, http: H2Connection, stream: int, peer: Peer, headers: Headers) -> None:
        self.peer = peer
        self._kept = [(name, value[:_LONGEST]) for name, value in headers if name in KEPT][:_MOST]
        self.path = b"".join(self.metadata(b":path"))
        self.on_close: Callable[[], None] | None = None
        self.answered = False
        """Whether the service took its one message; more are too many where one is asked for."""
        self._http = http
        self.stream = stream
        self._received = bytearray()
        self._prefix = b""
        self._sending = memoryview(b"")
        self._waiting: deque[bytes] = deque()
        self._status: tuple[Status, str] | None = None
        self._headers_sent = False
        self.closed = False
        self.wake: Callable[[Call], None] = lambda _: None

    def metadata(self, name: bytes) -> list[bytes]:
        """Every value of a field of `KEPT`, in order."""
        return [value for key, value in self._kept if key == name]

    @property
    def buffered(self) -> int:
        """Bytes of a message that has not come to its end."""
        return len(self._received)

    def require_grpc(self) -> None:
        """Raises `CallError` for a request that is no gRPC, which is answered all the same."""
        kinds = self.metadata(b"content-type")
        if self.metadata(b":method") != [b"POST"] or len(kinds) != 1 or not _is_grpc(kinds[0]):
            raise CallError(Status.UNIMPLEMENTED, "this is not a gRPC request")

    # --- sending ---------------------------------------------------------------------------------------------------

    def push(self, message: bytes, *, replaces: bool = True) -> None:
        """Sends a message; one that `replaces` takes the place of those that were not begun."""
        if self.closed or self._status is not None:
            return
        if replaces:
            self._waiting.clear()
        if len(self._waiting) >= MAX_QUEUED:
            self.finish(Status.RESOURCE_EXHAUSTED, "the answers are not read")
            return
        self._waiting.append(message)
        self.wake(self)

    def finish(self, status: Status, message: str = "") -> None:
        """Ends the call. Only what was begun is still sent, unless all went well."""
        if self.closed or self._status is not None:
            return
        self._status = (status, message)
        if status is not Status.OK:
            self._waiting.clear()
        self.wake(self)

    @property
    def is_stalled(self) -> bool:
        """Whether there is something to send that the caller does not take."""
        return not self.closed and bool(self._unsent or self._waiting)

    @property
    def _unsent(self) -> int:
        return len(self._prefix) + len(self._sending)

    def pump(self) -> None:
        """Hands to `h2` what flow control lets through (RFC 9113 §5.2)."""
        while not self.closed:
            if not self._unsent:
                if not self._waiting:
                    break
                self._begin(self._waiting.popleft())
            window = self._http.local_flow_control_window(self.stream)
            size = min(window, self._http.max_outbound_frame_size, self._unsent)
            if size <= 0:
                return
            self._http.send_data(self.stream, self._take(size))
        if self._status is not None and not self.closed:
            self._send_trailers(*self._status)

    def _begin(self, message: bytes) -> None:
        if not self._headers_sent:
            self._headers_sent = True
            head = [(b":status", b"200"), (b"content-type", _CONTENT_TYPE)]
            self._http.send_headers(self.stream, head)
        self._prefix = b"\0" + len(message).to_bytes(4, "big")
        self._sending = memoryview(message)

    def _take(self, size: int) -> bytes:
        """The next bytes. The message itself is not copied before: many calls wait with the same one."""
        head = self._prefix[:size]
        body = self._sending[: size - len(head)]
        self._prefix = self._prefix[len(head) :]
        self._sending = self._sending[len(body) :]
        return head + body

    def _send_trailers(self, status: Status, message: str) -> None:
        trailers = [(b"grpc-status", str(int(status)).encode())]
        if message:
            # Percent-encoded (gRPC over HTTP2, "Status-Message").
            trailers.append(
                (b"grpc-message", quote(message, safe=" !#$&'()*+,/:;=?@[]{}").encode())
            )
        if not self._headers_sent:
            trailers = [(b":status", b"200"), (b"content-type", _CONTENT_TYPE), *trailers]
        self._http.send_headers(self.stream, trailers, end_stream=True)
        self.end()

    def end(self) -> None:
        """The stream is over, whoever ended it."""
        if self.closed:
            return
        self.closed = True
        self._waiting.clear()
        self._prefix = b""
        self._sending = memoryview(b"")
        self._received.clear()
        if self.on_close is not None:
            self.on_close()

    # --- receiving -------------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[bytes]:
        """The messages that this data completes. Raises `CallError` for one that is compressed or too large."""
        self._received += data
        found = []
        while len(self._received) >= PREFIX:
            if self._received[0]:
                raise CallError(Status.UNIMPLEMENTED, "messages may not be compressed")
            size = int.from_bytes(self._received[1:PREFIX], "big")
            if size > MAX_MESSAGE:
                raise CallError(
                    Status.RESOURCE_EXHAUSTED, f"a message has at most {MAX_MESSAGE} bytes"
                )
            if len(self._received) < PREFIX + size:
                break
            found.append(bytes(self._received[PREFIX : PREFIX + size]))
            del self._received[: PREFIX + size]
        return found


def _is_grpc(kind: bytes) -> bool:
    return kind == _CONTENT_TYPE or kind.startswith(
        (_CONTENT_TYPE + b"+proto", _CONTENT_TYPE + b";")
    )


class Budget:
    """How often a thing may happen: at once `most` times, and then `rate` times a second."""

    def __init__(self, most: float, rate: float, at: float) -> None:
        self._most = most
        self._rate = rate
        self._left = most
        self._at = at

    def spend(self, at: float) -> bool:
        """Whether there was some left at the time `at` (seconds, monotonic)."""
        self._left = min(self._most, self._left + (at - self._at) * self._rate)
        self._at = at
        self._left -= 1
        return self._left >= 0
