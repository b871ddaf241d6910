"""Every process that loads ONNX Runtime beside a model's own: no socket, no name looked up, no file of telemetry.

The runtime's wheels since 1.29 send telemetry unless they are told not to before they are loaded; what these processes
ask the kernel for is written down by strace. A model's own process: test_worker.py.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.models import onnx_files
from tests.models.workers import ENVIRONMENT, WAIT, library

from vedette.models.quantize import TASK, Wish, quantized

pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed (apt-get install strace)"
)
SOCKET = re.compile(r"\bsocket\(")
SENDS = re.compile(r"\b(connect|bind|listen|sendto|sendmsg|sendmmsg)\(")
TELEMETRY = re.compile(r"DeveloperTools|deviceid|onnxruntime\.db|resolv\.conf|/etc/hosts|libcurl")


def traced(out: Path, *program: str) -> list[str]:
    """A program, and that all that it asks for is written to `out`."""
    return ["strace", "-f", "-qq", "-e", "trace=network,%file", "-o", str(out), *program]


def require_silence(out: Path, loaded: str) -> list[str]:
    """Fails when it spoke to anybody; the lines of its sockets, which are no proof of that."""
    lines = out.read_text(errors="replace").splitlines()
    assert any(loaded in line and " = -1 " not in line for line in lines), "of another process"
    assert [line for line in lines if SENDS.search(line) or TELEMETRY.search(line)] == []
    return [line for line in lines if SOCKET.search(line)]


def test_looking_at_a_model_is_silent_whatever_the_environment_says(tmp_path: Path) -> None:
    file, out = tmp_path / "model.onnx", tmp_path / "trace"
    file.write_bytes(onnx_files.mlp(64, 2))
    config = {"file": str(file), "format": "onnx", "library": str(library())}
    config |= {"memoryBytes": 1 << 30, "runMillis": WAIT * 1000}
    environment = {**ENVIRONMENT, "HOME": str(tmp_path), "VEDETTE_MODEL": json.dumps(config)}
    del environment["ORT_DISABLE_TELEMETRY"]
    done = subprocess.run(
        traced(out, sys.executable, "-P", "-m", "vedette.models.inspect"),
        env=environment,
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=True,
    )
    assert json.loads(done.stdout)["inputs"][0]["name"] == "x"
    assert require_silence(out, "libonnxruntime.so") == []
    assert {each.name for each in tmp_path.iterdir()} == {"model.onnx", "trace"}


def test_making_an_int8_model_is_silent(tmp_path: Path) -> None:
    file, out = tmp_path / "model.onnx", tmp_path / "trace"
    file.write_bytes(onnx_files.mlp(64, 2))
    with quantized(Wish(file), program=traced(out, *TASK.program())) as made:
        assert made.file.stat().st_size < file.stat().st_size
    # The box has its own network, whose loopback it wakes; onnx names files by uuid1, which asks for an address of
    # a card.
    sockets = require_silence(out, "onnxruntime_pybind11_state")
    assert all("SOCK_DGRAM" in line or " = -1 " in line for line in sockets)
