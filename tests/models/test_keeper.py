"""The keeper's process: what it does with what is wanted, and what is left when it or its workers are killed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.models.conftest import (
    COMMAND,
    LIBRARY,
    Kept,
    answered,
    asked,
    begun,
    call,
    eventually,
    is_ready,
    refused,
    served,
    state_of,
    want,
    worker_of,
)

from vedette import processes
from vedette.models import keeper_notice
from vedette.models.keeper_state import read_states
from vedette.store.home import Home


@contextlib.contextmanager
def running(home: Home) -> Iterator[subprocess.Popen[bytes]]:
    """The keeper as a process; ended with the test."""
    command = [sys.executable, "-P", "-m", "vedette.models.keeper"]
    command += ["--worker-command", json.dumps(COMMAND), "--library", str(LIBRARY)]
    command += ["--role", "models", "--home", str(home.root)]
    with home.models_log.open("ab") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        eventually(home.models_state.exists)
        yield process
    finally:
        process.terminate()
        process.wait()


def pid_of(home: Home, name: str) -> int:
    pid = state_of(home, name)["pid"]
    assert pid is not None
    return pid


def is_alive(pid: int) -> bool:
    """Whether it runs; a zombie, which nobody may have collected yet, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][1] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def has_been_renewed(home: Home, name: str, old: int) -> bool:
    return is_ready(home, name) and state_of(home, name)["pid"] not in (None, old)


class Load:
    """Calls a model all the time and keeps every failure."""

    def __init__(self, home: Home, name: str) -> None:
        self._home, self._name = home, name
        self._ended = threading.Event()
        self.failures: list[str] = []
        self.pids: set[int] = set()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self.pids.add(call(self._home, self._name)["pid"])
            except (OSError, EOFError) as error:
                self.failures.append(repr(error))

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def test_a_keeper_of_nothing_says_so_and_ends_in_order(home: Home) -> None:
    with running(home) as keeper:
        assert read_states(home.models_state) == {}
        keeper.terminate()
        assert keeper.wait() == 0
    assert list(home.models_run.iterdir()) == []


def test_what_is_wanted_is_noticed_without_a_signal(home: Home) -> None:
    with running(home):
        want(home, served("a"))
        eventually(lambda: is_ready(home, "a"))
        assert call(home, "a")["pid"] == pid_of(home, "a")


def test_a_stopped_keeper_leaves_no_process_and_no_socket(home: Home) -> None:
    want(home, served("a"), served("deaf"), served("mute"), served("exits"))
    with running(home) as keeper:
        eventually(lambda: is_ready(home, "a") and is_ready(home, "deaf"))
        eventually(lambda: worker_of("mute") in read_states(home.models_state))
        pids = [pid_of(home, name) for name in ("a", "deaf", "mute")]
        slow = begun(home, "a", 0.5)
        call(home, "a")  # accepted after it
        keeper.terminate()
        assert answered(slow)["pid"] == pids[0], "a call under way is finished"
        assert keeper.wait() == 0
    assert not any(is_alive(pid) for pid in pids)
    assert [path.name for path in home.models_run.iterdir()] == ["wanted.json"]


def test_workers_die_with_a_killed_keeper_and_the_next_one_serves(home: Home) -> None:
    want(home, served("a"))
    with running(home) as keeper:
        eventually(lambda: is_ready(home, "a"))
        before = pid_of(home, "a")
        keeper.kill()
        eventually(lambda: not is_alive(before))
    home.models_state.unlink()
    with running(home):
        eventually(lambda: is_ready(home, "a"))
        assert call(home, "a")["pid"] == pid_of(home, "a") != before


def test_what_a_killed_keeper_left_is_ended_and_its_sockets_are_removed(home: Home) -> None:
    stale = home.model_socket("0" * 16)
    stale.write_bytes(b"")
    waiting = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]
    marks = ["--role", "model", "--home"]
    other = Home(Path(f"{home.root}2"))
    left, others = (
        subprocess.Popen([*waiting, *marks, str(each.root)], stdout=subprocess.PIPE)
        for each in (home, other)
    )
    with left, others:
        for process in (left, others):
            assert process.stdout is not None
            process.stdout.readline()
        try:
            with running(home):
                assert left.wait(60.0) == -signal.SIGKILL
                assert others.poll() is None, "it is another node's"
                assert not stale.exists()
        finally:
            left.kill()
            others.kill()


