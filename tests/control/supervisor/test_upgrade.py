"""A second engine takes over from the first, or the first goes on as if nothing had been."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from tests.control.supervisor.test_supervise import Load, eventually, state_of

from vedette import processes
from vedette.control import upgrade as asking
from vedette.control.supervisor import launch, supervise
from vedette.control.supervisor.state import SupervisorState
from vedette.control.supervisor.upgrade import UpgradeState, read_upgrade
from vedette.errors import ConfigError, UnavailableError
from vedette.store.home import Home


def ask(home: Home, **parts: bool) -> None:
    """Asks the supervisor as `vedette upgrade` does."""
    supervisor = state_of(home).supervisor.pid
    assert supervisor is not None
    UpgradeState(id=f"test-{time.monotonic_ns()}", **parts).write(home.upgrade_file)
    os.kill(supervisor, signal.SIGUSR1)


def state(home: Home) -> UpgradeState:
    found = read_upgrade(home.upgrade_file)
    assert found is not None
    return found


def ended(home: Home) -> UpgradeState:
    eventually(lambda: state(home).state in ("done", "failed"))
    return state(home)


def engines(home: Home) -> list[int]:
    return [found.pid for found in processes.find(home.root, "engine")]


def pids(supervised: SupervisorState) -> tuple[int | None, int | None, int | None]:
    return supervised.supervisor.pid, supervised.engine.pid, supervised.control.pid


def test_engine_and_control_are_replaced_and_nobody_is_refused(whole_node: Home) -> None:
    before = state_of(whole_node)
    with Load(before.listeners[0]["address"]) as load:
        eventually(lambda: len(load.answers - {b""}) == 1)
        ask(whole_node)
        assert ended(whole_node).reason is None
        eventually(lambda: len(load.answers - {b""}) == 2)
    launch.wait_until_ready(whole_node)
    after = state_of(whole_node)
    assert load.refused == []
    assert after.supervisor.pid == before.supervisor.pid, "the same process with a new program"
    assert after.engine.pid not in (None, before.engine.pid)
    assert after.control.pid not in (None, before.control.pid)
    assert (after.engine.restarts, after.control.restarts) == (0, 0), "neither failed"
    assert engines(whole_node) == [after.engine.pid]


def test_the_keeper_of_models_goes_on_as_a_new_program_under_its_pid(whole_node: Home) -> None:
    eventually(whole_node.models_state.exists)
    before = state_of(whole_node).models
    ask(whole_node)
    assert ended(whole_node).reason is None
    eventually(lambda: "going on as what is installed now" in whole_node.models_log.read_text())
    after = state_of(whole_node).models
    assert (after.pid, after.restarts) == (before.pid, 0)


def test_control_alone_can_be_replaced(whole_node: Home) -> None:
    before = state_of(whole_node)
    ask(whole_node, engine=False)
    assert ended(whole_node).state == "done"
    launch.wait_until_ready(whole_node)
    after = state_of(whole_node)
    assert after.engine.pid == before.engine.pid
    assert after.control.pid != before.control.pid
    assert "going on" not in whole_node.models_log.read_text(), "what serves is left alone"


def test_an_engine_that_cannot_serve_does_not_take_over(whole_node: Home) -> None:
    before = state_of(whole_node)
    (whole_node.engine / "refuse").write_text("")
    ask(whole_node)
    failed = ended(whole_node)
    assert failed.state == "failed"
    assert "told to refuse" in (failed.reason or "")
    assert pids(state_of(whole_node)) == pids(before)
    eventually(lambda: engines(whole_node) == [before.engine.pid])


def test_an_engine_that_dies_before_it_is_ready_is_reported_with_its_last_words(
    whole_node: Home,
) -> None:
    before = state_of(whole_node)
    (whole_node.root / "mute").touch()
    ask(whole_node)
    eventually(lambda: len(engines(whole_node)) == 2)
    whole_node.engine_log.write_text("error: the disk is made of cheese\n")
    [fresh] = [pid for pid in engines(whole_node) if pid != before.engine.pid]
    os.kill(fresh, signal.SIGKILL)
    assert "made of cheese" in (ended(whole_node).reason or "")
    assert pids(state_of(whole_node)) == pids(before)


def test_the_engine_that_dies_meanwhile_is_replaced_by_the_one_that_gets_ready(
    whole_node: Home,
) -> None:
    before = state_of(whole_node)
    (whole_node.root / "mute").touch()
    ask(whole_node)
    eventually(lambda: len(engines(whole_node)) == 2)
    [fresh] = [pid for pid in engines(whole_node) if pid != before.engine.pid]
    assert before.engine.pid is not None
    os.kill(before.engine.pid, signal.SIGKILL)
    eventually(lambda: state_of(whole_node).engine.pid is None)
    (whole_node.root / "mute").unlink()
    assert ended(whole_node).state == "done"
    assert engines(whole_node) == [fresh]
    assert state_of(whole_node).engine.pid == fresh


def test_the_old_engine_is_started_again_when_both_have_died(whole_node: Home) -> None:
    before = state_of(whole_node)
    (whole_node.root / "mute").touch()
    ask(whole_node)
    eventually(lambda: len(engines(whole_node)) == 2)
    for pid in engines(whole_node):
        os.kill(pid, signal.SIGKILL)
    assert ended(whole_node).state == "failed"
    eventually(lambda: state_of(whole_node).engine.pid not in (None, before.engine.pid))
    launch.wait_until_ready(whole_node)


def test_a_node_stopped_during_an_upgrade_leaves_no_process(whole_node: Home) -> None:
    (whole_node.root / "mute").touch()
    ask(whole_node)
    eventually(lambda: len(engines(whole_node)) == 2)
    assert launch.stop(whole_node)
    assert engines(whole_node) == []
    assert state(whole_node).state == "failed"


def test_a_supervisor_killed_during_an_upgrade_gives_it_up_and_one_engine_is_left(
    whole_node: Home,
) -> None:
    before = state_of(whole_node)
    assert before.supervisor.pid is not None
    (whole_node.root / "mute").touch()
    ask(whole_node)
    eventually(lambda: len(engines(whole_node)) == 2)
    os.kill(before.supervisor.pid, signal.SIGKILL)
    failed = ended(whole_node)
    assert failed.reason == "the supervisor ended in the middle of it"
    eventually(lambda: engines(whole_node) == [before.engine.pid])
    launch.wait_until_ready(whole_node)


def test_a_supervisor_killed_while_the_old_engine_leaves_keeps_the_new_one(
    whole_node: Home,
) -> None:
    before = state_of(whole_node)
    (whole_node.root / "deaf").touch()
    ask(whole_node)
    eventually(lambda: state(whole_node).step == "drained")
    # Two files, written one after the other.
    eventually(lambda: state_of(whole_node).engine.pid != before.engine.pid)
    replaced = state_of(whole_node)
    assert replaced.supervisor.pid is not None
    os.kill(replaced.supervisor.pid, signal.SIGKILL)
    assert ended(whole_node).state == "failed"
    (whole_node.root / "deaf").unlink()
    eventually(lambda: engines(whole_node) == [replaced.engine.pid])
    launch.wait_until_ready(whole_node)
    assert state_of(whole_node).engine.pid == replaced.engine.pid


def test_an_old_engine_that_does_not_end_is_killed(
    whole_node: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state_of(whole_node)
    (whole_node.root / "deaf").touch()
    began = time.monotonic()
    ask(whole_node, control=False)
    eventually(lambda: state(whole_node).state == "done", patience=supervise.ENGINE_PATIENCE + 10)
    assert time.monotonic() - began >= supervise.ENGINE_PATIENCE - 1
    assert before.engine.pid not in engines(whole_node)


def test_the_command_says_why_it_failed_and_that_one_upgrade_is_made_at_a_time(
    whole_node: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "compile_active", lambda _home: None)
    (whole_node.engine / "refuse").write_text("")
    with pytest.raises(UnavailableError, match="told to refuse") as refusal:
        asking.upgrade(whole_node, engine=True, on_step=_silent)
    assert refusal.value.code == "upgrade_failed"
    UpgradeState(id="other", state="running").write(whole_node.upgrade_file)
    with pytest.raises(UnavailableError) as refusal:
        asking.upgrade(whole_node, engine=True, on_step=_silent)
    assert refusal.value.code == "upgrade_running"


def test_another_installation_is_not_mixed_into_the_node(
    whole_node: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking.sys, "executable", "/somewhere/else/python")
    with pytest.raises(ConfigError, match="runs from") as refusal:
        asking.upgrade(whole_node, engine=True, on_step=_silent)
    assert refusal.value.code == "installation_differs"


def test_a_node_that_does_not_run_cannot_be_upgraded(home: Home) -> None:
    home.create()
    with pytest.raises(UnavailableError) as refusal:
        asking.upgrade(home, engine=True, on_step=_silent)
    assert refusal.value.code == "node_not_running"


def _silent(_step: str) -> None:
    """The steps are for people."""


def test_a_file_that_is_no_upgrade_is_none(tmp_path: Path) -> None:
    for text in ("", "[]", "{}", '{"id": "x", "more": 1}'):
        (tmp_path / "upgrade.json").write_text(text)
        assert read_upgrade(tmp_path / "upgrade.json") is None
