"""The engine's process of the twin: it serves as any other, and when it was told to stop, attacks from inside.

Owns: what an engine that was taken over would try, in the very process that the kernel confines, and writing down how
each try ended. Must not: try anything before the engine has drained. Modules are imported first: afterwards the kernel
lets nothing be read.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from vedette.engine import process

REPORT: Final = "inside.json"
DID_IT: Final = "did it"
_PTRACE_SEIZE: Final = (
    0x4206  # attaches without stopping: this must do no harm where nothing refuses it
)
_DETACH: Final = 2


def main() -> int:
    """Runs the engine, then the attacks. Exit code of the engine."""
    home = Path(sys.argv[sys.argv.index("--home") + 1])
    ended = process.main()
    attempt_all(home)
    return ended


def attempt_all(home: Path) -> dict[str, str]:
    """How each attempt ended, by name: `did it` or the name of an errno; kept in the spool, the one place where an
    engine may write.
    """
    found = {name: _ending(attempt) for name, attempt in _attempts(home).items()}
    # A program that starts takes the place of this one, so what is known is written first.
    found["start a program"] = DID_IT
    _keep(home, found)
    found["start a program"] = _ending(lambda: os.execv("/bin/true", ["true"]))
    _keep(home, found)
    return found


def _attempts(home: Path) -> dict[str, Callable[[], object]]:
    other = os.getppid()  # the supervisor
    return {
        # what an engine needs, for the control
        "may write the spool": lambda: _write(home / "spool" / "inside.txt"),
        "may read the snapshot": lambda: _read(home / "engine" / "active.json"),
        "may call out over TCP": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).close(),
        # what nobody needs
        "read the CA's key": lambda: _read(home / "control" / "ca.key"),
        "read the key of snapshots": lambda: _read(home / "control" / "signing.key"),
        "read the key of tokens": lambda: _read(home / "control" / "token.key"),
        "read the seal": lambda: _read(home / "control" / "seal.key"),
        "read /etc/passwd": lambda: _read(Path("/etc/passwd")),
        "change what it serves": lambda: _write(home / "engine" / "active.json.new"),
        "reach the admin socket": lambda: _connect(home / "run" / "admin.sock"),
        "open a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
        "open a packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
        "open a raw socket": lambda: socket.socket(
            socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP
        ).close(),
        "listen on a port": _listen,
        "trace another process": lambda: _call("ptrace", _PTRACE_SEIZE, other, 0, 0),
        "signal another process": lambda: os.kill(other, 0),
        "mount": lambda: _call("mount", b"none", b"/nowhere-of-vedette", b"tmpfs", 0, None),
    }


def _read(path: Path) -> None:
    with path.open("rb") as file:
        file.read(1)


def _write(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"x")


def _connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as plain:
        plain.connect(str(path))


def _listen() -> None:
    with socket.socket() as plain:
        plain.bind(("127.0.0.1", 0))
        plain.listen(1)


def _mount(folder: Path) -> None:
    """On a folder of its own, and taken away at once where it succeeds."""
    folder.mkdir(exist_ok=True)
    target = os.fsencode(folder)
    _call("mount", b"none", target, b"tmpfs", 0, None)
    _call("umount2", target, _DETACH)


def _call(name: str, *arguments: object) -> None:
    ctypes.set_errno(0)
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), name)


def _ending(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return DID_IT


def _keep(home: Path, found: dict[str, str]) -> None:
    with (home / "spool" / REPORT).open("w", encoding="utf-8") as file:
        json.dump(found, file)


if __name__ == "__main__":
    sys.exit(main())
