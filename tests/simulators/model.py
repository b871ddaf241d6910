"""The process of a model, as the engine sees it: HTTP/1.1 of the Open Inference Protocol on a Unix socket.

Owns: the protocol's side of it, and what it was asked. Must not: compute anything; it answers what came.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer


@dataclass
class ModelSimulator:
    """What it was asked: first line, fields in lower case, body."""

    asked: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        fields = {name.lower(): value for name, value in self.headers.items()}
        self.server.model.asked.append((self.requestline, fields, body))
        name = self.path.split("/")[3]
        told = json.dumps({"model_name": name, "got": len(body)}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("x-vedette-queue-us", "7")
        self.send_header("x-vedette-run-us", "1250")
        self.send_header("set-cookie", "stay=here")
        self.send_header("content-length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def address_string(self) -> str:
        return "engine"

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


class _Server(ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path, model: ModelSimulator) -> None:
        self.model = model
        self._connections: list[socket.socket] = []
        super().__init__(str(path), _Handler)

    def get_request(self) -> tuple[socket.socket, str]:
        connection, address = super().get_request()
        self._connections.append(connection)
        return connection, address

    def stop(self) -> None:
        """Ends as a process does: nobody listens, and connections that were kept are closed."""
        self.shutdown()
        self.server_close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def running_model(path: Path) -> Iterator[ModelSimulator]:
    """Listens at `path` until the end of the block, and removes it then."""
    model = ModelSimulator()
    server = _Server(path, model)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield model
    finally:
        server.stop()
        path.unlink()
