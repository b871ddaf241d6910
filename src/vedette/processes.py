"""Starting, finding, watching and ending a node's processes by pid, whoever their parent is.

Owns: the command line that marks a process as part of a node, descriptor inheritance, pidfds, delays before a restart.
Must not: know when a process should run, or import more than the standard library: the smallest processes have it, too.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROLES = ("guardian", "supervisor", "engine", "control", "models", "model")
"""`models` is the keeper of the processes of models, each of which is a `model`."""

_LONGEST_WAIT = 1.0
_FIRST_DELAY = 0.1
_LOG_LIMIT = 16 * 1024 * 1024
_STAT_STATE, _STAT_START = (
    0,
    19,
)  # fields 3 and 22 of /proc/PID/stat (proc_pid_stat(5)), counted after the name


@dataclass(frozen=True, slots=True)
class Found:
    """A live process; `started` is its start time in clock ticks since boot and tells a reused pid apart."""

    pid: int
    started: int


def command_line(command: Sequence[str], role: str, home: Path) -> list[str]:
    """The arguments that start `command` as `role` of the node at `home`, and by which it is found again."""
    return [*command, "--role", role, "--home", str(home)]


def module_command(module: str) -> list[str]:
    """The command that runs a module with this interpreter, without the current folder on its path."""
    return [sys.executable, "-P", "-m", module]


def spawn(
    arguments: Sequence[str], environment: Mapping[str, str], descriptors: Iterable[int], log: Path
) -> int:
    """Starts a process in a session of its own (a Ctrl-C in the terminal is not for it); returns its pid.

    It inherits `descriptors` under their numbers and nothing else; its output goes to `log`, nowhere when the disk
    refuses that file.
    """
    kept = list(descriptors)
    output = _open_log(log)
    actions = [
        (os.POSIX_SPAWN_DUP2, output, 1),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
    ]
    for descriptor in kept:
        os.set_inheritable(descriptor, True)
    try:
        return os.posix_spawn(
            arguments[0],
            list(arguments),
            dict(environment),
            file_actions=actions,
            setsid=True,
            setsigmask=[],
            setsigdef=[
                signal.SIGPIPE,
                signal.SIGINT,
                signal.SIGTERM,
                signal.SIGHUP,
                signal.SIGCHLD,
            ],
        )
    finally:
        os.close(output)
        for descriptor in kept:
            os.set_inheritable(descriptor, False)


def _open_log(log: Path) -> int:
    """The log to append to, rotated when it is long; /dev/null when it cannot be had: a process matters more."""
    with contextlib.suppress(OSError):
        if log.stat().st_size > _LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))
    try:
        return os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None when there is none or it is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[_STAT_STATE] in "ZX" else int(fields[_STAT_START])


def find(home: Path, role: str) -> list[Found]:
    """The live processes of this user that run as `role` of the node at `home`, youngest first."""
    marks = ["--role", role, "--home", str(home)]
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        if _arguments(int(name))[-4:] == marks:
            started = start_ticks(int(name))
            if started is not None:
                found.append(Found(int(name), started))
    return sorted(found, key=lambda process: process.started, reverse=True)


def naming(folder: Path) -> list[int]:
    """The pids of all other processes of this user that have `folder`, or something in it, among their arguments.

    Also a child that has not yet become another program, which has the arguments of its parent.
    """
    marks = (str(folder), f"{folder}/")
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return [
        pid
        for pid in pids
        if pid != os.getpid()
        and any(word == marks[0] or word.startswith(marks[1]) for word in _arguments(pid))
    ]


def _arguments(pid: int) -> list[str]:
    try:
        if os.stat(f"/proc/{pid}/task/{pid}").st_uid not in (os.getuid(), 0):
            return []
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return raw.decode(errors="surrogateescape").rstrip("\0").split("\0")


def open_pidfd(pid: int, started: int | None = None) -> int | None:
    """A descriptor that becomes readable when the process ends; None when it is gone or the pid was reused."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    now = start_ticks(pid)
    if now is None or (started is not None and now != started):
        os.close(descriptor)
        return None
    return descriptor


def send(pidfd: int, number: signal.Signals) -> None:
    """Sends a signal; a process that has ended meanwhile is no error."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def has_ended(pidfd: int, timeout: float = 0.0) -> bool:
    """Whether the process ends within `timeout` seconds.

    A signal that comes just before a wait does not end the wait, and Python looks at it after: none is longer than a
    second.
    """
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        if poller.poll(max(0.0, min(left, _LONGEST_WAIT)) * 1000):
            return True
        if left <= _LONGEST_WAIT:
            return False


def restart_delay(failures: int, longest: float) -> float:
    """Seconds before the start after so many failures in a row: 0.1, 0.2, … `longest`."""
    return min(longest, _FIRST_DELAY * 2.0 ** min(failures - 1, 16))


def end_all(pids: Iterable[int], patience: float) -> None:
    """SIGTERM to all, and after `patience` seconds SIGKILL to those that are left. Returns when all have ended."""
    pidfds = [pidfd for pid in pids if (pidfd := open_pidfd(pid)) is not None]
    try:
        for pidfd in pidfds:
            send(pidfd, signal.SIGTERM)
        deadline = time.monotonic() + patience
        for pidfd in pidfds:
            if not has_ended(pidfd, max(0.0, deadline - time.monotonic())):
                send(pidfd, signal.SIGKILL)
                has_ended(pidfd, 5.0)
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


def reap() -> None:
    """Collects children that have ended, also those inherited from a dead supervisor."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
