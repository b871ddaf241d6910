"""Connections to the Workload API's socket: who may have one, and what it may cost.

Owns: reading and writing of each, and how many a user, a connection and all together may have. Must not: know a method,
or trust anything that a caller says about itself.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

import h2.events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from vedette.control.workload.attest import Peer, peer_of
from vedette.control.workload.grpc import (
    MAX_MESSAGE,
    PREFIX,
    Budget,
    Call,
    CallError,
    Service,
    Status,
)

_log = logging.getLogger(__name__)
_CONFIG: Final = H2Configuration(client_side=False, header_encoding=None)
_HEADERS: Final = 16 * 1024  # bytes of the fields of a call
_WRITE_BUFFER: Final = 32 * 1024  # bytes of one connection that the kernel has no room for


@dataclass(frozen=True, slots=True)
class Limits:
    """What callers may have. Beyond: the connection is closed, or the call is answered Unavailable."""

    connections: int = 4_096
    connections_of_user: int = 1_024
    calls: int = 16_384
    calls_of_connection: int = 100
    stall_seconds: float = 60.0
    idle_seconds: float = 300.0
    noise: float = 1_000.0
    """Resets, pings and settings at once; then a tenth of it a second."""


class Connections:
    """All connections. Used on the loop's thread only."""

    def __init__(
        self, service: Service, accepts: Callable[[Peer], bool], limits: Limits | None = None
    ) -> None:
        self.service = service
        self.limits = limits or Limits()
        self.calls = 0
        self._accepts = accepts
        self._open: set[Connection] = set()
        self._of_user: Counter[int] = Counter()

    def __iter__(self) -> Iterator[Connection]:
        return iter(tuple(self._open))

    def admit(self, connection: Connection, peer: Peer) -> bool:
        """Whether this connection may stay."""
        full = len(self._open) >= self.limits.connections
        if full or self._of_user[peer.uid] >= self.limits.connections_of_user:
            return False
        if not self._accepts(peer):
            return False
        self._open.add(connection)
        self._of_user[peer.uid] += 1
        return True

    def release(self, connection: Connection, peer: Peer) -> None:
        """A connection is over."""
        self._open.discard(connection)
        self._of_user[peer.uid] -= 1
        if self._of_user[peer.uid] <= 0:
            del self._of_user[peer.uid]

    def sweep(self, at: float) -> None:
        """Closes what is idle or does not read; called now and then, `at` in seconds of the loop."""
        for connection in self:
            connection.close_if_useless(at)


