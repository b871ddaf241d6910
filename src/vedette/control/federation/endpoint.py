"""A small HTTPS server for documents that anybody may have: TLS 1.3, GET, one request a connection.

Owns: connections, their number and time, and reading a request (h11). Must not: ask who a caller is (SPIFFE Federation
§5.2.1.3), keep a connection, read a body, or know what a document means.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import h11

_log = logging.getLogger(__name__)
_HEAD: Final = 8 * 1024  # bytes of request line and fields
_READ: Final = 4 * 1024
_PAUSE: Final = 0.5  # seconds, when the process has no file left for a connection

Documents = Callable[[], Mapping[str, bytes]]
"""The JSON documents, by path. Called for each request, on the server's thread."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What callers may have. Beyond it they wait in the kernel's queue, or are closed."""

    connections: int = 64
    of_address: int = 8
    seconds: float = 10.0
    """For all of a connection: handshake, request and answer."""


class HttpsServer:
    """Serves from `start` to `stop`, in a thread of its own."""

    def __init__(
        self,
        documents: Documents,
        context_of: Callable[[], ssl.SSLContext],
        bounds: Bounds | None = None,
    ) -> None:
        """`context_of` gives the certificate to show now; it is asked for each connection."""
        self._documents = documents
        self._context_of = context_of
        self._bounds = bounds or Bounds()
        self._of_address: Counter[str] = Counter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, listeners: Sequence[socket.socket]) -> None:
        """Serves callers of `listeners`, which are closed in the end; returns when it does."""
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._serve_all, args=(listeners, ready), name="bundles", daemon=True
        )
        self._thread.start()
        ready.wait()

    def stop(self) -> None:
        """Ends every connection and the thread."""
        if self._loop is not None and self._stopping is not None and self._thread is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()

    def _serve_all(self, listeners: Sequence[socket.socket], ready: threading.Event) -> None:
        try:
            asyncio.run(self._run(listeners, ready))
        finally:
            ready.set()  # also when it failed

    async def _run(self, listeners: Sequence[socket.socket], ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        room = asyncio.Semaphore(self._bounds.connections)
        accepting = [asyncio.create_task(self._accept(one, room)) for one in listeners]
        ready.set()
        await self._stopping.wait()
        for task in (*accepting, *self._tasks):
            task.cancel()
        await asyncio.gather(*accepting, *self._tasks, return_exceptions=True)
        for one in listeners:
            one.close()

    async def _accept(self, listener: socket.socket, room: asyncio.Semaphore) -> None:
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        while True:
            await room.acquire()
            try:
                connected, address = await loop.sock_accept(listener)
            except OSError as error:
                room.release()
                _log.warning("a caller of the bundle endpoint is not accepted: %s", error)
                await asyncio.sleep(_PAUSE)
                continue
            except BaseException:
                room.release()
                raise
            task = asyncio.create_task(self._serve(connected, str(address[0])))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: room.release())

    async def _serve(self, connected: socket.socket, address: str) -> None:
        self._of_address[address] += 1
        try:
            if self._of_address[address] <= self._bounds.of_address:
                async with asyncio.timeout(self._bounds.seconds):
                    await self._converse(connected)
        except (TimeoutError, OSError, h11.RemoteProtocolError):
            pass  # a caller who is slow, speaks no TLS 1.3, no HTTP, or left
        except Exception:  # noqa: BLE001 - a defect must not end the server
            _log.exception("the bundle endpoint failed")
        finally:
            connected.close()
            self._of_address[address] -= 1
            if self._of_address[address] <= 0:
                del self._of_address[address]

    async def _converse(self, connected: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_READ)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(
            lambda: protocol,
            connected,
            ssl=self._context_of(),
            ssl_handshake_timeout=self._bounds.seconds,
        )
        try:
            http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD)
            request = await _request(http, reader)
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            writer.write(self._answer(http, request))
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        finally:
            transport.abort()

    def _answer(self, http: h11.Connection, request: h11.Request) -> bytes:
        path = request.target.split(b"?")[0].decode("ascii", "replace")
        document = self._documents().get(path)
        fields = [("connection", "close"), ("x-content-type-options", "nosniff")]
        if document is None:
            status, body = 404, b""
        elif request.method != b"GET":
            status, body = 405, b""
            fields.append(("allow", "GET"))
        else:
            status, body = 200, document
            fields.append(("content-type", "application/json"))
        head = h11.Response(
            status_code=status, headers=[*fields, ("content-length", str(len(body)))]
        )
        parts = [http.send(head)]
        if request.method != b"HEAD":
            parts.append(http.send(h11.Data(data=body)))
        return b"".join(part for part in parts if part)


async def _request(http: h11.Connection, reader: asyncio.StreamReader) -> h11.Request:
    """The head of the one request; what follows it is not read."""
    while True:
        event = http.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            raise h11.RemoteProtocolError("no request")
        http.receive_data(await reader.read(_READ))
