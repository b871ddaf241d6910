"""The keeper and real workers: real files in the real runtime, killed and replaced while they are asked."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from tests.models import onnx_files
from tests.models.conftest import eventually, want
from tests.models.workers import served, tensor

from vedette.ids import digest_hex, digest_of
from vedette.models.keeper_state import WorkerState, read_states
from vedette.store.home import Home

ROWS = [tensor("left", [1, 16]), tensor("right", [1, 16])]
QUESTION = json.dumps(
    {
        "inputs": [
            {"name": name, "datatype": "FP32", "shape": [1, 16], "data": [value] * 16}
            for name, value in (("left", 1.0), ("right", 2.0))
        ]
    }
).encode()
INFER = "/v2/models/model/infer"


def adding(home: Home) -> dict[str, Any]:
    """A model that adds, its file where the keeper looks for it."""
    file = onnx_files.add()
    (home.blobs / digest_hex(digest_of(file))).write_bytes(file)
    return served(file, ROWS, [tensor("sum", [1, 16])])


class NotThereError(Exception):
    """Nobody serves the model just now, which was told."""


class Connection(HTTPConnection):
    """To the worker of a model."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        """To its socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))

    def ask(self) -> bytes:
        """One prediction; raises when it is not one."""
        self.request("POST", INFER, QUESTION)
        response = self.getresponse()
        body = response.read()
        if response.status == 503:
            assert int(response.headers["retry-after"]) >= 1
            assert list(json.loads(body)) == ["error"]
            raise NotThereError
        assert response.status == 200, body
        assert json.loads(body)["outputs"][0]["data"] == [3.0] * 16
        return body


@pytest.fixture
def model(home: Home) -> dict[str, Any]:
    """The model that is wanted."""
    model = adding(home)
    want(home, model)
    return model


@pytest.fixture
def keeper(home: Home, model: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """The keeper as the supervisor starts it, once the model is ready."""
    command = [sys.executable, "-P", "-m", "vedette.models.keeper"]
    command += ["--role", "models", "--home", str(home.root)]
    with home.models_log.open("ab") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        eventually(lambda: pid_of(home, model) is not None)
        yield process
    finally:
        process.terminate()
        process.wait()


def state_of(home: Home, model: dict[str, Any]) -> WorkerState | None:
    return read_states(home.models_state).get(model["worker"])


def pid_of(home: Home, model: dict[str, Any]) -> int | None:
    """The pid of its worker when that is ready."""
    state = state_of(home, model)
    assert state is None or state["error"] is None or state["pid"], state
    return state["pid"] if state and state["state"] == "ready" else None


class Load:
    """Asks all the time, on a new connection each time, and keeps every failure. `is_away`: that nobody serves is told,
    and none.
    """

    def __init__(self, path: Path, *, is_away: bool = False) -> None:
        self._path = path
        self._is_away = is_away
        self.refusals = 0
        self._ended = threading.Event()
        self.failures: list[str] = []
        self.answers = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ended.is_set():
            connection = Connection(self._path)
            try:
                connection.ask()
                self.answers += 1
            except NotThereError:
                self.refusals += 1
                if not self._is_away:
                    self.failures.append("503")
            except (OSError, AssertionError) as error:
                self.failures.append(repr(error))
            finally:
                connection.close()

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


@pytest.mark.usefixtures("keeper")
def test_a_killed_worker_is_back_and_who_asks_meanwhile_is_told_when_to_come_again(
    home: Home, model: dict[str, Any]
) -> None:
    path = home.model_socket(model["worker"])
    blob = home.blobs / digest_hex(model["blob"])
    before = pid_of(home, model)
    assert before is not None
    Connection(path).ask()
    blob.rename(blob.with_suffix(".away"))  # so that it stays away for a while
    os.kill(before, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{before}/exe").exists())  # a zombie has none
    with contextlib.ExitStack() as callers:
        loads = [callers.enter_context(Load(path, is_away=True)) for _ in range(4)]
        eventually(lambda: all(load.refusals > 20 for load in loads))
        assert [load.answers for load in loads] == [0] * 4
        blob.with_suffix(".away").rename(blob)
        eventually(lambda: all(load.answers > 20 for load in loads))
    # Each was answered, one way or the other: none hung, and none was cut off when the worker took over.
    assert [load.failures for load in loads] == [[]] * 4
    after = state_of(home, model)
    assert after is not None
    assert after["restarts"]
    assert after["loadMillis"]


def test_an_upgrade_replaces_a_worker_that_is_asked_all_the_time(
    home: Home, model: dict[str, Any], keeper: subprocess.Popen[bytes]
) -> None:
    before = pid_of(home, model)
    with Load(home.model_socket(model["worker"])) as load:
        eventually(lambda: load.answers > 10)
        keeper.send_signal(signal.SIGUSR1)
        eventually(lambda: pid_of(home, model) not in (None, before))
        eventually(lambda: not Path(f"/proc/{before}").exists())
        answers = load.answers
        eventually(lambda: load.answers > answers + 10)
    assert load.failures == []
    assert keeper.poll() is None


@pytest.mark.usefixtures("keeper")
def test_a_file_that_is_no_model_says_so_and_harms_no_other(
    home: Home, model: dict[str, Any]
) -> None:
    (home.blobs / digest_hex(digest_of(b"junk"))).write_bytes(b"junk")
    broken = {**served(b"junk", ROWS, ROWS), "name": "broken", "worker": "f" * 16}
    want(home, model, broken)
    eventually(lambda: (state_of(home, broken) or {}).get("error"))
    state = state_of(home, broken)
    assert state is not None
    assert state["error"] is not None
    assert state["error"]["code"] == "model_invalid"
    Connection(home.model_socket(model["worker"])).ask()


@pytest.mark.usefixtures("keeper")
def test_a_model_that_nobody_asks_ends_by_itself_and_its_next_caller_gets_an_answer(
    home: Home, model: dict[str, Any]
) -> None:
    resting = {**model, "name": "model", "worker": "a" * 16, "idleMillis": 1_000}
    want(home, model, resting)
    for _ in range(3):
        eventually(lambda: (state_of(home, resting) or {}).get("state") == "idle")
        state = state_of(home, resting)
        assert state is not None
        assert (state["pid"], state["restarts"], state["error"]) == (None, 0, None)
        with contextlib.closing(Connection(home.model_socket(resting["worker"]))) as caller:
            while (
                True
            ):  # a machine that takes more than two seconds says so, and when to come again
                with contextlib.suppress(NotThereError):
                    caller.ask()
                    break
    assert pid_of(home, model) is not None
