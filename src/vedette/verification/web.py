"""A caller of the public listener that says exactly what it is told to say, right or wrong.

Owns: one connection for each request, and streams that are read until they end. Must not: retry, follow, or correct.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import h2.config
import h2.connection
import h2.events

Header = tuple[str, str]
PATIENCE: Final = 10.0  # seconds for one read
HTTP_1: Final = "http/1.1"
HTTP_2: Final = "h2"
_READ: Final = 65_536


@dataclass(frozen=True, slots=True)
class Listener:
    """Where a TLS listener is, and which CA it proves itself with."""

    host: str
    port: int
    ca_file: Path

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self.host, self.port


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `status` 0: no answer, and `error` says how the connection ended."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: str = ""

    @property
    def request_id(self) -> str | None:
        """The id under which it was recorded."""
        return self.headers.get("x-request-id")

    def __str__(self) -> str:
        return f"answered {self.status}" if self.status else f"no answer: {self.error}"


def tls(
    listener: Listener, credential: Path | None = None, protocol: str = HTTP_1
) -> ssl.SSLContext:
    """A client's settings: the node's CA is trusted, and no other; `credential` is PEM with a key."""
    context = ssl.create_default_context(cafile=str(listener.ca_file))
    context.check_hostname = (
        False  # the chain proves the node; what it is called is not the question here
    )
    context.set_alpn_protocols([protocol])
    if credential is not None:
        context.load_cert_chain(credential)
    return context


@contextmanager
def connected(listener: Listener, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    """A TLS connection without a server name. Raises `OSError`."""
    with (
        socket.create_connection(listener.address, timeout=PATIENCE) as plain,
        context.wrap_socket(plain) as secured,
    ):
        yield secured


def bearer(token: str) -> Header:
    """The header that carries a token."""
    return "authorization", f"Bearer {token}"


def ask(
    listener: Listener,
    target: str,
    *,
    method: str = "GET",
    headers: Sequence[Header] = (),
    credential: Path | None = None,
    context: ssl.SSLContext | None = None,
) -> Answer:
    """One request over HTTP/1.1, every byte as given."""
    context = context or tls(listener, credential)
    lines = [f"{method} {target} HTTP/1.1", f"host: localhost:{listener.port}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers]
    if method in ("POST", "PUT"):
        lines.append("content-length: 0")
    try:
        with connected(listener, context) as secured:
            secured.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
            return _read(secured, method)
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, error=str(error) or type(error).__name__)


def _read(secured: ssl.SSLSocket, method: str) -> Answer:
    response = http.client.HTTPResponse(secured, method=method)
    response.begin()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, response.read(1 << 20))


def say_plainly(address: tuple[str, int], text: bytes, patience: float = PATIENCE) -> bytes:
    """What a port answers to bytes in clear, at most 64 KiB; empty when it closes."""
    said = b""
    try:
        with socket.create_connection(address, timeout=patience) as plain:
            plain.sendall(text)
            while len(said) < _READ and (more := plain.recv(_READ)):
                said += more
    except OSError:
        return said
    return said


class Stream:
    """An answer without an end, over HTTP/1.1: events, or a WebSocket after `upgrade`."""

    def __init__(
        self,
        listener: Listener,
        target: str,
        *,
        headers: Sequence[Header] = (),
        credential: Path | None = None,
    ) -> None:
        plain = socket.create_connection(listener.address, timeout=PATIENCE)
        try:
            self._socket = tls(listener, credential).wrap_socket(plain)
        except BaseException:
            plain.close()
            raise
        lines = [f"GET {target} HTTP/1.1", f"host: localhost:{listener.port}"]
        lines += [f"{name}: {value}" for name, value in headers]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        head = self._head()
        self.status = int(head.split(" ", 2)[1]) if head else 0
        self.request_id = _field(head, "x-request-id")

    def _head(self) -> str:
        head = b""
        while not head.endswith(b"\r\n\r\n") and (byte := self._socket.recv(1)):
            head += byte
        return head.decode("latin-1")

    def goes_on(self) -> bool:
        """Waits for more; False when it has ended. One that says nothing has not ended."""
        try:
            return bool(self._socket.recv(_READ))
        except TimeoutError:
            return True
        except OSError:
            return False

    def wait_at_most(self, seconds: float) -> None:
        """How long one read waits from now on."""
        self._socket.settimeout(seconds)

    def echoes(self, text: bytes) -> bool:
        """Whether a tunnel gives back what goes in."""
        try:
            self._socket.sendall(text)
            return self._socket.recv(_READ) == text
        except OSError:
            return False

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()


class Stream2:
    """The same over HTTP/2, one stream of a connection."""

    def __init__(
        self,
        listener: Listener,
        target: str,
        *,
        headers: Sequence[Header] = (),
        credential: Path | None = None,
    ) -> None:
        plain = socket.create_connection(listener.address, timeout=PATIENCE)
        self._socket = tls(listener, credential, HTTP_2).wrap_socket(plain)
        settings = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self._http = h2.connection.H2Connection(settings)
        self._http.initiate_connection()
        pseudo = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", f"localhost:{listener.port}"),
            (":path", target),
        ]
        self._http.send_headers(1, [*pseudo, *headers], end_stream=True)
        self.status, self.request_id = 0, ""
        self._ended = False
        self._flush()
        while not self.status and not self._ended:
            self._pump()

    def _flush(self) -> None:
        self._socket.sendall(self._http.data_to_send())

    def _pump(self) -> bool:
        """Reads once; whether something of the answer came, or could still come."""
        try:
            data = self._socket.recv(_READ)
        except TimeoutError:
            return True
        except OSError:
            data = b""
        if not data:
            self._ended = True
            return False
        came = False
        for event in self._http.receive_data(data):
            came |= self._take(event)
        self._flush()
        return came

    def _take(self, event: h2.events.Event) -> bool:
        if isinstance(event, h2.events.ResponseReceived):
            fields = {str(name): str(value) for name, value in event.headers or ()}
            self.status, self.request_id = int(fields[":status"]), fields.get("x-request-id", "")
        elif isinstance(event, h2.events.DataReceived):
            self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            return True
        elif isinstance(
            event, h2.events.StreamReset | h2.events.StreamEnded | h2.events.ConnectionTerminated
        ):
            self._ended = True
        return False

    def wait_at_most(self, seconds: float) -> None:
        """How long one read waits from now on."""
        self._socket.settimeout(seconds)

    def goes_on(self) -> bool:
        """Waits for more; False when it has ended."""
        while not self._ended:
            if self._pump():
                return True
        return False

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()


def seconds_to_end(stream: Stream | Stream2, since: float, most: float) -> float | None:
    """How long after `since` (monotonic) a stream ended; None when it goes on for `most` seconds."""
    while (left := since + most - time.monotonic()) > 0:
        stream.wait_at_most(left)
        if not stream.goes_on():
            return time.monotonic() - since
    return None


def _field(head: str, name: str) -> str:
    for line in head.split("\r\n")[1:]:
        found, _, value = line.partition(":")
        if found.lower() == name:
            return value.strip()
    return ""
