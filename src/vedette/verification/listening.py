"""Which sockets the processes of a node listen on, as the kernel has it (proc_net(5)).

Owns: reading /proc. Must not: judge what is found.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterable
from operator import itemgetter
from pathlib import Path
from typing import Final

_LISTEN: Final = "0A"
_ACCEPTS: Final = 0x10000  # __SO_ACCEPTCON


def tcp_listeners(pids: Iterable[int]) -> set[tuple[str, int]]:
    """Address and port of every TCP socket that listens and that one of these processes holds.

    Of a process that this user may not look at (an engine of somebody who is not root), they are those of its user that
    nobody holds who can be looked at.
    """
    found = set()
    for pid in pids:
        held = _held(pid)
        for table in ("tcp", "tcp6"):
            for line in _lines(pid, table):
                address, state, uid, inode = itemgetter(1, 3, 7, 9)(line.split())
                if state != _LISTEN:
                    continue
                if inode in held if held is not None else _is_nobodys(inode, int(uid), pid):
                    found.add(_address(address))
    return found


def unix_listeners(pids: Iterable[int]) -> set[str]:
    """Path of every Unix socket that listens and that one of these processes holds, as far as they can be looked at."""
    found = set()
    for pid in pids:
        held = _held(pid) or set()
        for line in _lines(pid, "unix"):
            parts = line.split(maxsplit=7)
            if len(parts) > 7 and int(parts[3], 16) & _ACCEPTS and parts[6] in held:
                found.add(parts[7])
    return found


def _is_nobodys(inode: str, uid: int, pid: int) -> bool:
    """Whether a socket of the user of `pid` is held by none of the processes that can be looked at."""
    # /proc/PID itself is root's where a process may not be looked at (proc(5)); its tasks are not.
    if os.stat(f"/proc/{pid}/task/{pid}").st_uid != uid:
        return False
    others = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return not any(inode in (_held(other) or ()) for other in others)


def _held(pid: int) -> set[str] | None:
    """Inodes of the sockets that a process has open; None where this user may not look."""
    inodes = set()
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except PermissionError:
        return None
    except FileNotFoundError:
        return set()
    for name in names:
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
