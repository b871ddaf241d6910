"""The listening sockets of models, which outlive the processes that serve them.

Owns: binding. Must not: read a byte of what callers send.
"""

from __future__ import annotations

import socket
from collections.abc import Container
from pathlib import Path
from typing import Final

BACKLOG: Final = 1024
"""Connections that wait while a worker starts; the kernel takes at most net.core.somaxconn."""


def bind(path: Path) -> socket.socket:
    """A listening socket at `path`, 0600, in place of what a dead process left there. Raises `OSError`."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def unbind(listener: socket.socket | None, path: Path) -> None:
    """Closes it. A worker that has it too goes on with what it has accepted."""
    if listener is not None:
        path.unlink(missing_ok=True)
        listener.close()


def remove_stale(folder: Path, kept: Container[str]) -> None:
    """Removes the sockets of workers that are not among `kept`."""
    for path in folder.glob("*.sock"):
        if path.stem not in kept:
            path.unlink(missing_ok=True)
