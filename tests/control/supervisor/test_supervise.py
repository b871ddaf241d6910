"""Every process of a node may be killed: nobody is refused, nothing is lost, nothing is left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.control.conftest import simulated_options

from vedette import processes
from vedette.control.supervisor import launch, supervise
from vedette.control.supervisor.child import restart_delay
from vedette.control.supervisor.state import SupervisorState, read_state
from vedette.errors import UnavailableError
from vedette.store.home import Home


def eventually(check: Callable[[], bool], patience: float = 60.0) -> None:
    deadline = time.monotonic() + patience
    while not check():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def state_of(home: Home) -> SupervisorState:
    state = read_state(home.supervisor_file)
    assert state is not None
    return state


class Load:
    """Connects all the time and keeps every failure; a refused or reset connect is one."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._address = (host, int(port))
        self._ended = threading.Event()
        self.refused: list[str] = []
        self.answers: set[bytes] = set()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                connection = socket.create_connection(self._address, timeout=10.0)
            except OSError as error:
                self.refused.append(repr(error))
                continue
            with connection:
                try:
                    connection.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
                    self.answers.add(connection.recv(4096).rpartition(b"\r\n")[2])
                except OSError:
                    pass  # accepted by the engine that was killed; only a refusal is a failure here

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def test_a_killed_engine_is_back_at_once_and_no_connection_is_refused(whole_node: Home) -> None:
    before = state_of(whole_node)
    assert before.engine.pid is not None
    with Load(before.listeners[0]["address"]) as load:
        eventually(lambda: len(load.answers) == 1)
        os.kill(before.engine.pid, signal.SIGKILL)
        eventually(lambda: len(load.answers - {b""}) == 2)
    after = state_of(whole_node)
    assert load.refused == []
    assert after.engine.pid not in (None, before.engine.pid)
    assert after.engine.restarts == 1
    assert after.control.pid == before.control.pid


def test_a_killed_control_is_replaced_and_the_engine_does_not_notice(whole_node: Home) -> None:
    before = state_of(whole_node)
    assert before.control.pid is not None
    os.kill(before.control.pid, signal.SIGKILL)
    eventually(lambda: state_of(whole_node).control.pid not in (None, before.control.pid))
    launch.wait_until_ready(whole_node)
    assert state_of(whole_node).engine.pid == before.engine.pid


def test_a_killed_keeper_of_models_is_replaced_and_nobody_else_notices(whole_node: Home) -> None:
    before = state_of(whole_node)
    assert before.models.pid is not None
    os.kill(before.models.pid, signal.SIGKILL)
    eventually(lambda: state_of(whole_node).models.pid not in (None, before.models.pid))
    after = state_of(whole_node)
    assert after.models.restarts == 1
    assert (after.engine.pid, after.control.pid) == (before.engine.pid, before.control.pid)


def test_the_keeper_of_models_inherits_no_socket_and_no_secret(whole_node: Home) -> None:
    eventually(whole_node.models_state.exists)
    pid = state_of(whole_node).models.pid
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    assert [link for link in links if link.startswith(("socket:", "/dev/shm"))] == []
    assert not any("supervisor.lock" in link for link in links)
    names = {one.partition("=")[0] for one in Path(f"/proc/{pid}/environ").read_text().split("\0")}
    assert names <= {"", *supervise._MODELS_ENVIRONMENT}


def test_the_keeper_of_models_is_told_to_end_when_the_engine_has_ended(
    home: Home, tmp_path: Path
) -> None:
    found = tmp_path / "found"
    script = f"""
import signal, sys
from pathlib import Path
from vedette import processes
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("waits", flush=True)
signal.sigwait([signal.SIGTERM])
engines = processes.find(Path(sys.argv[-1]), "engine")
Path({str(found)!r}).write_text(f"{{len(engines)}} engines")
"""
    try:
        launch.launch(home, simulated_options(models_command=[sys.executable, "-c", script]))
        launch.wait_until_ready(home)
        eventually(lambda: "waits" in home.models_log.read_text())
    finally:
        launch.stop(home)
    assert found.read_text() == "0 engines"


def test_a_killed_supervisor_is_replaced_and_its_children_are_kept(whole_node: Home) -> None:
    before = state_of(whole_node)
    assert before.supervisor.pid is not None
    with Load(before.listeners[0]["address"]) as load:
        os.kill(before.supervisor.pid, signal.SIGKILL)
        eventually(lambda: state_of(whole_node).supervisor.pid != before.supervisor.pid)
    after = state_of(whole_node)
    assert load.refused == []
    pids = [(each.engine.pid, each.control.pid, each.models.pid) for each in (before, after)]
    assert pids[0] == pids[1]
    assert (after.engine.restarts, after.control.restarts, after.models.restarts) == (0, 0, 0)
    assert after.guardian.pid == before.guardian.pid


def test_the_new_supervisor_watches_the_children_it_adopted(whole_node: Home) -> None:
    before = state_of(whole_node)
    assert before.supervisor.pid is not None
    assert before.engine.pid is not None
    os.kill(before.supervisor.pid, signal.SIGKILL)
    eventually(lambda: state_of(whole_node).supervisor.pid != before.supervisor.pid)
    os.kill(before.engine.pid, signal.SIGKILL)
    eventually(lambda: state_of(whole_node).engine.pid not in (None, before.engine.pid))
    launch.wait_until_ready(whole_node)


def test_engine_and_supervisor_killed_together_both_come_back(whole_node: Home) -> None:
    before = state_of(whole_node)
    assert before.supervisor.pid is not None
    assert before.engine.pid is not None
    with Load(before.listeners[0]["address"]) as load:
        os.kill(before.supervisor.pid, signal.SIGKILL)
        os.kill(before.engine.pid, signal.SIGKILL)
        eventually(lambda: state_of(whole_node).engine.pid not in (None, before.engine.pid))
        launch.wait_until_ready(whole_node)
    assert load.refused == []


