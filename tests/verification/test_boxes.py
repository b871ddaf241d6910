"""What a program tries from a box is tried for real, and one that is not in a box is seen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vedette.verification import boxed, boxes
from vedette.verification.checks import Trial

UNCONFINED = """\
import os, runpy, sys
from vedette.errors import VedetteError
from vedette.verification import namespaces
try:
    namespaces.isolate()
except (OSError, VedetteError):
    sys.exit(77)
namespaces.loopback_up()
outlet = namespaces.Outlet()
if os.fork():
    os.wait()
else:
    runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


def test_a_program_that_is_in_no_box_is_seen(tmp_path: Path) -> None:
    """The same tries, in a process with a way out that leads nowhere."""
    for name in ("control/ca.key", "run/nothing"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("{}")
    wish = {"home": str(tmp_path), "folder": str(tmp_path), "proxy": 1}
    wish |= {"listed": 1, "node": 1, "unlisted": 1}
    done = subprocess.run(
        [sys.executable, "-c", UNCONFINED, boxed.__file__, json.dumps(wish)],
        capture_output=True,
        text=True,
        timeout=120,
        env={"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    if done.returncode == 77:
        pytest.skip("this machine gives no network namespace")
    found = json.loads(done.stdout)
    reached = {what for what, ended in found.items() if ended == boxed.DID_IT}
    assert {"the key of the node's CA", "the node's folder", "writing beside"} <= reached
    assert {"a name server", "signalling its launcher"} <= reached
    trial = Trial()
    boxes.judge(found, trial)
    told = "; ".join(trial.failures)
    assert "the key of the node's CA from a box was not refused (did it)" in told
    # Packets left for it, though nobody answered.
    assert "a raw address from a box was not refused (ETIMEDOUT)" in told
    assert "a program that may call a listed host did not work" in told


def test_what_was_not_tried_is_no_success() -> None:
    trial = Trial()
    boxes.judge({"may call a listed host": boxed.DID_IT, "raw packets": "EPERM"}, trial)
    assert "trying SOCKS to a name did not work" in trial.failures


@pytest.mark.parametrize("ended", ["did it", "ECONNREFUSED", "ETIMEDOUT", "nothing", ""])
def test_only_what_a_box_does_counts_as_refused(ended: str) -> None:
    trial = Trial()
    boxes.judge({"raw packets": ended, "a raw address": ended}, trial)
    assert len([one for one in trial.failures if "from a box" in one]) == 2
