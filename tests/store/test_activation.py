"""Activation survives death at every point: afterwards the old snapshot is active, or the new one."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.store.places import envelope, home_in

from vedette.errors import UnavailableError
from vedette.store import activation
from vedette.store.activation import Active, activate, heal, publish_active, read_active
from vedette.store.collect import collect_garbage
from vedette.store.history import Entry, History
from vedette.store.home import Home
from vedette.store.snapshots import SnapshotStore

_CALLS = ("open", "write", "fsync", "replace")


def _activate(home: Home, history: History, number: int) -> Entry:
    digest, data = envelope(number)
    return activate(home, history, digest=digest, envelope=data, action="deploy", actor="uid:0")


def _in_child(work: Callable[[], None]) -> int:
    """Runs `work` in a forked process and returns its wait status."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def _die_at(point: int, history: History) -> None:
    """Kills this process when the next `point` file calls and SQL statements have been made."""
    made = 0

    def step(*_: Any) -> None:
        nonlocal made
        made += 1
        if made > point:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in _CALLS:
        _before(name, step)
    history._connection.set_trace_callback(step)


def _before(name: str, step: Callable[[], None]) -> None:
    real = getattr(os, name)

    def stepping(*values: Any, **options: Any) -> Any:
        step()
        return real(*values, **options)

    setattr(os, name, stepping)


def _die_while_activating(home: Home, number: int, point: int) -> bool:
    """Whether the child died before it was done."""

    def work() -> None:
        history = History(home.database)
        _die_at(point, history)
        _activate(home, history, number)

    status = _in_child(work)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    return status != 0


def _require_whole(home: Home, history: History) -> str:
    """Heals, and checks that files and history agree. Returns the active digest."""
    entry = heal(home, history)
    assert entry is not None
    assert read_active(home) == Active(entry.digest, entry.generation)
    assert SnapshotStore(home.snapshots).get(entry.digest) == history.envelope(entry.digest)
    return entry.digest


def test_death_at_every_point_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    outcomes = []
    for point in range(100):
        home = home_in(tmp_path / str(point))
        history = History(home.database)
        _activate(home, history, 1)
        history.close()
        died = _die_while_activating(home, 2, point)
        before_healing = read_active(home)
        assert before_healing is not None
        history = History(home.database)
        outcomes.append(_require_whole(home, history))
        history.close()
        if not died:
            break
    old, new = envelope(1)[0], envelope(2)[0]
    assert outcomes[-1] == new
    assert len(outcomes) > 12
    switch = outcomes.index(new)
    assert outcomes == [old] * switch + [new] * (len(outcomes) - switch)
    assert 0 < switch < len(outcomes) - 4  # active.json is written after the decision


def test_what_was_acknowledged_survives_a_kill_at_any_moment(tmp_path: Path) -> None:
    home = home_in(tmp_path)
    History(home.database).close()
    chance = random.Random(3)
    for _ in range(15):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            _activate_for_ever(home, writer)
        os.close(writer)
        first = os.read(reader, 64)
        time.sleep(chance.uniform(0, 0.04))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reader, "rb") as pipe:
            acknowledged = int((first + pipe.read()).split()[-1])
        history = History(home.database)
        active = history.active()
        assert (active.generation if active else 0) >= acknowledged
        if active:
            _require_whole(home, history)
        history.close()
    assert acknowledged >= 15


def _activate_for_ever(home: Home, writer: int) -> None:
    try:
        history = History(home.database)
        while True:
            last = history.active()
            entry = _activate(home, history, last.generation + 1 if last else 1)
            os.write(writer, b"%d " % entry.generation)
    finally:
        os._exit(99)


def test_leftovers_of_the_dead_are_collected(tmp_path: Path) -> None:
    home = home_in(tmp_path)
    history = History(home.database)
    _activate(home, history, 1)
    history.close()
    assert _die_while_activating(home, 2, 2)
    assert list(home.snapshots.glob(".*.tmp"))
    history = History(home.database)
    collect_garbage(home, history, lambda _: (), grace_seconds=-1)
    assert not list(home.snapshots.glob(".*.tmp"))


def test_healing_brings_active_json_forward(tmp_path: Path) -> None:
    home = home_in(tmp_path)
    history = History(home.database)
    assert heal(home, history) is None
    _activate(home, history, 1)
    second = _activate(home, history, 2)
    publish_active(home, envelope(1)[0], 1)
    SnapshotStore(home.snapshots).remove(second.digest)
    assert _require_whole(home, history) == second.digest
    home.active_file.write_bytes(b"\0" * 10)
    assert read_active(home) is None
    assert _require_whole(home, history) == second.digest
    SnapshotStore(home.snapshots).path(second.digest).write_bytes(b"damaged")
    assert _require_whole(home, history) == second.digest


@pytest.mark.parametrize(
    "text", ["[]", '{"digest":"x","generation":1}', '{"digest":null}', '{"generation":1}', "null"]
)
def test_anything_else_in_active_json_reads_as_nothing(tmp_path: Path, text: str) -> None:
    home = home_in(tmp_path)
    home.active_file.write_text(text)
    assert read_active(home) is None


def test_a_full_disk_before_the_decision_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_in(tmp_path)
    history = History(home.database)
    _activate(home, history, 1)

    def full(*_: object) -> None:
        raise UnavailableError("disk_full", "full")

    monkeypatch.setattr(activation.SnapshotStore, "put", full)
    with pytest.raises(UnavailableError):
        _activate(home, history, 2)
    monkeypatch.undo()
    assert _require_whole(home, history) == envelope(1)[0]
