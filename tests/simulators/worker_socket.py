"""A Unix socket that answers as the process of a model does: one request a connection, as a test says.

Owns: reading a request whole before it is answered. Must not: know what is asked.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def answering(path: Path, answer: Callable[[bytes, bytes], bytes]) -> Iterator[None]:
    """Answers until the end of the block; `answer` gets the line of a request and its body."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as request:
                lines = list(iter(request.readline, b"\r\n"))
                (length,) = (each for each in lines if each.lower().startswith(b"content-length:"))
                answered = answer(lines[0], request.read(int(length.split(b":")[1])))
                with suppress(OSError):
                    connection.sendall(answered)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
