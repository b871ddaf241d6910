"""What a person sees while the node loads a model."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

SCRIPT = "from vedette.cli.waiting import waiting\nwith waiting('Loading digits'): pass\n"


def test_a_terminal_is_told_what_is_waited_for() -> None:
    ours, theirs = pty.openpty()
    try:
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
        command = [sys.executable, "-c", SCRIPT]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stderr=theirs, env=environment, timeout=120
        )
        assert done.returncode == 0
        said = os.read(ours, 1 << 16).decode()
    finally:
        os.close(theirs)
        os.close(ours)
    assert "Loading digits" in said
    assert "0:00:0" in said


def test_without_a_terminal_nothing_is_said() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
