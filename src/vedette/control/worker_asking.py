"""One question to the process of a model over its own socket, at a path that no caller reaches.

Owns: how long it may take and how much may come of it, whole, whoever's model it is. Must not: know what is asked; or
wake a worker that nobody asks: to connect to one that rests would start it.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

PATIENCE: Final = 1.0
"""Seconds for an answer, which a worker has at hand."""
_MOST_HEAD: Final = 8 << 10


@dataclass(frozen=True, slots=True)
class WorkerAnswer:
    """What it says; names of fields are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def is_ready(state: Any) -> bool:
    """Whether a worker runs, by what the keeper says of it."""
    return state is not None and state["state"] == "ready"


def ask_worker(
    path: Path, method: Literal["GET", "POST"], target: str, body: bytes, most: int
) -> WorkerAnswer | None:
    """What a worker answers, whole within `PATIENCE` and at most `most` bytes; None: nothing of use."""
    head = f"{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    deadline = time.monotonic() + PATIENCE
    heard = bytearray()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(path))
            connection.sendall(head.encode() + body)
            while len(heard) <= _MOST_HEAD + most:
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                connection.settimeout(left)
                piece = connection.recv(1 << 16)
                if not piece:
                    break
                heard += piece
        response = http.client.HTTPResponse(cast("Any", _Heard(bytes(heard))), method=method)
        response.begin()
        content = response.read(most + 1)
    except (OSError, http.client.HTTPException):
        return None
    if len(content) > most:
        return None
    headers = {name.lower(): value for name, value in response.getheaders()}
    return WorkerAnswer(response.status, headers, content)


class _Heard(io.BytesIO):
    """What came, where a response of the standard library looks for a socket."""

    def makefile(self, _mode: str) -> io.BytesIO:
        """Itself."""
        return self