def test_an_upgrade_keeps_the_pid_and_the_sockets_and_replaces_workers_without_a_failed_call(
    home: Home,
) -> None:
    names = ["a", "b", "c"]
    want(home, *map(served, names))
    with running(home) as keeper, contextlib.ExitStack() as loads:
        eventually(lambda: all(is_ready(home, name) for name in names))
        before = {name: pid_of(home, name) for name in names}
        running_loads = [loads.enter_context(Load(home, name)) for name in names]
        slow = begun(home, "a", 1.0)
        call(home, "a")  # accepted after it
        keeper.send_signal(signal.SIGUSR1)
        eventually(lambda: all(has_been_renewed(home, name, before[name]) for name in names))
        assert answered(slow)["pid"] == before["a"]
        eventually(lambda: not any(map(is_alive, before.values())))
        eventually(lambda: all(len(load.pids) == 2 for load in running_loads))
        assert keeper.poll() is None
        assert all(state_of(home, name)["restarts"] == 0 for name in names)
    assert [load.failures for load in running_loads] == [[], [], []]


def test_an_old_worker_serves_until_the_next_one_has_loaded_and_others_wait_their_turn(
    home: Home,
) -> None:
    go = home.root / "go"
    go.touch()
    want(home, served("held"), served("a"))
    with running(home) as keeper:
        eventually(lambda: is_ready(home, "held") and is_ready(home, "a"))
        before = {name: pid_of(home, name) for name in ("held", "a")}
        go.unlink()
        keeper.send_signal(signal.SIGUSR1)
        eventually(lambda: len(processes.find(home.root, "model")) == 3)
        want(home, served("held"), served("a"), served("b"))
        eventually(lambda: is_ready(home, "b"))  # the keeper has looked at all of them meanwhile
        for name, pid in before.items():
            assert call(home, name)["pid"] == pid
            assert is_ready(home, name)
        go.touch()
        eventually(lambda: all(has_been_renewed(home, name, before[name]) for name in before))


def test_a_keeper_that_starts_lets_idle_models_rest_and_starts_who_is_asked(home: Home) -> None:
    want(home, served("a", idleMillis=60_000), served("b"), served("c", idleMillis=60_000))
    with running(home):
        eventually(lambda: is_ready(home, "b"))
        states = {name: state_of(home, name) for name in ("a", "c")}
        assert {name: state["state"] for name, state in states.items()} == {
            "a": "idle",
            "c": "idle",
        }
        assert call(home, "a")["pid"]
        eventually(lambda: is_ready(home, "a"))
        assert state_of(home, "c")["pid"] is None


def test_a_new_model_is_loaded_once_though_it_may_rest(home: Home) -> None:
    want(home, served("b"))
    with running(home):
        eventually(lambda: is_ready(home, "b"))
        want(home, served("a", idleMillis=60_000), served("b"))
        eventually(lambda: is_ready(home, "a"))


def test_over_an_upgrade_idle_models_rest_and_those_who_wait_are_answered(home: Home) -> None:
    want(home, served("mute"), served("a", idleMillis=60_000))
    with running(home) as keeper:
        eventually(lambda: worker_of("mute") in read_states(home.models_state))
        eventually(lambda: state_of(home, "a")["state"] == "idle")
        mute = pid_of(home, "mute")
        half = asked(home, "mute", rest=b"")
        eventually(lambda: has_been_accepted(keeper.pid, half))
        keeper.send_signal(signal.SIGUSR1)
        eventually(lambda: state_of(home, "mute")["pid"] not in (None, mute))
        assert state_of(home, "a")["state"] == "idle"
        half.sendall(b"\r\n")
        assert refused(half) == "the model is being loaded"


def has_been_accepted(pid: int, caller: socket.socket) -> bool:
    """Whether what was sent has been read."""
    waiting = fcntl.ioctl(caller, termios.TIOCOUTQ, struct.pack("i", 0))
    return struct.unpack("i", waiting) == (0,) and Path(f"/proc/{pid}").exists()


