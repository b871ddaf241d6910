"""Programs of a build: their lines come through, and none outlives the build."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from vedette.errors import ConfigError
from vedette.functions.tools import require_tool, run_step


def test_each_line_is_given_as_it_comes(tmp_path: Path) -> None:
    lines: list[str] = []
    program = "import os,sys; print(os.environ['GIVEN']); print('', flush=True); print('two', file=sys.stderr)"
    run_step([sys.executable, "-c", program], tmp_path, lines.append, {"GIVEN": "one"})
    assert lines == ["one", "two"]


def test_a_failure_carries_the_last_lines(tmp_path: Path) -> None:
    program = "for n in range(100): print('line', n)\nexit(7)"
    with pytest.raises(ConfigError) as caught:
        run_step([sys.executable, "-c", program], tmp_path, lambda _: None)
    assert caught.value.code == "build_failed"
    assert "ended with 7" in caught.value.message
    assert caught.value.message.endswith("line 99")
    assert "line 39\n" not in caught.value.message


def test_a_missing_program_is_told_with_its_hint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        require_tool("no-such-program-here", "Install it.")
    assert (caught.value.code, caught.value.hint) == ("tool_missing", "Install it.")
    with pytest.raises(ConfigError) as caught:
        run_step([str(tmp_path / "none")], tmp_path, lambda _: None)
    assert caught.value.code == "tool_missing"


def test_ctrl_c_ends_the_program_and_its_children(tmp_path: Path) -> None:
    child = "import time; time.sleep(60)"
    program = (
        f"import subprocess,sys,time; c=subprocess.Popen([sys.executable,'-c',{child!r}]);"
        "print(c.pid, flush=True); time.sleep(60)"
    )
    pids: list[int] = []

    def interrupt(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_step([sys.executable, "-c", program], tmp_path, interrupt)
    deadline = time.monotonic() + 10
    while _runs(pids[0]):
        assert time.monotonic() < deadline, "the child outlived the build"
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z" and os.path.exists(f"/proc/{pid}")
