"""A service behind the node: an HTTP/1.1 server that does what its paths say, and some that misbehave.

Owns: what it was asked, for tests to look at. Must not: know what a test expects.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Asked:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int
    client: str | None = None
    """Common name of the client's certificate."""


@dataclass
class Service:
    """Listens on a loopback port of its own until closed."""

    name: str = "service"
    tls: ssl.SSLContext | None = None
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    status: int = 200
    """Of the usual answer, from now on."""
    pause: float = 0
    """Seconds before the usual answer, from now on."""
    gate: threading.Event = field(default_factory=threading.Event)
    """The usual answer waits for it; it is set at first."""

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.gate.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Refuses new connections from now on."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(peer, self.connections), daemon=True).start()

    def _serve(self, peer: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError):
            if self.tls is not None:
                peer = self.tls.wrap_socket(peer, server_side=True)
        with peer, contextlib.suppress(OSError):
            stream = peer.makefile("rb")
            while self._one(peer, stream, number):
                pass

    def _one(self, peer: socket.socket, stream, number: int) -> bool:  # type: ignore[no-untyped-def]
        line = stream.readline()
        if not line:
            return False
        method, target, _ = line.decode().split()
        headers: dict[str, str] = {}
        while (field_line := stream.readline().strip()) != b"":
            name, _, value = field_line.decode().partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("upgrade") == "echo":
            self.asked.append(Asked(method, target, headers, b"", number))
            peer.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n"
            )
            while data := peer.recv(65536):
                peer.sendall(data)
            return False
        if target.endswith("/pipe"):
            self.asked.append(Asked(method, target, headers, b"", number))
            return _pipe(peer, stream, headers)
        body = b"".join(_body(stream, headers))
        self.asked.append(Asked(method, target, headers, body, number, _common_name(peer)))
        if "/say?text=" in target:
            return _say(peer, base64.urlsafe_b64decode(target.partition("/say?text=")[2]))
        return self._answer(peer, method, target.split("?")[0].rsplit("/", 1)[-1], headers, body)

    def _answer(
        self, peer: socket.socket, method: str, what: str, headers: dict[str, str], body: bytes
    ) -> bool:
        if what == "reset":
            return False
        if what == "stall":
            time.sleep(30)
            return False
        if what == "half":
            peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of it")
            return False
        if what == "garbage":
            peer.sendall(b"this is no HTTP\r\n\r\n")
            return False
        if what == "big-head":
            with contextlib.suppress(OSError):
                peer.sendall(b"HTTP/1.1 200 OK\r\n")
                for _ in range(4096):
                    peer.sendall(b"x-large: " + b"a" * 4096 + b"\r\n")
            return False
        if what == "large":
            size = 64 << 20
            peer.sendall(f"HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n".encode())
            for _ in range(size >> 16):
                peer.sendall(b"z" * 65536)
            return True
        if what == "ticks":
            peer.sendall(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            for number in range(3_000):  # ends with the connection; a minute at most
                tick = b"data: %d\n\n" % number
                peer.sendall(b"%x\r\n%b\r\n" % (len(tick), tick))
                time.sleep(0.02)
            return False
        if what == "trailers":
            peer.sendall(
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n"
                b"2\r\nok\r\n0\r\nx-sum: 42\r\n\r\n"
            )
            return True
        time.sleep(self.pause)
        self.gate.wait(60)
        status = 503 if what == "flaky" and len(self.asked) % 2 == 1 else self.status
        told = json.dumps(
            {"service": self.name, "method": method, "headers": headers, "size": len(body)}
        ).encode()
        content = body if what == "echo" else told
        head = (
            f"HTTP/1.1 {status} Told\r\ncontent-length: {len(content)}\r\nx-service: {self.name}\r\n"
            "connection: keep-alive, x-hop\r\nx-hop: mine\r\nx-request-id: forged\r\n\r\n"
        )
        peer.sendall(head.encode() + (b"" if method == "HEAD" else content))
        return True


def _say(peer: socket.socket, text: bytes) -> bool:
    """A page with this text."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {len(text)}\r\n\r\n"
    peer.sendall(head.encode() + text)
    return True


def _pipe(peer: socket.socket, stream, headers: dict[str, str]) -> bool:  # type: ignore[no-untyped-def]
    """The body back as it comes, none of it kept."""
    peer.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    for piece in _pieces(stream, headers):
        peer.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
    peer.sendall(b"0\r\n\r\n")
    return True


def _pieces(stream, headers: dict[str, str]) -> Iterator[bytes]:  # type: ignore[no-untyped-def]
    """A body in pieces of a bounded size."""
    if headers.get("transfer-encoding") == "chunked":
        yield from (piece for piece in _body(stream, headers) if piece)
        return
    left = int(headers.get("content-length", 0))
    while left and (piece := stream.read1(min(left, 1 << 18))):
        left -= len(piece)
        yield piece


def _body(stream, headers: dict[str, str]) -> Iterator[bytes]:  # type: ignore[no-untyped-def]
    if headers.get("transfer-encoding") == "chunked":
        while size := int(stream.readline().split(b";")[0], 16):
            yield stream.read(size)
            stream.readline()
        while stream.readline().strip():
            pass
    elif length := int(headers.get("content-length", 0)):
        yield stream.read(length)


def _common_name(peer: socket.socket) -> str | None:
    certificate = peer.getpeercert() if isinstance(peer, ssl.SSLSocket) else None
    subject = (certificate or {}).get("subject", ())
    return next((value for parts in subject for key, value in parts if key == "commonName"), None)