def test_a_killed_guardian_is_replaced_and_a_supervisor_killed_after_that_too(
    whole_node: Home,
) -> None:
    before = state_of(whole_node)
    assert before.guardian.pid is not None
    with Load(before.listeners[0]["address"]) as load:
        os.kill(before.guardian.pid, signal.SIGKILL)
        eventually(lambda: state_of(whole_node).supervisor.pid != before.supervisor.pid)
        between = state_of(whole_node)
        assert between.guardian.pid == before.supervisor.pid
        assert between.supervisor.pid is not None
        os.kill(between.supervisor.pid, signal.SIGKILL)
        eventually(lambda: state_of(whole_node).supervisor.pid != between.supervisor.pid)
    assert load.refused == []
    assert state_of(whole_node).engine.pid == before.engine.pid


def test_stop_leaves_no_process_and_frees_the_lock(whole_node: Home) -> None:
    pids = [
        found.pid for role in processes.ROLES for found in processes.find(whole_node.root, role)
    ]
    assert len(pids) == 5
    assert launch.stop(whole_node)
    assert [pid for pid in pids if processes.start_ticks(pid) is not None] == []
    assert not launch.is_running(whole_node)
    assert not whole_node.admin_socket.exists()


def test_stop_ends_what_a_killed_guardian_and_supervisor_left(whole_node: Home) -> None:
    state = state_of(whole_node)
    assert state.guardian.pid is not None
    assert state.supervisor.pid is not None
    assert state.engine.pid is not None
    os.kill(state.guardian.pid, signal.SIGSTOP)  # so that neither can replace the other
    os.kill(state.supervisor.pid, signal.SIGKILL)
    os.kill(state.guardian.pid, signal.SIGKILL)
    eventually(lambda: not launch.is_running(whole_node))
    assert processes.start_ticks(state.engine.pid) is not None, "the engine goes on serving"
    assert launch.stop(whole_node)
    assert processes.start_ticks(state.engine.pid) is None


def test_a_second_node_in_the_same_home_is_refused(whole_node: Home) -> None:
    with pytest.raises(UnavailableError) as refusal:
        launch.launch(whole_node, simulated_options())
    assert refusal.value.code == "node_running"
    assert launch.is_running(whole_node)


def test_a_node_starts_again_in_the_same_home(whole_node: Home) -> None:
    launch.stop(whole_node)
    launch.launch(whole_node, simulated_options())
    assert launch.wait_until_ready(whole_node)["generation"] == 1


def test_a_foreground_node_ends_with_its_caller(home: Home) -> None:
    launched = launch.launch(home, simulated_options(foreground=True))
    try:
        launch.wait_until_ready(home)
        assert launched.life is not None
        os.close(launched.life)
        eventually(lambda: not launch.is_running(home))
        eventually(lambda: not processes.find(home.root, "engine"))
    finally:
        launch.stop(home, patience=10.0)


def test_an_engine_that_never_starts_is_reported_with_its_last_words(home: Home) -> None:
    failing = [sys.executable, "-c", "import sys; sys.exit('no luck today')"]
    try:
        launch.launch(home, simulated_options(engine_command=failing))
        with pytest.raises(UnavailableError, match="no luck today") as refusal:
            launch.wait_until_ready(home)
        assert refusal.value.code == "node_start_failed"
    finally:
        launch.stop(home, patience=10.0)


def test_the_engine_inherits_its_sockets_and_nothing_else(whole_node: Home) -> None:
    pid = state_of(whole_node).engine.pid
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    assert sum(link.startswith("socket:") for link in links) == 3, "two workers and engine.sock"
    assert not any("supervisor.lock" in link or "control" in Path(link).parts for link in links)


def test_the_first_restart_is_immediate_and_later_ones_wait_longer() -> None:
    delays = [restart_delay(failures) for failures in range(1, 10)]
    assert delays[:4] == [0.0, 0.1, 0.2, 0.4]
    assert delays[-1] == 5.0


def test_a_disk_that_takes_no_state_ends_nobody_and_the_state_is_written_later(
    whole_node: Home, tmp_path: Path
) -> None:
    before = state_of(whole_node)
    aside = whole_node.run.rename(tmp_path / "run")  # what run/supervisor.json is written into
    assert before.engine.pid is not None
    os.kill(before.engine.pid, signal.SIGKILL)
    eventually(
        lambda: (
            [one.pid for one in processes.find(whole_node.root, "engine")]
            not in ([], [before.engine.pid])
        )
    )
    time.sleep(supervise.STATE_RETRY / 2)  # for the write that fails
    [supervisor] = processes.find(whole_node.root, "supervisor")
    assert supervisor.pid == before.supervisor.pid
    aside.rename(whole_node.run)
    eventually(lambda: state_of(whole_node).engine.pid not in (None, before.engine.pid))
    assert state_of(whole_node).supervisor.pid == before.supervisor.pid


def test_a_log_line_that_the_disk_refuses_harms_nobody() -> None:
    script = "from vedette.control.supervisor.signals import say; say('supervisor', 'hello')"
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([sys.executable, "-P", "-c", script], stderr=full, check=False)
    assert done.returncode == 0


def test_a_process_starts_though_its_log_cannot_be_opened(tmp_path: Path) -> None:
    made = tmp_path / "made"
    script = f"print('lost'); open({str(made)!r}, 'w')"
    pid = processes.spawn([sys.executable, "-c", script], {}, [], tmp_path / "none" / "log")
    assert os.waitpid(pid, 0)[1] == 0
    assert made.exists()
