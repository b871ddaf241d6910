"""A worker on its own: the process as the keeper would start it, and one connection to it.

Owns: descriptors, environment, one request at a time. Must not: know what a test is about.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "PATH": os.environ.get("PATH", "/usr/bin"),
    "LANG": "C.UTF-8",
    "HOME": "/nonexistent",
    "ORT_DISABLE_TELEMETRY": "1",
    "RUST_BACKTRACE": "1",
    # A module that is newer than what is kept of it would be compiled and written within a trace.
    "PYTHONDONTWRITEBYTECODE": "1",
}
WAIT = 60
"""Seconds: against what hangs."""
READY = 4
LISTENING = 3


def library() -> Path:
    """The runtime's library in the wheel, without importing it."""
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "capi"
    return max(folder.glob("libonnxruntime.so.*"), key=lambda it: len(it.name))


def tensor(name: str, shape: list[int], datatype: str = "FP32") -> dict[str, Any]:
    """As `vedette.config.served` has it; 0: any."""
    return {"name": name, "datatype": datatype, "shape": shape}


def served(
    file: bytes, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]], **more: Any
) -> dict[str, Any]:
    """The wire form of a ServedModel."""
    limits = {
        "memoryBytes": 1 << 30,
        "runMillis": 10_000,
        "queue": 64,
        "requestBytes": 1 << 26,
        **more.pop("limits", {}),
    }
    return {
        "name": "model",
        "version": 3,
        "blob": f"sha256:{hashlib.sha256(file).hexdigest()}",
        "size": len(file),
        "format": "onnx",
        "task": "tensors",
        "inputs": inputs,
        "outputs": outputs,
        "sessions": 1,
        "threads": 1,
        "worker": "0123456789abcdef",
        **more,
        "limits": limits,
    }


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its JSON part."""
        length = self.headers.get("inference-header-content-length")
        return json.loads(self.body[: int(length)] if length else self.body)

    @property
    def binary(self) -> bytes:
        """What follows the JSON."""
        return self.body[int(self.headers["inference-header-content-length"]) :]


@dataclass
class Worker:
    """A process that runs, and the socket that it answers on."""

    process: subprocess.Popen[str]
    socket_path: Path
    ready: dict[str, Any]
    log: Path
    base: str = "/v2/models/model"
    connections: list[http.client.HTTPConnection] = field(default_factory=list)

    def connect(self) -> http.client.HTTPConnection:
        """One connection of its own."""
        connection = http.client.HTTPConnection("localhost", timeout=WAIT)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(WAIT)
        connection.sock.connect(str(self.socket_path))
        self.connections.append(connection)
        return connection

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request on a connection of its own."""
        return exchange(self.connect(), method, self.base + path, body, headers)

    def infer(
        self, question: Any, binary: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Asks for a prediction; `binary` follows the JSON."""
        body = json.dumps(question).encode()
        extra = dict(headers or {})
        if binary:
            extra["Inference-Header-Content-Length"] = str(len(body))
        return self.ask("POST", "/infer", body + binary, extra)


def exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request on this connection."""
    connection.request(method, path, body, dict(headers or {}))
    response = connection.getresponse()
    fields = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, fields, response.read())


@contextmanager
def worker(
    folder: Path,
    file: bytes,
    model: dict[str, Any],
    prefix: list[str] | None = None,
    runtime: Path | None = None,
    files: Mapping[str, Path] | None = None,
) -> Iterator[Worker]:
    """A worker for this file, ended by its own pid. `prefix`: what it is started under, such as strace; `files`: what
    it needs beside, by role.
    """
    blob = folder / "blob.onnx"
    blob.write_bytes(file)
    path = folder / "worker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(64)
        paths = {role: str(path) for role, path in (files or {}).items()}
        told = {"model": model, "file": str(blob), "files": paths}
        told["library"] = str(runtime or library())
        process, ready = _start(folder, told, listener, prefix or [])
    started = Worker(process, path, ready, folder / "log")
    try:
        yield started
    finally:
        for connection in started.connections:
            connection.close()
        process.kill()
        process.wait(WAIT)
        path.unlink()


def _start(
    folder: Path, told: Mapping[str, Any], listener: socket.socket, prefix: list[str]
) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    reads, writes = os.pipe()
    config = {**told, "listenFd": LISTENING, "readyFd": READY}

    def place() -> None:
        # Both may lie where the other one is to go; free numbers, whatever this process has open.
        given = (listener.fileno(), writes)
        safe = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 60) for fd in given]
        os.dup2(safe[0], LISTENING, inheritable=True)
        os.dup2(safe[1], READY, inheritable=True)
        os.closerange(5, 60)

    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-P", "-m", "vedette.models.worker"],
            env={**ENVIRONMENT, "VEDETTE_MODEL": json.dumps(config)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            text=True,
            close_fds=False,
            preexec_fn=place,
        )
    os.close(writes)
    with os.fdopen(reads) as line:
        said = line.readline()
    return process, json.loads(said) if said else {}


def inspect(file: Path, format: str = "onnx", **more: Any) -> dict[str, Any]:
    """What the inspection says of a file."""
    config = {
        "file": str(file),
        "format": format,
        "library": str(library()),
        "memoryBytes": 1 << 30,
        "runMillis": 60_000,
        **more,
    }
    done = subprocess.run(
        [sys.executable, "-P", "-m", "vedette.models.inspect"],
        env={**ENVIRONMENT, "VEDETTE_MODEL": json.dumps(config)},
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1, done.stdout
    said: dict[str, Any] = json.loads(lines[0])
    return said


def drain(started: Worker) -> int:
    """Tells it to stop; its exit code."""
    started.process.send_signal(signal.SIGTERM)
    return started.process.wait(WAIT)
