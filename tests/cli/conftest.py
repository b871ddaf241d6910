"""A command line for one home folder, with real processes and a simulated engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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


@pytest.fixture
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Commands for a node that is not there yet; stopped at the end."""
    home = Home(tmp_path_factory.mktemp("n"))
    yield Shell(home)
    launch.stop(home, patience=10.0)


@pytest.fixture
def node(shell: Shell) -> Shell:
    """Commands for a started node."""
    done = shell(*UP, "--detach", "--bare")
    assert done.returncode == 0, done.stderr
    return shell
