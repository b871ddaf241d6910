"""One request to the node's own gateway, as any other caller of it makes: over TLS, with a token.

Owns: the connection, what proves the node (its CA, and no other), the limit on the answer. Must not: keep the token, or
put it into an error.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from vedette.errors import UnavailableError

MOST: Final = 256 << 20  # bytes of an answer


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and how long it took from the first byte sent to the last one read, in seconds."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


class _Secured(http.client.HTTPSConnection):
    """To where the node listens, for the host of a route."""

    def __init__(self, place: SplitResult, asked: str, context: ssl.SSLContext, timeout: float):
        super().__init__(place.hostname or "", place.port, timeout=timeout, context=context)
        self._place = place
        self._asked = asked
        self._tls = context

    def connect(self) -> None:
        """Connects to the listener, which must prove that it is the host asked for."""
        address = (self._place.hostname or "", self._place.port or 443)
        plain = socket.create_connection(address, self.timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self._asked)


def post(
    url: str,
    listener: str,
    ca_file: Path,
    body: bytes,
    headers: Mapping[str, str],
    patience: float,
) -> Answer:
    """Posts `body` to `url` of the node that listens at the URL `listener`, of `patience` seconds for each read.

    Raises `UnavailableError` model_unavailable when nothing comes back.
    """
    asked, place = urlsplit(url), urlsplit(listener)
    connection: http.client.HTTPConnection
    if place.scheme == "https":
        context = ssl.create_default_context(cafile=str(ca_file))
        connection = _Secured(place, asked.hostname or "", context, patience)
    else:
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=patience)
    with contextlib.closing(connection):
        try:
            connection.connect()
            started = time.monotonic()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                # The node may answer before it has read everything: it refuses, and says why.
                connection.request("POST", asked.path, body, {"host": asked.netloc, **headers})
            response = connection.getresponse()
            content = response.read(MOST + 1)
            seconds = time.monotonic() - started
        except (OSError, http.client.HTTPException) as error:
            message = f"{listener} does not answer: {error or type(error).__name__}"
            raise UnavailableError("model_unavailable", message) from None
    if len(content) > MOST:
        raise UnavailableError("model_unavailable", f"the answer is larger than {MOST >> 20} MiB")
    told = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, told, content, seconds)
