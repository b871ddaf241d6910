"""The Workload API for programs in boxes (`vedette run`): no Unix sockets there, and the kernel vouches for none here.

Owns: a socket for each box, as long as its launcher lives, on which every caller is that box's program. Its launcher
passes on what the program says on the loopback of the box. Must not: be reached by another user: the sockets are 0600.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from vedette.clock import now, to_rfc3339
from vedette.control.supervisor.sockets import bind_unix
from vedette.control.workload.messages import BoxStatus, BoxWish
from vedette.errors import ConfigError, UnavailableError
from vedette.ids import require_name

T = TypeVar("T")
MAX_BOXES: Final = 1_000
_PATIENCE: Final = 10.0  # seconds

Serve = Callable[[socket.socket, str], Awaitable[asyncio.AbstractServer]]


@dataclass(slots=True)
class _Box:
    workload: str
    pid: int
    pidfd: int
    path: Path
    since: datetime
    server: asyncio.AbstractServer


class Boxes:
    """The boxes of a node. `open`, `close` and `list` may be called from any thread but the loop's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._boxes: dict[str, _Box] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serve: Serve | None = None

    def attach(self, loop: asyncio.AbstractEventLoop, serve: Serve) -> None:
        """Has sockets served by `serve` on `loop`. What an earlier control left is removed."""
        for left in self._folder.glob("box-*.sock"):
            left.unlink(missing_ok=True)
        self._loop, self._serve = loop, serve

    def detach(self) -> None:
        """On the loop: ends every box's socket."""
        self._serve = None
        for name in tuple(self._boxes):
            self._end(name)

    def open(self, wish: BoxWish) -> BoxStatus:
        """A socket for the box whose launcher is the process `wish.pid`, until that ends.

        Raises `ConfigError` invalid_name, box_unknown; `UnavailableError` box_refused.
        """
        workload = require_name(wish.workload, "workload")
        try:
            pidfd = os.pidfd_open(wish.pid)
        except OSError as error:
            raise ConfigError("box_unknown", f"there is no process {wish.pid}") from error
        return self._on_loop(self._open(workload, wish.pid, pidfd))

    def close(self, name: str) -> None:
        """Ends a box's socket. Raises `ConfigError` box_unknown."""
        if name not in self._boxes:
            raise ConfigError("box_unknown", f"there is no box {name[:80]!r}")
        self._on_loop(self._close(name))

    def list(self) -> list[BoxStatus]:
        """The boxes, oldest first."""
        return [_status(name, box) for name, box in tuple(self._boxes.items())]

    def _on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            work.close()
            raise UnavailableError("box_refused", "the Workload API is not served")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE)

    async def _open(self, workload: str, pid: int, pidfd: int) -> BoxStatus:
        serve, loop = self._serve, asyncio.get_running_loop()
        try:
            if serve is None or len(self._boxes) >= MAX_BOXES:
                raise UnavailableError("box_refused", "the Workload API takes no more boxes")
            name = secrets.token_hex(4)
            path = self._folder / f"box-{name}.sock"
            server = await serve(bind_unix(path), workload)
        except BaseException:
            os.close(pidfd)
            raise
        box = _Box(workload, pid, pidfd, path, now(), server)
        self._boxes[name] = box
        loop.add_reader(pidfd, self._end, name)  # readable once the process has ended
        return _status(name, box)

    async def _close(self, name: str) -> None:
        self._end(name)

    def _end(self, name: str) -> None:
        box = self._boxes.pop(name, None)
        if box is None:
            return
        asyncio.get_running_loop().remove_reader(box.pidfd)
        os.close(box.pidfd)
        box.server.close()
        box.path.unlink(missing_ok=True)


def _status(name: str, box: _Box) -> BoxStatus:
    return BoxStatus(
        name=name,
        workload=box.workload,
        pid=box.pid,
        since=to_rfc3339(box.since),
        socket=str(box.path),
    )
