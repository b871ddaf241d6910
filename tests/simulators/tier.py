"""An endpoint of the Open Inference Protocol that says what a test wants, on a Unix socket (the process of a model) or
on loopback (a tier): it keeps what it was sent.

Owns: how it says it, whole, slowly or without an end. Must not: compute anything.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any


@dataclass
class Saying:
    """What it answers."""

    status: int = 200
    body: bytes = b"{}"
    fields: dict[str, str] = field(default_factory=dict)
    is_endless: bool = False
    """After the body it goes on sending for ever."""
    is_silent: bool = False
    """It reads the request, and answers nothing until the test is over."""


@dataclass
class Asked:
    """One request as it arrived; names of fields in lower case."""

    target: str
    fields: dict[str, str]
    body: bytes


@dataclass
class TierSimulator:
    """What it says, and what it was asked."""

    port: int = 0
    saying: Saying = field(default_factory=Saying)
    asked: list[Asked] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    connections: list[socket.socket] = field(default_factory=list, repr=False)

    def says(self, **said: Any) -> None:
        """From now on it says this."""
        self.saying = Saying(**said)

    def answers(self, *outputs: dict[str, Any], model: str = "digits", **more: Any) -> None:
        """From now on it answers with these outputs, as JSON."""
        body = json.dumps({"model_name": model, "model_version": "7", "outputs": outputs, **more})
        self.says(body=body.encode())


def tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    """An input or output as JSON says it."""
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    simulator: TierSimulator

    def setup(self) -> None:
        super().setup()
        self.simulator.connections.append(self.connection)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        fields = {name.lower(): value for name, value in self.headers.items()}
        self.simulator.asked.append(Asked(self.path, fields, body))
        with contextlib.suppress(OSError):
            self._say(self.simulator.saying)

    def _say(self, saying: Saying) -> None:
        if saying.is_silent:
            self.simulator.over.wait()
            self.close_connection = True
            return
        self.send_response(saying.status)
        fields = {"content-type": "application/json", **saying.fields}
        if not saying.is_endless:
            fields.setdefault("content-length", str(len(saying.body)))
        for name, value in fields.items():
            self.send_header(name, value)
        if saying.is_endless:
            self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(saying.body)
        while saying.is_endless and not self.simulator.over.is_set():
            self.wfile.write(b" " * 65_536)

    def address_string(self) -> str:
        return "engine"

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


class _UnixServer(ThreadingUnixStreamServer):
    daemon_threads = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True


@contextmanager
def running_tier(path: Path | None = None) -> Iterator[TierSimulator]:
    """Listens at `path`, or on a port of the system's choice, until the end of the block."""
    simulator = TierSimulator()
    handler = type("Bound", (_Handler,), {"simulator": simulator})
    server: _UnixServer | _Server
    if path is None:
        server = _Server(("127.0.0.1", 0), handler)
        simulator.port = server.server_port
    else:
        server = _UnixServer(str(path), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield simulator
    finally:
        simulator.over.set()
        server.shutdown()
        server.server_close()
        for connection in simulator.connections:
            # As a process that ends: connections that were kept are closed.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        if path is not None:
            path.unlink()
