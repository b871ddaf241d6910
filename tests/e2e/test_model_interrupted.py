"""Ctrl-C, as a terminal gives it, in commands about models that take long: what is said, and that nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.node import PROGRAM, Node, wait_until
from tests.e2e.test_predict import scaled
from tests.models import onnx_files


@pytest.fixture(scope="module")
def node(start_node: StartNode) -> Node:
    """A node without models."""
    return start_node()


def interrupted(
    command: list[str], is_amid: Callable[[int], bool], folder: Path
) -> tuple[int, str, str]:
    """Runs a command in a process group of its own, which gets SIGINT amid its work; exit code, stdout, stderr."""
    environment = {**os.environ, "TMPDIR": str(folder)}
    process = subprocess.Popen(
        [str(PROGRAM), *command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until("it is amid its work", lambda: is_amid(process.pid))
        assert process.poll() is None, process.communicate()
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
        return process.returncode, stdout, stderr
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(60)


def below(pid: int) -> list[int]:
    """The processes that a process has started, and those that these have."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text("ascii").split()):
            found += [child, *below(child)]
    return found


def runs(pid: int, module: str) -> bool:
    try:
        return module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_an_interrupted_add_leaves_the_node_as_it_was_and_the_next_one_is_taken_in(
    node: Node, tmp_path: Path
) -> None:
    file = tmp_path / "slow.onnx"
    file.write_bytes(onnx_files.constant_work())
    before = node.status()["snapshot"]["digest"]
    control = node.pid("control")

    def is_looked_at(_: int) -> bool:
        return any(runs(each, "vedette.models.inspect") for each in below(control))

    command = ["model", "add", str(file), "--name", "slow", "--home", str(node.home)]
    code, stdout, stderr = interrupted(command, is_looked_at, tmp_path)
    assert (code, stdout) == (130, "")
    assert stderr.strip() == "Stopped; see `vedette model list` for what there is"
    assert node.status()["snapshot"]["digest"] == before
    node.run("model", "add", str(scaled(tmp_path / "twice.onnx", 2.0)), "--name", "twice")
    assert "twice" in node.run("model", "list").stdout


def test_an_interrupted_quantization_writes_nothing_and_leaves_no_process(tmp_path: Path) -> None:
    file, out = tmp_path / "dense.onnx", tmp_path / "small.onnx"
    file.write_bytes(onnx_files.mlp(1024, 12))
    temporary = Path(tempfile.mkdtemp(dir=tmp_path))
    started: list[int] = []

    def is_made(pid: int) -> bool:
        started[:] = [each for each in below(pid) if runs(each, "vedette.models.quantize_process")]
        return bool(started)

    command = ["model", "quantize", str(file), "--out", str(out)]
    code, stdout, stderr = interrupted(command, is_made, temporary)
    assert (code, stdout) == (130, "")
    assert stderr.strip() == "Stopped; nothing was written"
    assert not out.exists()
    assert list(temporary.iterdir()) == []
    assert not any(runs(each, "vedette.models.quantize_process") for each in started)