class Connection(asyncio.Protocol):
    """One caller's connection."""

    def __init__(self, connections: Connections, box: str | None = None) -> None:
        """`box`: the name of the program in a box whose socket this is."""
        self._box = box
        self._all = connections
        self._http = H2Connection(_CONFIG)
        self._calls: dict[int, Call] = {}
        self._ready: set[Call] = set()
        self._transport: asyncio.Transport | None = None
        self._peer: Peer | None = None
        self._paused = False
        self._since = 0.0  # of being idle or stalled
        self._loop = asyncio.get_running_loop()
        limit = connections.limits.noise
        self._noise = Budget(limit, limit / 10, self._loop.time())

    @property
    def peer(self) -> Peer:
        """Who is at the other end."""
        assert self._peer is not None
        return self._peer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admits or drops the caller, before a byte is read."""
        made = cast("asyncio.Transport", transport)
        try:
            peer = peer_of(cast("socket.socket", made.get_extra_info("socket")))
        except OSError:
            made.abort()
            return
        peer.box = self._box
        if not self._all.admit(self, peer):
            peer.close()
            made.abort()
            return
        self._peer, self._transport = peer, made
        self._since = self._loop.time()
        made.set_write_buffer_limits(high=_WRITE_BUFFER)
        self._http.initiate_connection()
        self._http.update_settings(
            {
                SettingCodes.MAX_CONCURRENT_STREAMS: self._all.limits.calls_of_connection,
                SettingCodes.MAX_HEADER_LIST_SIZE: _HEADERS,
            }
        )
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends every call."""
        if self._peer is None:
            return
        for stream in tuple(self._calls):
            self._drop(stream)
        self._all.release(self, self._peer)
        self._peer.close()
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Reads frames."""
        if self._transport is None:
            return
        try:
            for event in self._http.receive_data(data):
                self._handle(event)
        except ProtocolError as error:
            _log.info("a caller of uid %d broke HTTP/2: %s", self.peer.uid, type(error).__name__)
            self._flush()
            self._transport.close()
            return
        self._send_ready()

    def pause_writing(self) -> None:
        """The caller does not read: nothing more is read from it either, so that answers do not pile up."""
        self._paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The caller reads again."""
        self._paused = False
        if self._transport is not None:
            self._transport.resume_reading()
            self._ready.update(self._calls.values())
            self._send_ready()

    def close_if_useless(self, at: float) -> None:
        """Closes a connection that had no call, or took nothing of what it is owed, for too long."""
        if self._transport is None:
            return
        unread = self._transport.get_write_buffer_size() > 0 or self._transport.is_closing()
        stalled = unread or any(call.is_stalled for call in self._calls.values())
        limits = self._all.limits
        if self._calls and not stalled:
            self._since = at
        elif at - self._since > (limits.stall_seconds if stalled else limits.idle_seconds):
            self._abort()

    def close(self) -> None:
        """Says good-bye (GOAWAY) and closes, once what was written has left."""
        if self._transport is not None:
            self._send_ready()
            self._http.close_connection()
            self._flush()
            self._transport.close()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # --- events ----------------------------------------------------------------------------------------------------

    def _handle(self, event: Any) -> None:
        kind = type(event)
        if kind is h2.events.DataReceived:
            self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self._data(event.stream_id, event.data)
        elif kind is h2.events.WindowUpdated:
            self._window(event.stream_id)
        elif kind is h2.events.RequestReceived:
            self._request(event.stream_id, list(event.headers))
        elif kind is h2.events.StreamEnded:
            self._guarded(event.stream_id, self._all.service.half_closed)
        elif kind is h2.events.StreamReset:
            self._spend()
            self._drop(event.stream_id)
        elif kind is h2.events.ConnectionTerminated:
            self._abort()
        elif kind in (h2.events.RemoteSettingsChanged, h2.events.PingReceived):
            self._spend()
            self._ready.update(self._calls.values())

    def _spend(self) -> None:
        if not self._noise.spend(self._loop.time()):
            self._http.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            raise ProtocolError("too many frames")

    def _request(self, stream: int, headers: list[tuple[bytes, bytes]]) -> None:
        call = Call(self._http, stream, self.peer, headers)
        call.wake = self._wake
        self._calls[stream] = call
        self._all.calls += 1
        if self._all.calls > self._all.limits.calls:
            call.finish(Status.UNAVAILABLE, "the node has too many calls open")
            return
        self._guarded(stream, self._all.service.opened)

    def _data(self, stream: int, data: bytes) -> None:
        def read(call: Call) -> None:
            for message in call.receive(data):
                self._all.service.message(call, message)
            if sum(one.buffered for one in self._calls.values()) > MAX_MESSAGE + PREFIX:
                raise CallError(Status.RESOURCE_EXHAUSTED, "too many requests are unfinished")

        self._guarded(stream, read)

    def _guarded(self, stream: int, action: Callable[[Call], None]) -> None:
        call = self._calls.get(stream)
        if call is None:
            return
        try:
            action(call)
        except CallError as refused:
            call.finish(refused.status, refused.message)
        except Exception:  # noqa: BLE001 - a defect must not cost the others their connection
            _log.exception("a call of the Workload API failed")
            call.finish(Status.INTERNAL, "the node failed")

    def _window(self, stream: int) -> None:
        if stream == 0:
            self._ready.update(self._calls.values())
        elif stream in self._calls:
            self._ready.add(self._calls[stream])

    def _drop(self, stream: int) -> None:
        call = self._calls.pop(stream, None)
        if call is not None:
            self._all.calls -= 1
            call.end()

    # --- writing ---------------------------------------------------------------------------------------------------

    def _wake(self, call: Call) -> None:
        """Something is to be sent. What many calls have at once leaves in one write."""
        if not self._ready:
            self._loop.call_soon(self._send_ready)
        self._ready.add(call)

    def _send_ready(self) -> None:
        if self._transport is None or self._transport.is_closing() or self._paused:
            return
        ready, self._ready = self._ready, set()
        for call in ready:
            if not call.closed:
                call.pump()
            if call.closed:
                self._forget(call)
        self._flush()

    def _forget(self, call: Call) -> None:
        stream = call.stream
        if self._calls.get(stream) is call:
            held = self._http.streams.get(stream)
            if held is not None and held.open:  # the caller has not ended its half (RFC 9113 §8.1)
                self._http.reset_stream(stream, ErrorCodes.NO_ERROR)
            self._drop(stream)

    def _flush(self) -> None:
        data = self._http.data_to_send()
        if data and self._transport is not None:
            self._transport.write(data)
