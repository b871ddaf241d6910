"""A command line for one home folder, with real processes and a simulated engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests import commands

from vedette.control.client import ControlClient
from vedette.control.supervisor import launch
from vedette.store.home import Home

COMMAND = [sys.executable, str(Path(__file__).resolve().parents[1] / "simulators" / "command.py")]
UP = ["up", "--listen", "http://127.0.0.1:0", "--metrics", "127.0.0.1:0", "--workers", "1"]


class Shell:
    """Runs commands for one home folder."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.environment = {**os.environ, "VEDETTE_HOME": str(home.root)}

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        if arguments[0] != "up":
            return commands.run([*COMMAND[1:], *arguments], 120, self.environment)
        return subprocess.run(
            [*COMMAND, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
            timeout=120,
        )

    def json(self, *arguments: str) -> object:
        done = self(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@contextmanager
def stopped_shell(folders: pytest.TempPathFactory) -> Iterator[Shell]:
    """Commands for a node that is not there yet; stopped at the end."""
    home = Home(folders.mktemp("n"))
    try:
        yield Shell(home)
    finally:
        launch.stop(home, patience=10.0)


@contextmanager
def started_node(folders: pytest.TempPathFactory) -> Iterator[Shell]:
    """Commands for a started node."""
    with stopped_shell(folders) as shell:
        done = shell(*UP, "--detach", "--bare")
        assert done.returncode == 0, done.stderr
        yield shell


@pytest.fixture
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Commands for a node that is not there yet."""
    with stopped_shell(tmp_path_factory) as shell:
        yield shell


@pytest.fixture
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Commands for a started node of the test's own."""
    with started_node(tmp_path_factory) as node:
        yield node


@pytest.fixture(scope="session")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    with started_node(tmp_path_factory) as node:
        yield node


@pytest.fixture
def untouched(_shared: Shell) -> Iterator[Shell]:
    """Commands for a started node that the tests share, because each leaves it as it was."""
    yield _shared
    history = ControlClient(_shared.home).get("/v1/history")
    assert [entry["action"] for entry in history] == ["bootstrap"], "the test changed the node"
