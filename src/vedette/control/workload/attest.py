"""Who is at the other end of the Workload API's socket, as the kernel says (unix(7), proc(5)).

Owns: the selectors of a caller: user, group, executable and its digest. Must not: believe a caller, or look at a
process that only has the caller's number.

A pid alone names whoever has it now. With SO_PEERPIDFD (Linux 6.5) the socket itself gives a handle on the process that
connected: while that lives, nobody else has its pid, so what /proc says before a look at the handle is about it.
Without it the start time of the pid must be the same before and after, and its user that of the socket.
"""

from __future__ import annotations

import errno
import hashlib
import os
import select
import socket
import stat
import struct
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vedette.processes import start_ticks

_UCRED: Final = struct.Struct("3i")
_SO_PEERPIDFD: Final = 77  # asm-generic/socket.h; Python's socket module does not name it
_INT: Final = struct.Struct("i")
MAX_EXECUTABLE: Final = 1 << 30  # bytes; of a larger one no digest is taken
_REMEMBERED: Final = 1_024

FileKey = tuple[int, int, int, int, int]


@dataclass(slots=True)
class Peer:
    """The process that connected. `close` gives its handle back."""

    pid: int
    uid: int
    gid: int
    pidfd: int | None = None
    box: str | None = None
    """The name of the program in a box that this process speaks for; then nothing else is known of it."""
    started: int | None = field(default=None, repr=False)

    def close(self) -> None:
        """Lets go of the process."""
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None

    def is_alive(self) -> bool:
        """Whether the pid still is the process that connected."""
        if self.pidfd is not None:
            watched = select.poll()
            watched.register(self.pidfd, select.POLLIN)
            return not watched.poll(0)
        return self.started is not None and start_ticks(self.pid) == self.started


def peer_of(connected: socket.socket) -> Peer:
    """Who connected. Raises `OSError` when that process is gone already."""
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    try:
        (pidfd,) = _INT.unpack(connected.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, _INT.size))
    except OSError as error:
        # Anything else (EINVAL, ESRCH) is said of a process that has ended, whose pid may be another's by now.
        if error.errno != errno.ENOPROTOOPT:
            raise
        return Peer(pid, uid, gid, started=start_ticks(pid))
    os.set_inheritable(pidfd, False)
    return Peer(pid, uid, gid, pidfd)


class Attestor:
    """Finds selectors. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._digests: OrderedDict[FileKey, str] = OrderedDict()

    def selectors(self, peer: Peer) -> frozenset[str] | None:
        """Everything that is known of a caller, such as `unix:uid:1000`; None when a digest must be taken first: call
        `learn` in a thread, then ask again.

        What cannot be looked at (another user's process, for a node that is not root; a file that another one has
        taken the place of) gives no selector, and so matches less.
        """
        if peer.box is not None:
            return frozenset({f"vedette:run:{peer.box}"})
        found = {f"unix:uid:{peer.uid}", f"unix:gid:{peer.gid}"}
        program = _program(peer)
        if program is None:
            return frozenset(found)
        key, path = program
        if path is not None:
            found.add(f"unix:path:{path}")
        if key[2] <= MAX_EXECUTABLE:
            digest = self._known(key)
            if digest is None:
                return None
            found.add(f"unix:sha256:{digest}")
        return frozenset(found)

    def learn(self, peer: Peer) -> None:
        """Takes the digest of a caller's executable. One that may not be read has an empty one, which no entry can
        name; whatever else goes wrong is not remembered.
        """
        program = _program(peer)
        if program is None:
            return
        key, _ = program
        try:
            with open(_executable(peer), "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                read = _key(os.fstat(file.fileno()))
        except PermissionError:
            digest, read = "", key
        except OSError:
            return
        if read == key and peer.is_alive():
            self._remember(key, digest)

    def _known(self, key: FileKey) -> str | None:
        with self._lock:
            if key in self._digests:
                self._digests.move_to_end(key)
            return self._digests.get(key)

    def _remember(self, key: FileKey, digest: str) -> None:
        with self._lock:
            self._digests[key] = digest
            while len(self._digests) > _REMEMBERED:
                self._digests.popitem(last=False)


def _executable(peer: Peer) -> str:
    return f"/proc/{peer.pid}/exe"


def _program(peer: Peer) -> tuple[FileKey, str | None] | None:
    """The file that the caller runs, and its path where that leads to this very file; None when it cannot be seen."""
    link = _executable(peer)
    if peer.pid <= 0:  # a process that this one's pid namespace does not show
        return None
    try:
        held = os.stat(link)
        path = os.readlink(link)
        again = os.stat(link)
        owner = os.stat(f"/proc/{peer.pid}").st_uid
    except OSError:
        return None
    # A user who changed after connecting, or a program that began in between, is not what connected.
    if _key(held) != _key(again) or owner != peer.uid or not stat.S_ISREG(held.st_mode):
        return None
    if not peer.is_alive():
        return None
    return _key(held), path if _leads_to(path, held) else None


def _leads_to(path: str, held: os.stat_result) -> bool:
    """Not so for a removed file (`… (deleted)`), nor for one of another mount namespace."""
    try:
        named = Path(path).stat()
    except (OSError, ValueError):
        return False
    return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)


def _key(found: os.stat_result) -> FileKey:
    return (
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )
