"""One process of the keeper's: how it begins, what it says when it is ready, how it ends.

Owns: descriptors, environment and marks of a worker; the one line that it writes. Must not: decide when one runs;
`keeper_worker` does.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import signal
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vedette import processes
from vedette.models.keeper_state import WorkerError

READY_LIMIT: Final = 65_536
"""Bytes of the line that a worker writes."""
ROLE: Final = "model"
VARIABLE: Final = "VEDETTE_MODEL"

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_OWN_CODE: Final = "worker_failed"
_LEFTOVER_PATIENCE: Final = 5.0
_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")
_LONGEST_MESSAGE: Final = 1_000
_LONGEST_LOAD: Final = 1e12
_LONGEST_TEXT: Final = 131_071  # MAX_ARG_STRLEN of Linux, without the closing NUL
_HUNG: Final = 75  # EX_TEMPFAIL: what a worker ends with when a run does not stop
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class Process:
    """A worker's process. `line` is the read end of what it writes when it is ready; None once that was read.
    `exit_code` is there once it was collected, unless somebody else did.
    """

    pid: int
    pidfd: int
    line: int | None = None
    load_millis: float | None = None
    is_ready: bool = False
    exit_code: int | None = None
    heard: bytearray = field(default_factory=bytearray)

    def listen(self) -> WorkerError | None:
        """Reads on; `is_ready` when it has said so. Returns why it will never be."""
        if self.line is None:
            return None
        try:
            piece = os.read(self.line, READY_LIMIT + 1)
        except BlockingIOError:
            return None
        self.heard += piece
        if len(self.heard) > READY_LIMIT:
            error: WorkerError | None = failure(f"it said more than {READY_LIMIT} bytes")
        elif b"\n" in self.heard or (not piece and self.heard):
            error = self._take_line(bytes(self.heard.partition(b"\n")[0]))
        elif piece:
            return None
        else:
            # It has ended, or is about to: its end says more. One that goes on so is not ready in time.
            error = None
        self.hang_up()
        return error

    def _take_line(self, line: bytes) -> WorkerError | None:
        try:
            said = json.loads(line)
            if said["ready"] is True:
                took = float(said["loadMillis"])
                if not 0 <= took < _LONGEST_LOAD:  # nor what is no number: it would be no JSON
                    raise ValueError("loadMillis")
                self.load_millis, self.is_ready = took, True
                return None
            return failure(str(said["error"]["message"]), str(said["error"]["code"]))
        except (ValueError, RecursionError, KeyError, TypeError, OverflowError):
            return failure(f"it said {shown(line[:80].decode(errors='replace'))!r}")

    def hang_up(self) -> None:
        """Stops reading."""
        if self.line is not None:
            os.close(self.line)
            self.line = None

    def send(self, number: signal.Signals) -> None:
        """Sends a signal; that it has ended meanwhile is no error."""
        processes.send(self.pidfd, number)

    def has_ended(self, timeout: float = 0.0) -> bool:
        """Whether it ends within `timeout` seconds; it is not collected yet."""
        return processes.has_ended(self.pidfd, timeout)

    def collect(self) -> WorkerError:
        """Collects one that has ended, and says how it did."""
        self.hang_up()
        os.close(self.pidfd)
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        except ChildProcessError:
            return failure("it has ended")
        self.exit_code = code
        if code == _HUNG:
            return failure("a run took too long and did not stop")
        if code < 0:
            return failure(
                f"it was ended by {signal.Signals(-code).name}; log/models.log may say why"
            )
        return failure(f"it ended with exit code {code}; log/models.log may say why")


def failure(message: str, code: str = _OWN_CODE) -> WorkerError:
    """What went wrong, as far as it is safe to show."""
    known = code if _CODE.match(code) else _OWN_CODE
    return {"code": known, "message": shown(message)[:_LONGEST_MESSAGE]}


def shown(text: str) -> str:
    """Text of a worker's on one line, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def environment_of(config: Mapping[str, Any]) -> dict[str, str]:
    """All that a worker finds in its environment; `config` is what it is told."""
    passed = {
        name: os.environ[name]
        for name in ("PATH", "LANG", "TZ", "RUST_BACKTRACE")
        if name in os.environ
    }
    return {
        **passed,
        "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
        "HOME": "/nonexistent",
        "ORT_DISABLE_TELEMETRY": "1",
        VARIABLE: json.dumps(config, separators=(",", ":")),
    }


def marked(command: Sequence[str], home: Path, shown_as: str) -> list[str]:
    """The arguments of a worker: for people which model it is, and by which it is found again."""
    return processes.command_line([*command, "--model", shown_as], ROLE, home)


def start(arguments: Sequence[str], config: Mapping[str, Any], listener: int) -> Process:
    """Starts a worker with `config`, the listening socket and a pipe for its line; both keep their numbers.

    It ends with the keeper (PR_SET_PDEATHSIG), however the keeper ends. Raises `OSError`.
    """
    reader, writer = os.pipe()
    try:
        environment = environment_of({**config, "listenFd": listener, "readyFd": writer})
        if len(f"{VARIABLE}={environment[VARIABLE]}".encode()) > _LONGEST_TEXT:
            raise OSError(errno.E2BIG, "what a worker is told of it is too long")
        pid = _fork(arguments, environment, (listener, writer))
    except OSError:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    os.set_blocking(reader, False)
    return Process(pid, os.pidfd_open(pid), reader)


def adopt(pid: int, load_millis: float | None = None) -> Process | None:
    """A child that an earlier program of this process started, which was ready; None when there is none."""
    try:
        return Process(pid, os.pidfd_open(pid), load_millis=load_millis, is_ready=True)
    except ProcessLookupError:
        return None


def _fork(
    arguments: Sequence[str], environment: Mapping[str, str], inherited: Iterable[int]
) -> int:
    """By hand: os.posix_spawn has no word for PR_SET_PDEATHSIG. The keeper has one thread, so a fork is safe."""
    keeper = os.getpid()
    everything = signal.valid_signals()
    before = signal.pthread_sigmask(
        signal.SIG_BLOCK, everything
    )  # none is taken for the keeper's own
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != keeper:
            os._exit(127)
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        _pass_on(set(inherited))
        signal.set_wakeup_fd(-1)
        for number in everything - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)  # also what Python ignores: SIGPIPE, SIGXFSZ
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execve(arguments[0], list(arguments), dict(environment))
    except OSError as error:
        os.write(2, f"keeper: cannot start {arguments[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _pass_on(inherited: set[int]) -> None:
    """Has the next program inherit these, the standard ones, and nothing that the keeper may have been started with."""
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # the one of the listing is closed already
            os.set_inheritable(number, number in inherited or number <= 2)


def end_leftovers(home: Path, own: Container[int]) -> None:
    """Ends the workers of a keeper that is no more, but for `own`. The kernel has ended most of them already."""
    for found in processes.find(home, ROLE):
        if found.pid in own:
            continue
        pidfd = processes.open_pidfd(found.pid, found.started)
        if pidfd is not None:
            processes.send(pidfd, signal.SIGKILL)
            processes.has_ended(pidfd, _LEFTOVER_PATIENCE)
            os.close(pidfd)
