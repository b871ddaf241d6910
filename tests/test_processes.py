"""Processes by pid: waiting for their end, and for how long the next start waits."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from vedette import processes


class InterruptedWaitError(Exception):
    """What the signal of a test does."""


def test_a_signal_just_before_a_wait_is_noticed_while_it_lasts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    class Poller:
        def register(self, *_: int) -> None:
            """Whatever it is."""

        def poll(self, millis: float) -> list[int]:
            """As one that a signal did not wake: it goes on to its end."""
            waits.append(millis)
            signal.raise_signal(signal.SIGUSR1)
            return []

    def told(*_: object) -> None:
        raise InterruptedWaitError

    monkeypatch.setattr(processes.select, "poll", Poller)
    before = signal.signal(signal.SIGUSR1, told)
    try:
        with pytest.raises(InterruptedWaitError):
            processes.has_ended(0, 3_600.0)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert waits == [1_000.0]


def test_a_wait_is_as_long_as_is_said_and_ends_with_the_process() -> None:
    sleeping = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    pidfd = processes.open_pidfd(sleeping.pid)
    assert pidfd is not None
    started = time.monotonic()
    assert not processes.has_ended(pidfd, 1.2)
    assert time.monotonic() - started >= 1.2
    assert not processes.has_ended(pidfd)
    processes.send(pidfd, signal.SIGKILL)
    assert processes.has_ended(pidfd, 120.0)
    sleeping.wait()


def test_delays_double_up_to_the_longest() -> None:
    assert [processes.restart_delay(count, 0.5) for count in (1, 2, 3, 4, 10**6)] == [
        0.1,
        0.2,
        0.4,
        0.5,
        0.5,
    ]
