"""A node whose engine and native functions are simulated, in this process or as a whole set of processes."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tests.simulators.engine import EngineSimulator, serve_control
from tests.simulators.keeper import KeeperSimulator
from tests.simulators.native import NativeSimulator, compile_to

from vedette.clock import now
from vedette.control.activate import Activator
from vedette.control.bootstrap import Wish, bootstrap, open_keys, read_facts
from vedette.control.node import Node
from vedette.control.supervisor import launch
from vedette.engine.client import EngineClient
from vedette.store.history import History
from vedette.store.home import Home

ALICE = "spiffe://test-node.vedette.local#alice"
"""The principal of the subject `alice`."""
SIMULATORS = Path(__file__).resolve().parents[1] / "simulators"


@dataclass
class Clock:
    """The time, moved by hand."""

    ahead: timedelta = field(default_factory=timedelta)

    def __call__(self) -> datetime:
        return now() + self.ahead

    def move(self, by: timedelta) -> None:
        """Goes on by so much."""
        self.ahead += by


@dataclass
class Running:
    """A node in this process: control's objects and the engine they talk to."""

    home: Home
    node: Node
    activator: Activator
    engine: EngineSimulator
    engine_listener: socket.socket
    keeper: KeeperSimulator


@pytest.fixture
def clock() -> Clock:
    """A clock of the test's own."""
    return Clock()


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home folder with a short path: a Unix socket's has at most 107 bytes."""
    return Home(tmp_path_factory.mktemp("n"))


@pytest.fixture
def running(home: Home) -> Iterator[Running]:
    """A bootstrapped node with a simulated engine behind a real Unix socket."""
    bootstrap(home, Wish(name="test-node"))
    facts = read_facts(home)
    assert facts is not None
    engine = EngineSimulator(home.engine)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(home.engine_socket))
    listener.listen()
    threading.Thread(target=serve_control, args=(listener, engine), daemon=True).start()
    keys = open_keys(home, facts)
    history = History(home.database)
    native = NativeSimulator()
    engine_client = EngineClient(home.engine_socket)
    activator = Activator(home, history, keys, engine_client, native, compile_to, native)
    keeper = KeeperSimulator(home)
    yield Running(home, Node(home, keys, activator), activator, engine, listener, keeper)
    keeper.stop()
    listener.close()
    history.close()


def simulated_options(**changes: object) -> launch.LaunchOptions:
    """Options for a whole node of processes that needs no built engine and no free port in particular."""
    settings: dict[str, object] = {
        "listen": ["http://127.0.0.1:0"],
        "metrics": "127.0.0.1:0",
        "name": "test-node",
        "workers": 2,
        "foreground": False,
        "engine_command": [sys.executable, "-P", str(SIMULATORS / "engine.py")],
        "control_command": [sys.executable, str(SIMULATORS / "control.py")],
    }
    return launch.LaunchOptions(**{**settings, **changes})  # type: ignore[arg-type]


@pytest.fixture
def whole_node(home: Home) -> Iterator[Home]:
    """A started node of real processes; stopped, whatever the test did to it."""
    try:
        launch.launch(home, simulated_options())
        launch.wait_until_ready(home)
        yield home
    finally:
        launch.stop(home, patience=10.0)
