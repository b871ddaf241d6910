"""Signals as something to poll, and the few process attributes the supervisor and the guardian set.

Owns: the wake-up socket, PR_SET_CHILD_SUBREAPER, the supervisor's log line. Must not: decide what a signal means.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket

from vedette.clock import now, to_rfc3339

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


class SignalSocket:
    """Gets one byte for each signal, so that one poll waits for signals and processes alike."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self._reader, writer = socket.socketpair()
        self._reader.setblocking(False)
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, _ignore)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._reader.fileno()

    def take(self) -> set[int]:
        """The signals that came since the last call."""
        try:
            return set(self._reader.recv(4096))
        except BlockingIOError:
            return set()


def _ignore(_number: int, _frame: object) -> None:
    """The wake-up socket has the signal already."""


def become_subreaper() -> None:
    """Makes the children of a dead supervisor ours to reap, so that none stays a zombie. Failing is harmless."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def say(who: str, message: str) -> None:
    """One line in log/supervisor.log."""
    line = f"{to_rfc3339(now())} {who}: {message}\n".encode(errors="replace")
    # A full disk must cost the line, not whoever says it. Not print: what its buffer could not write, it tries again at
    # the end of the process, and turns exit code 0 into 120.
    with contextlib.suppress(OSError):
        os.write(2, line)
