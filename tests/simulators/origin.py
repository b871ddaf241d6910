"""An HTTP/1.1 server for guests to call: it keeps what it was sent, and answers by path.

Owns: what each path answers. Must not: know who calls. Listens on loopback, on a port of the system's choice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived; trailers of a chunked body are in `trailers`."""

    method: str
    target: str
    headers: dict[str, list[str]]
    body: bytes
    trailers: dict[str, str]


@dataclass
class Origin:
    """A running server, what it was sent, and how many asked for `/slow` at once."""

    port: int
    received: list[Received] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    broken_off: threading.Event = field(default_factory=threading.Event)

    @property
    def authority(self) -> str:
        """Its address and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Its address as a list of allowed hosts spells it."""
        return f"http://{self.authority}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    origin: Origin

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self) -> None:
        try:
            self._keep()
            self._reply(self.path.partition("?")[0])
        except OSError:
            self.origin.broken_off.set()
            self.close_connection = True

    do_GET = do_POST = _answer  # noqa: N815 - the base class names them so

    def _keep(self) -> None:
        body, trailers = self._read()
        headers: dict[str, list[str]] = {}
        for name, value in self.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        kept = Received(self.command, self.path, headers, body, trailers)
        with self.origin.lock:
            self.origin.received.append(kept)

    def _read(self) -> tuple[bytes, dict[str, str]]:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0))), {}
        body, trailers = b"", {}
        while True:
            line = self.rfile.readline()
            if not line:
                raise ConnectionError("the body broke off")
            size = int(line, 16)
            if size == 0:
                break
            body += self.rfile.read(size)
            self.rfile.readline()
        while (line := self.rfile.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            trailers[name.lower()] = value.strip()
        return body, trailers

    def _reply(self, path: str) -> None:
        match path:
            case "/redirect":
                self._send(302, b"", {"location": "http://127.0.0.1:1/elsewhere"})
            case "/slow":
                self._slow()
            case "/never":
                time.sleep(5)
                self._send(200, b"late\n", {})
            case "/big":
                self._send(200, b"v" * 1_000_000, {})
            case "/endless":
                self._endless()
            case "/short":
                self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\ntwelve bytes")
                self.close_connection = True
            case "/two-lengths":
                head = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 12\r\n\r\n"
                self.wfile.write(head + b"twelve bytes")
                self.close_connection = True
            case "/huge-head":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nx-huge: " + b"v" * 1_000_000 + b"\r\n\r\n")
                self.close_connection = True
            case _:
                self._send(200, b"origin\n", {"connection": "keep-alive", "x-from": "origin"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _slow(self) -> None:
        with self.origin.lock:
            self.origin.at_once += 1
            self.origin.most_at_once = max(self.origin.most_at_once, self.origin.at_once)
        time.sleep(0.3)
        with self.origin.lock:
            self.origin.at_once -= 1
        self._send(200, b"slow\n", {})

    def _endless(self) -> None:
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for _ in range(400):
            self.wfile.write(b"5\r\ntick\n\r\n")
            self.wfile.flush()
            time.sleep(0.05)


@contextmanager
def running_origin() -> Iterator[Origin]:
    """An origin for as long as the block lasts."""
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    origin = Origin(server.server_address[1])
    handler.origin = origin  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield origin
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
