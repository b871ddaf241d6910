"""Passes what a program in a box says to the Workload API, which listens on a Unix socket outside.

Owns: the connections of one box, both ways, until the launcher ends. Must not: look at what passes.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from vedette.errors import VedetteError

_MOST: Final = 64  # connections of one box; clients have one each
_CHUNK: Final = 65_536


class Relay:
    """Serves `listener`, a socket inside of the box, from threads of its own."""

    def __init__(self, listener: socket.socket, find: Callable[[], Path]) -> None:
        """`find` opens the box's way to the Workload API, and says where it is; it is asked again when that is gone."""
        self._listener = listener
        self._find = find
        self._path: Path | None = None
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(_MOST)
        threading.Thread(target=self._accept, name="workload-api", daemon=True).start()

    def end(self) -> None:
        """Takes no more connections; those that there are end with their program."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                inside, _ = self._listener.accept()
                self._places.acquire()
                threading.Thread(target=self._serve, args=(inside,), daemon=True).start()

    def _serve(self, inside: socket.socket) -> None:
        try:
            with inside, self._connected() as outside:
                back = threading.Thread(target=_pump, args=(outside, inside), daemon=True)
                back.start()
                _pump(inside, outside)
                back.join()
        except (OSError, VedetteError) as error:
            print(f"vedette: the Workload API is not reached: {error}", file=sys.stderr)
        finally:
            self._places.release()

    def _connected(self) -> socket.socket:
        with self._lock:
            path = self._path = self._path or self._find()
        try:
            return _connect(path)
        except OSError:
            with self._lock:  # control was started anew
                if self._path == path:
                    self._path = self._find()
                path = self._path
            return _connect(path)


def _connect(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.connect(str(path))
    except OSError:
        made.close()
        raise
    return made


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
