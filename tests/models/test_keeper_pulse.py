"""A process that answers is taken for alive, whoever else is connected; one that does not, is not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from vedette.models.keeper_pulse import INTERVAL, LOOKS, PATIENCE, Pulse

QUESTION = b"GET /ready HTTP/1.1\r\nhost: m\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


class Process:
    """The other end: it takes a connection when it is told to, and answers likewise."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.listener.settimeout(10)
        self._open: list[socket.socket] = []

    def accept(self) -> socket.socket:
        connection, _ = self.listener.accept()
        connection.settimeout(10)
        self._open.append(connection)
        return connection

    def is_asked(self, connection: socket.socket) -> bool:
        """Whether a question has come, which is read."""
        connection.setblocking(False)
        try:
            return connection.recv(4096) == QUESTION
        except BlockingIOError:
            return False

    def fill(self) -> None:
        """Callers have all the places that there are, and those in the kernel's queue."""
        while True:
            caller = socket.socket(socket.AF_UNIX)
            caller.setblocking(False)
            self._open.append(caller)
            try:
                caller.connect(str(self.path))
            except BlockingIOError:
                return

    def close(self) -> None:
        for each in (self.listener, *self._open):
            each.close()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path / "m.sock")
    yield process
    process.close()


@pytest.fixture
def pulse(process: Process) -> Iterator[Pulse]:
    pulse = Pulse(process.path, QUESTION)
    yield pulse
    pulse.forget()


def test_one_that_answers_is_alive_though_callers_have_every_other_place(
    process: Process, pulse: Pulse
) -> None:
    moment = 0.0
    assert pulse.is_there(moment)
    connection = process.accept()
    process.fill()
    for _ in range(3 * LOOKS):
        assert process.is_asked(connection)
        connection.sendall(ANSWER)
        assert pulse.is_there(moment)
        assert pulse.due() == moment + INTERVAL
        assert not process.is_asked(connection), "it is asked now and then"
        moment += INTERVAL
        assert pulse.is_there(moment)


def test_one_that_answers_no_more_is_not_alive_after_some_looks(
    process: Process, pulse: Pulse
) -> None:
    assert pulse.is_there(0.0)
    connection = process.accept()
    assert process.is_asked(connection)
    connection.sendall(ANSWER)
    assert pulse.is_there(1.0)
    silent = 1.0 + INTERVAL
    for look in range(LOOKS):
        assert pulse.is_there(silent + look * PATIENCE)
    assert not pulse.is_there(silent + LOOKS * PATIENCE)


def test_one_that_ends_the_connection_is_asked_on_another(process: Process, pulse: Pulse) -> None:
    assert pulse.is_there(0.0)
    process.accept().close()
    assert pulse.is_there(1.0)
    assert pulse.descriptors() == []
    assert pulse.is_there(1.0 + INTERVAL)
    again = process.accept()
    assert process.is_asked(again)
    again.sendall(ANSWER)
    assert pulse.is_there(2.0 + INTERVAL)
    # An end while nothing is awaited is found when it is asked the next time.
    again.close()
    assert pulse.is_there(2.0 + 2 * INTERVAL)
    assert process.is_asked(process.accept())


def test_one_that_takes_no_connection_is_not_alive_and_is_asked_again_until_then(
    process: Process, pulse: Pulse
) -> None:
    process.fill()
    assert pulse.is_there(0.0)
    for look in range(LOOKS):
        assert pulse.is_there(INTERVAL + look * PATIENCE)
        assert pulse.descriptors() == []
    assert not pulse.is_there(INTERVAL + LOOKS * PATIENCE)
    process.accept()  # there is room
    pulse.forget()
    assert pulse.is_there(100.0)
    assert len(pulse.descriptors()) == 1
