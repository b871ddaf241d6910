"""Starts, watches and stops the servers under test, each by its own pid.

Owns: process trees, CPU time and memory read from /proc, readiness, free ports.
Must not: know what a server is for, or signal a process it did not start.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CORES = sorted(os.sched_getaffinity(0))[:2]
"""The two cores all measuring is done on, however many the machine has."""
READY_SECONDS = 60.0
STOP_SECONDS = 10.0
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG = 1


class BenchError(Exception):
    """A measurement that cannot be made or trusted; says what, where and how to mend it."""


def free_port() -> int:
    """A loopback TCP port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pinned(command: Sequence[str], cores: Sequence[int]) -> list[str]:
    """The command as it is run on these cores (`taskset` execs, so the pid stays the server's)."""
    return ["taskset", "-c", ",".join(str(core) for core in cores), *command]


@dataclass(frozen=True)
class Process:
    """A server started here, with the files its words went to."""

    name: str
    command: tuple[str, ...]
    child: subprocess.Popen[bytes]
    output: Path

    @property
    def pid(self) -> int:
        """The server's pid; its children belong to it."""
        return self.child.pid

    def stop(self) -> None:
        """Ends the server and whatever it started: TERM, ten seconds, then KILL."""
        family = tree([self.pid])
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        for pid in family - {self.pid}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def last_words(self) -> str:
        """The end of what the server wrote, for an error message."""
        return self.output.read_text(errors="replace")[-2000:].strip()


def stop_all(processes: Iterable[Process]) -> None:
    """Each of them, the last that was started first."""
    for process in reversed(list(processes)):
        process.stop()


def start(
    name: str, command: Sequence[str], folder: Path, environment: dict[str, str] | None = None
) -> Process:
    """Starts a server in its own session, so that Ctrl-C reaches only us and we stop it in order.

    The kernel ends it too when this process dies without a word (PR_SET_PDEATHSIG).
    """
    output = folder / f"{name}.output"
    with output.open("wb") as sink:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    return Process(name, tuple(command), child, output)


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and TERM wait until the block is done, and then count.

    A start that is cut in half would leave a server nobody knows of. The signals are caught, not
    ignored: what is ignored would stay ignored in every process started meanwhile.
    """
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda signal_, _frame: came.append(signal_))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def wait_until_listening(process: Process, port: int) -> None:
    """Returns when the port accepts; raises BenchError with the server's last words otherwise."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.child.poll() is not None:
            raise BenchError(
                f"{process.name} ended before it listened: {process.last_words()}\n"
                f"command: {' '.join(process.command)}"
            )
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise BenchError(f"{process.name} did not listen on port {port} in {READY_SECONDS:.0f} s")


def parent(pid: int) -> int:
    """The pid of who started it, or who took it over."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def tree(roots: Iterable[int]) -> set[int]:
    """The roots that live and all their descendants."""
    parents = {pid: int(fields[1]) for pid, fields in _stat_of_all()}
    family = {root for root in roots if root in parents}
    while True:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        if not more:
            return family
        family |= more


def cpu_seconds(roots: Iterable[int]) -> float:
    """User + system seconds of the trees under roots: all threads, and children that ended.

    /proc/PID/stat fields 14 to 17; the kernel scales them to the scheduler's own clock, so a
    window of some seconds is good to one tick (10 ms).
    """
    family = tree(roots)
    ticks = 0
    for pid, fields in _stat_of_all():
        if pid in family:
            ticks += sum(int(value) for value in fields[11:15])
    return ticks / TICKS_PER_SECOND


def machine_busy_seconds() -> float:
    """Seconds all cores together were busy since boot (steal counts: it was taken from us)."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = (
        int(value) for value in Path("/proc/stat").read_text().split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND


def _stat_of_all() -> Iterable[tuple[int, list[str]]]:
    """(pid, fields of /proc/PID/stat after the name) of every process; index 0 is the state."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError):
            text = Path(entry.path, "stat").read_text()
            yield int(entry.name), text.rpartition(")")[2].split()


@dataclass(frozen=True)
class Memory:
    """What one process holds, in KiB. PSS shares a page's weight among those who map it."""

    rss: int
    pss: int
    anonymous: int
    file: int


def memory(pid: int) -> Memory:
    """Reads /proc/PID/status and smaps_rollup."""
    status = _kib_fields(Path(f"/proc/{pid}/status"))
    rollup = _kib_fields(Path(f"/proc/{pid}/smaps_rollup"))
    return Memory(status["VmRSS"], rollup["Pss"], status["RssAnon"], status["RssFile"])


def _kib_fields(path: Path) -> dict[str, int]:
    fields = (line.split() for line in path.read_text().splitlines())
    return {
        words[0].rstrip(":"): int(words[1])
        for words in fields
        if len(words) == 3 and words[2] == "kB"
    }


@contextlib.contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """This process on these cores, for a client that is part of it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def whole_pss(roots: Iterable[int]) -> int:
    """KiB of PSS of all processes of the trees under roots."""
    return sum(memory(pid).pss for pid in tree(roots))