def test_after_an_upgrade_a_worker_is_not_inherited_by_others(home: Home) -> None:
    want(home, served("a"), served("b"))
    with running(home) as keeper:
        eventually(lambda: is_ready(home, "a") and is_ready(home, "b"))
        before = {name: pid_of(home, name) for name in ("a", "b")}
        keeper.send_signal(signal.SIGUSR1)
        for name in ("a", "b"):
            eventually(lambda: has_been_renewed(home, name, before[name]))  # noqa: B023
            given = call(home, name)
            inherited = {given["config"]["listenFd"], given["config"]["readyFd"]}
            assert set(given["descriptors"]) == {0, 1, 2} | inherited


def test_a_worker_that_leaves_is_seen_off_over_an_upgrade(home: Home) -> None:
    want(home, served("deaf", run_millis=1_000), served("mute"))
    with running(home) as keeper:
        eventually(lambda: is_ready(home, "deaf"))
        deaf = pid_of(home, "deaf")
        mute = pid_of(home, "mute")
        want(home, served("mute"))
        eventually(lambda: state_of(home, "deaf")["state"] == "leaving")
        keeper.send_signal(signal.SIGUSR1)
        eventually(lambda: not is_alive(mute))  # was not ready: begins anew
        eventually(lambda: state_of(home, "mute")["pid"] not in (None, mute))
        assert is_alive(deaf), "its ten seconds are not over"
        eventually(lambda: not is_alive(deaf))
        eventually(lambda: worker_of("deaf") not in read_states(home.models_state))


def test_a_list_that_cannot_be_read_changes_nothing_and_is_told(home: Home) -> None:
    want(home, served("a"))
    with running(home) as keeper:
        eventually(lambda: is_ready(home, "a"))
        pid = pid_of(home, "a")
        home.models_wanted.write_bytes(b'{"models": [{}]}')
        eventually(lambda: "what was wanted before stays" in home.models_log.read_text())
        keeper.send_signal(signal.SIGHUP)
        eventually(lambda: home.models_log.read_text().count("what was wanted before stays") == 2)
        assert (pid_of(home, "a"), call(home, "a")["pid"]) == (pid, pid)


def test_a_disk_that_takes_no_state_stops_no_model(kept: Kept, tmp_path: Path) -> None:
    want(kept.home, served("a"))
    kept.until_ready("a")
    kept.home.models_state.unlink()
    kept.home.models_state.mkdir()  # which nothing replaces
    want(kept.home, served("a"), served("b"))
    kept.until(lambda: _answers(kept.home, "b"))
    kept.home.models_state.rmdir()
    kept.until(lambda: is_ready(kept.home, "b"))


def _answers(home: Home, name: str) -> bool:
    with contextlib.suppress(OSError, EOFError):
        return bool(call(home, name))
    return False


@pytest.mark.parametrize("words", [[], ["--home"], ["--worker-command", "x", "--home", "/h"]])
def test_a_keeper_that_somebody_else_starts_says_who_should(words: list[str]) -> None:
    command = [sys.executable, "-P", "-m", "vedette.models.keeper", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "error: the keeper is started by `vedette up`\n",
    )


def test_the_keeper_imports_nothing_heavy() -> None:
    script = "import sys, vedette.models.keeper; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"pydantic", "fastapi", "cryptography", "onnxruntime", "yaml", "asyncio"}
    assert "vedette.config" not in done.stdout.split()


def test_a_keeper_of_nothing_sleeps_until_something_happens(kept: Kept) -> None:
    kept.step()
    assert kept.keeper._patience() is None
    want(kept.home, served("a"))
    kept.until_ready("a")
    kept.step()
    patience = kept.keeper._patience()
    assert patience is not None
    assert patience > 10_000, "what memory it has is news twice a minute"
    kept.clock.ahead += 31.0
    kept.step()
    patience = kept.keeper._patience()
    assert patience is not None
    assert patience > 5_000, "it was asked whether it is there"


def test_a_kernel_that_tells_nothing_is_asked_ten_times_a_second(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_notice, "watch", lambda _folder: None)
    kept = Kept(home)
    kept.step()
    assert 0 < (kept.keeper._patience() or 0.0) < 101.0
