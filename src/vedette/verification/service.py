"""The service behind the twin: tells what reached it, streams without end, and echoes tunnels.

Owns: what arrived, for checks to count. Must not: judge it.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import threading
from dataclasses import dataclass, field
from typing import BinaryIO, Final

_TICK: Final = 0.02  # seconds between two events
_MAX_LINE: Final = 64 * 1024
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §4.2.2


@dataclass
class Service:
    """Listens on a loopback port of its own until closed. `trap` is where a redirect leads: nobody is to come there."""

    arrived: list[str] = field(default_factory=list)
    """Request lines, in the order in which they came."""
    sprung: int = 0
    """Connections to the trap."""

    def __post_init__(self) -> None:
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._trap = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.trap_port = int(self._trap.getsockname()[1])
        self._listeners = [self._listener, self._trap]
        for listener in self._listeners:
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def reserve(self) -> socket.socket:
        """A port of its own at which nobody answers, until `answer_at`."""
        reserved = socket.socket()
        reserved.bind(("127.0.0.1", 0))
        self._listeners.append(reserved)
        return reserved

    def answer_at(self, reserved: socket.socket) -> None:
        """From now on the service is there as well."""
        reserved.listen()
        threading.Thread(target=self._accept, args=(reserved,), daemon=True).start()

    def close(self) -> None:
        """Refuses connections and ends streams."""
        self._stopping.set()
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            if listener is self._trap:
                self.sprung += 1
                peer.close()
                continue
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError, ValueError):
            lines = peer.makefile("rb")
            while self._one(peer, lines):
                pass

    def _one(self, peer: socket.socket, lines: BinaryIO) -> bool:
        first = lines.readline(_MAX_LINE).decode("latin-1")
        if not first:
            return False
        headers: dict[str, str] = {}
        while (line := lines.readline(_MAX_LINE).strip()) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        lines.read(int(headers.get("content-length", 0)))
        target = first.split(" ")[1]
        self.arrived.append(first.strip())
        if headers.get("upgrade") == "websocket":
            return self._echo(peer, headers)
        if target.endswith("/ticks"):
            return self._tick(peer)
        if target == "/":
            return self._redirect(peer)
        told = json.dumps(headers).encode()
        peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(told), told))
        return True

    def _redirect(self, peer: socket.socket) -> bool:
        place = b"http://127.0.0.1:%d/" % self.trap_port
        peer.sendall(b"HTTP/1.1 302 Found\r\nlocation: %b\r\ncontent-length: 0\r\n\r\n" % place)
        return True

    def _tick(self, peer: socket.socket) -> bool:
        peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
        peer.sendall(b"transfer-encoding: chunked\r\n\r\n")
        while not self._stopping.wait(_TICK):
            peer.sendall(b"9\r\ndata: x\n\n\r\n")
        return False

    def _echo(self, peer: socket.socket, headers: dict[str, str]) -> bool:
        key = headers.get("sec-websocket-key", "").encode()
        accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        peer.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-accept: %b\r\n\r\n" % accept
        )
        while data := peer.recv(_MAX_LINE):
            peer.sendall(data)
        return False
