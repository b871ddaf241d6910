"""Servers that stand where the engine should, and do what it never does.

Owns: a TLS server of any version under the twin's own certificate, and a plain one. Must not: refuse anything.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
import warnings
from pathlib import Path
from typing import Any


class Dishonest:
    """Answers every request with 200 and the fields that came; `/ticks` without end."""

    def __init__(self, certificate: Path | None = None, key: Path | None = None) -> None:
        self._context: ssl.SSLContext | None = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                self._context.minimum_version = ssl.TLSVersion.TLSv1
            self._context.set_ciphers("ALL:@SECLEVEL=0")
            self._context.set_alpn_protocols(["h2", "http/1.1"])
            self._context.load_cert_chain(certificate, key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = ("127.0.0.1", int(self._listener.getsockname()[1]))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Refuses connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: Any) -> None:
        with contextlib.suppress(OSError, IndexError):
            if self._context is not None:
                peer = self._context.wrap_socket(peer, server_side=True)
            with peer:
                self._answer(peer)

    def _answer(self, peer: Any) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = peer.recv(1)
            if not byte or (not head and not byte.isalpha()):
                return
            head += byte
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
        if first.split(" ")[1].endswith("/ticks"):
            peer.sendall(b"HTTP/1.1 200 OK\r\nx-request-id: none\r\n\r\n")
            while True:
                peer.sendall(b"data: x\n\n")
                time.sleep(0.02)
        told = json.dumps(fields).encode()
        peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(told), told))
