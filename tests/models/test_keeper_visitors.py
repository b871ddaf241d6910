"""Callers of a model that nobody serves: what each is told, and that none is lost or stays for ever."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from vedette.models import keeper_sockets
from vedette.models.keeper_visitors import LINGER, LONGEST, MOST, PATIENCE, Visitors, refusal

ANSWER = refusal("the model is being loaded", 2.5)
HEAD = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: m\r\ncontent-length: 4\r\n\r\n"


class Door:
    """A listening socket and those who come in by it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listener = keeper_sockets.bind(path)
        self.visitors = Visitors()
        self.callers: list[socket.socket] = []

    def call(self, sent: bytes = b"") -> socket.socket:
        """Somebody connects and says something."""
        caller = socket.socket(socket.AF_UNIX)
        caller.settimeout(60.0)
        caller.connect(str(self.path))
        caller.sendall(sent)
        self.callers.append(caller)
        return caller

    def step(self, moment: float = 0.0) -> None:
        """As the keeper does."""
        self.visitors.accept(self.listener, moment)
        self.visitors.step(moment, ANSWER)

    def close(self) -> None:
        """Ends all of it."""
        for caller in self.callers:
            caller.close()
        self.visitors.close()
        self.listener.close()


@pytest.fixture
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    door = Door(tmp_path_factory.mktemp("d") / "s")
    yield door
    door.close()


def all_of(caller: socket.socket) -> bytes:
    """All that is said until the other side has finished."""
    found = b""
    while piece := caller.recv(65_536):
        found += piece
    return found


def test_the_answer_is_http_and_says_when_to_come_again() -> None:
    head, _, body = ANSWER.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 503 Service Unavailable"
    assert {"retry-after: 3", "connection: close", f"content-length: {len(body)}"} <= set(lines)
    assert body == b'{"error": "the model is being loaded"}'
    assert b"retry-after: 1\r\n" in refusal("x", -5.0)
    assert b"retry-after: 3600\r\n" in refusal("x", 1e9)


def test_who_asks_is_answered_and_is_gone_when_it_has_closed(door: Door) -> None:
    caller = door.call(HEAD + b"body")
    door.step()
    assert all_of(caller) == ANSWER
    assert len(door.visitors.descriptors()) == 1
    caller.close()
    door.step()
    assert door.visitors.descriptors() == []


def test_a_head_in_pieces_is_answered_when_its_end_is_there_and_not_before(door: Door) -> None:
    caller = door.call()
    caller.setblocking(False)
    for byte in HEAD[:-1]:
        caller.sendall(bytes([byte]))
        door.step()
        with pytest.raises(BlockingIOError):
            caller.recv(1)
    caller.setblocking(True)
    caller.sendall(HEAD[-1:])
    door.step()
    assert all_of(caller) == ANSWER


def test_a_body_larger_than_any_buffer_costs_nobody_the_answer(door: Door) -> None:
    caller = door.call(HEAD)
    door.step()
    sent = 0
    caller.setblocking(False)
    while sent < 16 << 20:
        try:
            sent += caller.send(bytes(1 << 20))
        except BlockingIOError:
            door.step()
    caller.setblocking(True)
    assert all_of(caller) == ANSWER


def test_who_says_nothing_leaves_in_time_and_who_goes_on_for_ever_too(door: Door) -> None:
    silent = door.call(b"POST / HTTP/1.1\r\n")
    told = door.call(HEAD)
    door.step(0.0)
    assert door.visitors.due() == LINGER
    door.step(LINGER)
    assert all_of(told) == ANSWER
    assert door.visitors.due() == PATIENCE
    door.step(PATIENCE)
    assert all_of(silent) == b""
    assert door.visitors.due() is None
    going_on = door.call(HEAD)
    moment = 100.0
    while door.visitors.descriptors() or moment == 100.0:
        door.step(moment)
        moment += LINGER / 2
        assert moment <= 100.0 + LONGEST + LINGER
        if door.visitors.descriptors():
            going_on.sendall(b"x")


def test_a_head_without_an_end_is_answered_all_the_same(door: Door) -> None:
    caller = door.call(b"GET / HTTP/1.1\r\n" + b"x" * 70_000)
    door.step()
    assert all_of(caller) == ANSWER


def test_more_than_there_is_room_for_wait_until_one_has_gone(door: Door) -> None:
    for _ in range(MOST):
        door.call(HEAD)
    late = door.call(HEAD)
    door.step()
    assert len(door.visitors.descriptors()) == MOST
    assert not door.visitors.has_room()
    door.callers[0].close()
    door.step()
    door.step()
    assert all_of(late) == ANSWER


def test_who_goes_away_before_the_answer_harms_nobody(door: Door) -> None:
    caller = door.call(HEAD)
    caller.close()
    other = door.call(HEAD)
    door.step()
    assert all_of(other) == ANSWER


def test_those_who_are_there_are_handed_to_the_next_program(door: Door) -> None:
    half, told = door.call(HEAD[:-2]), door.call(HEAD)
    door.step()
    rows = door.visitors.hand_over()
    assert all(os.get_inheritable(row["fd"]) for row in rows)
    door.visitors.keep()
    assert not any(os.get_inheritable(row["fd"]) for row in rows)
    heirs = Visitors()
    heirs.take_over([{**row, "fd": os.dup(row["fd"])} for row in rows], 0.0)
    door.visitors.close()
    half.sendall(HEAD[-2:])
    heirs.step(0.0, ANSWER)
    assert (all_of(half), all_of(told)) == (ANSWER, ANSWER)
    heirs.close()
