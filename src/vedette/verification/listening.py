"""Which sockets the processes of a node listen on, as the kernel has it (proc_net(5)).

Owns: reading /proc. Must not: judge what is found.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_LISTEN: Final = "0A"
_ACCEPTS: Final = 0x10000  # __SO_ACCEPTCON


def tcp_listeners(pids: Iterable[int]) -> set[tuple[str, int]]:
    """Address and port of every TCP socket that listens and that one of these processes holds."""
    found = set()
    for pid in pids:
        held = _held(pid)
        for table in ("tcp", "tcp6"):
            for line in _lines(pid, table):
                parts = line.split()
                if parts[3] == _LISTEN and parts[9] in held:
                    found.add(_address(parts[1]))
    return found


def unix_listeners(pids: Iterable[int]) -> set[str]:
    """Path of every Unix socket that listens and that one of these processes holds."""
    found = set()
    for pid in pids:
        held = _held(pid)
        for line in _lines(pid, "unix"):
            parts = line.split(maxsplit=7)
            if len(parts) > 7 and int(parts[3], 16) & _ACCEPTS and parts[6] in held:
                found.add(parts[7])
    return found


def _held(pid: int) -> set[str]:
    """Inodes of the sockets that a process has open. Raises `OSError` for a process that may not be looked at."""
    inodes = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    return inodes


def _lines(pid: int, table: str) -> list[str]:
    try:
        return Path(f"/proc/{pid}/net/{table}").read_text("utf-8", "replace").splitlines()[1:]
    except FileNotFoundError:
        return []


def _address(text: str) -> tuple[str, int]:
    """`0100007F:1F90` in the byte order of this machine, a word of 32 bits at a time."""
    address, _, port = text.partition(":")
    words = [int(address[place : place + 8], 16) for place in range(0, len(address), 8)]
    packed = b"".join(struct.pack("=I", word) for word in words)
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, packed), int(port, 16)
