"""The Workload API on its socket, in a thread of control with a loop of its own.

Owns: that thread, its clockwork (renewals, idle connections) and how changes of other threads reach it. Must not: bind
the socket; `vedette up` does, so that callers wait and are not refused while control starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import resource
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from vedette.control.peers import is_engine
from vedette.control.supervisor.sockets import BACKLOG
from vedette.control.workload.attest import Peer
from vedette.control.workload.boxes import Boxes
from vedette.control.workload.connection import Connection, Connections, Limits
from vedette.control.workload.entries import Entry, Workloads
from vedette.control.workload.identities import Identities
from vedette.control.workload.joining import JoinDesk, JoinTokens
from vedette.control.workload.service import WorkloadApi
from vedette.control.workload.svids import Svids
from vedette.errors import VedetteError
from vedette.store.home import Home
from vedette.store.issued import IssuedSerials

_log = logging.getLogger(__name__)
TICK: Final = 1.0  # seconds between looks at what is due
_SWEEP: Final = 10  # ticks
_OTHER_FILES: Final = 512  # of control, besides callers; each of these has two


class WorkloadServer:
    """Serves the Workload API of a node from `start` to `stop`."""

    def __init__(
        self,
        home: Home,
        workloads: Workloads,
        identities: Identities,
        tick: float = TICK,
        joining: JoinTokens | None = None,
        boxes: Boxes | None = None,
    ) -> None:
        """`joining` has the join tokens that callers may redeem, `boxes` the programs in boxes."""
        self._boxes = boxes
        self._joining = joining
        self._home = home
        self._workloads = workloads
        self._identities = identities
        self._tick = tick
        self._issued = IssuedSerials(home.issued, identities.clock())
        self._svids = Svids(identities, self._is_kept, random.Random(), self._issued)
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="attest")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._service: WorkloadApi | None = None
        self._stopping: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        workloads.listen(self._entry_changed)
        identities.listen(self._trust_changed)

    def start(self, listener: socket.socket) -> None:
        """Serves callers of `listener`; returns when it does. What ended while control was away is revoked first."""
        try:
            self._identities.revoke(self._svids.ended_while_away(self._workloads.entries()))
        except VedetteError as error:
            _log.error("certificates of before the start are not revoked: %s", error)
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._serve, args=(listener, ready), name="workload-api", daemon=True
        )
        self._thread.start()
        ready.wait()

    def stop(self) -> None:
        """Ends every call and the thread."""
        if self._loop is not None and self._stopping is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._issued.close()

    def _serve(self, listener: socket.socket, ready: threading.Event) -> None:
        try:
            asyncio.run(self._run(listener, ready))
        finally:
            ready.set()  # also when it failed: control goes on without

    async def _run(self, listener: socket.socket, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        desk = None if self._joining is None else JoinDesk(self._joining, time.monotonic)
        self._service = WorkloadApi(
            self._workloads, self._identities, self._svids, self._threads, desk
        )
        connections = Connections(self._service, self._accepts, _limits())
        # Not `create_unix_server`, which from Python 3.13 on removes the socket's file when it closes.
        server = await self._loop.create_server(
            lambda: Connection(connections), sock=listener, backlog=BACKLOG
        )
        if self._boxes is not None:
            self._boxes.attach(self._loop, partial(_serve_box, connections))
        ready.set()
        clockwork = asyncio.create_task(self._turn(self._service, connections))
        await self._stopping.wait()
        server.close()
        if self._boxes is not None:
            self._boxes.detach()
        clockwork.cancel()
        self._service.close()
        await asyncio.sleep(0)
        for connection in connections:
            connection.close()

    async def _turn(self, service: WorkloadApi, connections: Connections) -> None:
        """Once a tick: what is due. One that fails must not be the last."""
        ticks = 0
        while True:
            await asyncio.sleep(self._tick)
            ticks += 1
            try:
                service.renew()
                if ticks % _SWEEP == 0:
                    connections.sweep(asyncio.get_running_loop().time())
                    self._identities.refresh()
            except Exception:  # noqa: BLE001 - the next turn may succeed
                _log.exception("a turn of the Workload API failed")

    def _accepts(self, peer: Peer) -> bool:
        """The engine has no business here, though it may run as the same user as a workload."""
        return not is_engine(peer.pid, self._home)

    def _is_kept(self, entry: Entry) -> bool:
        return self._workloads.get(entry.name) == entry

    def _entry_changed(self, name: str) -> None:
        """On the thread of whoever changed it: callers are told first, then serials that count no more are revoked."""
        serials = self._svids.end(name, self._workloads.get(name))
        service = self._service
        if service is not None:
            self._soon(lambda: service.entry_changed(name))
        self._identities.revoke(serials)

    def _trust_changed(self) -> None:
        service = self._service
        if service is not None:
            self._soon(service.trust_changed)

    def _soon(self, work: Callable[[], None]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(work)


async def _serve_box(
    connections: Connections, listener: socket.socket, workload: str
) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Connection(connections, workload), sock=listener)


def _limits() -> Limits:
    """As many connections as this process may have files for."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    usual = Limits()
    room = max(16, (soft - _OTHER_FILES) // 2)
    return Limits(
        connections=min(usual.connections, room),
        connections_of_user=min(usual.connections_of_user, room),
    )
