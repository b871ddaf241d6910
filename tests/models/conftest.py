"""Models that are wanted, and a keeper whose workers are simulated."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from vedette.ids import digest_of
from vedette.models.keeper import Keeper, Options
from vedette.models.keeper_state import WorkerState, read_states
from vedette.store.atomic import write_json
from vedette.store.home import Home

WORKER = Path(__file__).resolve().parents[1] / "simulators" / "model_worker.py"
COMMAND = [sys.executable, "-P", str(WORKER)]
LIBRARY = Path("/nowhere/libonnxruntime.so.1")


def worker_of(name: str, version: int = 1) -> str:
    """The name of the process of a version."""
    return hashlib.sha256(f"{name} {version}".encode()).hexdigest()[:16]


def served(name: str, version: int = 1, run_millis: int = 10_000, **more: object) -> dict[str, Any]:
    """A model as a snapshot says it, as far as the keeper looks; more would be passed on."""
    return {
        **more,
        "name": name,
        "version": version,
        "worker": worker_of(name, version),
        "blob": digest_of(name.encode()),
        "format": "onnx",
        "limits": {"runMillis": run_millis},
        "task": "tensors",
    }


def want(home: Home, *models: dict[str, Any]) -> None:
    """Says what is wanted, as control does."""
    write_json(home.models_wanted, {"models": models})


def eventually(check: Callable[[], object], patience: float = 60.0) -> None:
    """Waits for something that other processes do."""
    deadline = time.monotonic() + patience
    while not check():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def state_of(home: Home, name: str, version: int = 1) -> WorkerState:
    """What the keeper says of a model. Raises `KeyError` when it says nothing."""
    return read_states(home.models_state)[worker_of(name, version)]


def is_ready(home: Home, name: str, version: int = 1) -> bool:
    """Whether the keeper says so."""
    states = read_states(home.models_state)
    worker = worker_of(name, version)
    return worker in states and states[worker]["state"] == "ready"


def call(home: Home, name: str, seconds: float = 0.0, version: int = 1) -> dict[str, Any]:
    """One call of a worker; raises `OSError` when it is refused, `EOFError` when it is turned away."""
    with begun(home, name, seconds, version) as connection:
        return answered(connection)


def begun(home: Home, name: str, seconds: float, version: int = 1) -> socket.socket:
    """A call that was sent."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(60.0)
    try:
        connection.connect(str(home.model_socket(worker_of(name, version))))
        connection.sendall(f"{seconds}\n".encode())
    except OSError:
        connection.close()
        raise
    return connection


def answered(connection: socket.socket) -> dict[str, Any]:
    """The answer of a call that was sent."""
    with connection, connection.makefile() as lines:
        try:
            line = lines.readline()
        except ConnectionResetError:
            line = ""
    if not line:
        raise EOFError
    found: dict[str, Any] = json.loads(line)
    return found


def asked(home: Home, name: str, version: int = 1, rest: bytes = b"\r\n") -> socket.socket:
    """A request by HTTP, which workers here do not speak, that was sent."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(60.0)
    connection.connect(str(home.model_socket(worker_of(name, version))))
    connection.sendall(b"GET /v2/models/m/ready HTTP/1.1\r\nhost: m\r\n" + rest)
    return connection


def refused(connection: socket.socket) -> str:
    """What the keeper says to who asked. Raises `EOFError` when it was somebody else who answered, or nobody."""
    with connection:
        said = b""
        while piece := connection.recv(65_536):
            said += piece
    head, _, body = said.partition(b"\r\n\r\n")
    if b"503 Service Unavailable" not in head or b"\r\nretry-after: " not in head:
        raise EOFError
    text: str = json.loads(body)["error"]
    return text


@dataclass
class Clock:
    """Monotonic seconds, which a test may move on."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@dataclass
class Kept:
    """A keeper in this process, whose clock the test moves."""

    home: Home
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.keeper = Keeper(Options(self.home, COMMAND, LIBRARY), self.clock)

    def step(self) -> None:
        """Has the keeper look and do what is due."""
        self.keeper.look()
        self.keeper.step()

    def until(self, check: Callable[[], object]) -> None:
        """Steps until something is so."""

        def stepped() -> object:
            self.step()
            return check()

        eventually(stepped)

    def until_ready(self, name: str, version: int = 1) -> WorkerState:
        """Steps until the model's worker serves."""
        self.until(lambda: is_ready(self.home, name, version))
        return state_of(self.home, name, version)


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home folder with a short path: a Unix socket's has at most 107 bytes."""
    home = Home(tmp_path_factory.mktemp("n"))
    home.create()
    return home


@pytest.fixture
def kept(home: Home) -> Iterator[Kept]:
    """A keeper; what it started ends with the test."""
    kept = Kept(home)
    yield kept
    kept.keeper.stop()
