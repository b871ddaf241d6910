"""HTTP/1.1 and HTTP/2 written by hand, so that a test can send what a proper client would refuse to send.

Owns: TLS sockets with any server name and version, raw requests, and reading the answer as far as it came.
Must not: normalise, retry or validate anything on the way out.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h2.config
import h2.connection
import h2.events

HTTP_1 = "HTTP/1.1"
HTTP_2 = "HTTP/2.0"

_ALPN = {HTTP_1: "http/1.1", HTTP_2: "h2"}
_READ = 65_536
_FRAME_HEAD = 9  # RFC 9113 section 4.1
_RST_STREAM = 0x3
_GOAWAY = 0x7

Header = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: `complete` is false when the connection or the stream ended before the body did."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = True

    @property
    def request_id(self) -> str:
        """The id the edge gave this request; empty when it gave none."""
        return self.headers.get("x-request-id", "")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the node listens and which CA it proves itself with."""

    host: str
    port: int
    ca_file: Path

    @property
    def authority(self) -> str:
        """`localhost:PORT`, the name every test node answers to."""
        return f"localhost:{self.port}"


def tls_context(ca_file: Path, protocol: str) -> ssl.SSLContext:
    """A client context that trusts only `ca_file` and offers only `protocol`."""
    context = ssl.create_default_context(cafile=str(ca_file))
    context.set_alpn_protocols([_ALPN[protocol]])
    return context


@contextmanager
def connect(
    endpoint: Endpoint,
    protocol: str,
    sni: str | None = "localhost",
    timeout: float = 60.0,
    name_checked: bool = True,
    source: str = "",
) -> Iterator[ssl.SSLSocket]:
    """A TLS connection; the chain is always checked. Without `sni` no server name is sent or checked. `source`: the
    client's own address, one of 127.0.0.0/8.
    """
    context = tls_context(endpoint.ca_file, protocol)
    context.check_hostname = name_checked and sni is not None
    with (
        socket.create_connection(
            (endpoint.host, endpoint.port), timeout=timeout, source_address=(source, 0)
        ) as plain,
        context.wrap_socket(plain, server_hostname=sni) as secured,
    ):
        assert secured.selected_alpn_protocol() == _ALPN[protocol]
        yield secured


def send(
    endpoint: Endpoint,
    protocol: str,
    target: str,
    *,
    method: str = "GET",
    headers: Sequence[Header] = (),
    body: bytes = b"",
    authority: str | None = None,
    sni: str | None = "localhost",
    timeout: float = 60.0,
    name_checked: bool = True,
    source: str = "",
) -> Answer:
    """One request on a connection of its own, every part exactly as given."""
    authority = endpoint.authority if authority is None else authority
    with connect(endpoint, protocol, sni, timeout, name_checked, source) as secured:
        if protocol == HTTP_1:
            lines = [f"{method} {target} HTTP/1.1", f"host: {authority}", "connection: close"]
            lines += [f"{name}: {value}" for name, value in headers]
            if body:
                lines.append(f"content-length: {len(body)}")
            secured.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
            return read_http_1(secured, method)
        stream = Http2(secured)
        number = stream.request(
            [
                (":method", method),
                (":scheme", "https"),
                (":authority", authority),
                (":path", target),
                *headers,
            ],
            body,
        )
        return stream.answer(number)


class Kept:
    """Asks for a path again and again on one connection, over either protocol."""

    def __init__(self, secured: ssl.SSLSocket, endpoint: Endpoint) -> None:
        self._socket = secured
        self._authority = endpoint.authority
        is_http_2 = secured.selected_alpn_protocol() == _ALPN[HTTP_2]
        self.streams = Http2(secured) if is_http_2 else None

    def ask(self, path: str) -> Answer:
        """The answer to one more request."""
        if self.streams is None:
            request = f"GET {path} HTTP/1.1\r\nhost: {self._authority}\r\n\r\n"
            self._socket.sendall(request.encode())
            return read_http_1(self._socket, "GET")
        return self.streams.answer(self.begin(path))

    def begin(self, path: str) -> int:
        """Opens a stream with a request; its number."""
        assert self.streams is not None
        pseudo = [(":method", "GET"), (":scheme", "https"), (":authority", self._authority)]
        return self.streams.request([*pseudo, (":path", path)])

    def require_closed(self) -> None:
        """Returns when the peer has ended the connection in good order: it said so, and closed it."""
        if self.streams is None:
            assert self._socket.recv(1) == b""
            return
        while not self.streams.closed:
            self.streams.pump()
        assert self.streams.leaving


def send_bytes(endpoint: Endpoint, request: bytes, timeout: float = 60.0) -> Answer:
    """One HTTP/1.1 request, byte for byte."""
    with connect(endpoint, HTTP_1, timeout=timeout) as secured:
        secured.sendall(request)
        return read_http_1(secured, "GET")


def read_http_1(secured: ssl.SSLSocket, method: str) -> Answer:
    """The answer on an HTTP/1.1 connection; status 0 when the peer closed without one."""
    response = http.client.HTTPResponse(secured, method=method)
    try:
        response.begin()
    except (http.client.HTTPException, ConnectionError, ssl.SSLError):
        return Answer(0, complete=False)
    headers = {name.lower(): value for name, value in response.getheaders()}
    try:
        return Answer(response.status, headers, response.read())
    except http.client.IncompleteRead as error:
        return Answer(response.status, headers, error.partial, complete=False)
    except (ConnectionError, ssl.SSLError):
        return Answer(response.status, headers, complete=False)


def read_head(secured: ssl.SSLSocket) -> str:
    """The head of an answer, in lower case, up to the empty line."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += secured.recv(1)
    return head.decode().lower()


class Http2:
    """The client's end of one HTTP/2 connection; nothing that is sent is checked or lower-cased."""

    def __init__(self, secured: ssl.SSLSocket) -> None:
        self._socket = secured
        configuration = h2.config.H2Configuration(
            client_side=True,
            header_encoding="utf-8",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.connection = h2.connection.H2Connection(configuration)
        self.connection.initiate_connection()
        self.flush()
        self._status: dict[int, int] = {}
        self._headers: dict[int, dict[str, str]] = {}
        self._bodies: dict[int, bytes] = {}
        self._ended: dict[int, bool] = {}
        self._unread = b""
        self.resets: dict[int, int] = {}
        self._pongs = 0
        self.closed = False
        self.leaving = False  # the peer takes no new streams soon

    def flush(self) -> None:
        """Sends what the state machine has ready."""
        self._socket.sendall(self.connection.data_to_send())

    def request(self, headers: Sequence[Header], body: bytes = b"", end: bool = True) -> int:
        """Opens a stream and sends the request; the number of the stream. The body is at most 16 KiB."""
        number = self.connection.get_next_available_stream_id()
        self.connection.send_headers(number, list(headers), end_stream=end and not body)
        if body:
            self.connection.send_data(number, body, end_stream=end)
        self.flush()
        return number

    def reset(self, number: int) -> None:
        """Resets a stream with CANCEL; `flush` sends it."""
        self.connection.reset_stream(number, error_code=8)

    def ping(self) -> None:
        """Returns when the peer has taken in all that was sent, and what it sent before is read."""
        wanted = self._pongs + 1
        self.connection.ping(b"all read")
        self.flush()
        while self._pongs < wanted and not self.closed:
            self.pump()

    def answer(self, number: int) -> Answer:
        """Waits until the stream ended, was reset, or the connection went."""
        while number not in self._ended and not self.closed:
            self.pump()
        return Answer(
            self._status.get(number, 0),
            self._headers.get(number, {}),
            self._bodies.get(number, b""),
            complete=self._ended.get(number, False),
        )

    def status(self, number: int) -> int:
        """The status of a stream; 0 until it is there."""
        return self._status.get(number, 0)

    def head(self, number: int) -> dict[str, str]:
        """The fields of a stream's answer so far."""
        return self._headers.get(number, {})

    def body_so_far(self, number: int) -> bytes:
        """What arrived of the body of a stream."""
        return self._bodies.get(number, b"")

    def pump(self) -> None:
        """Reads once and takes in what came."""
        try:
            data = self._socket.recv(_READ)
        except (ConnectionError, ssl.SSLError):
            data = b""
        if not data:
            self.closed = True
            return
        self._unread += data
        while frame := self._next_frame():
            for event in self.connection.receive_data(frame):
                self._take(event)
        self.flush()

    def _next_frame(self) -> bytes:
        """The next whole frame; a graceful GOAWAY is left out, because `h2` takes it for the end of every stream."""
        if len(self._unread) < _FRAME_HEAD:
            return b""
        size = _FRAME_HEAD + int.from_bytes(self._unread[:3], "big")
        if len(self._unread) < size:
            return b""
        frame, self._unread = self._unread[:size], self._unread[size:]
        if frame[3] == _RST_STREAM:
            stream = int.from_bytes(frame[5:9], "big")
            self.resets[stream] = int.from_bytes(frame[9:13], "big")
        graceful = frame[3] == _GOAWAY and frame[13:17] == b"\0\0\0\0"
        self.leaving |= graceful
        return self._next_frame() if graceful else frame

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived(stream_id=number, headers=headers):
                fields = {str(name): str(value) for name, value in headers or ()}
                self._status[number] = int(fields.pop(":status"))
                self._headers[number] = fields
            case h2.events.TrailersReceived(stream_id=number, headers=headers):
                trailers = {str(name): str(value) for name, value in headers or ()}
                self._headers[number] = {**self._headers[number], **trailers}
            case h2.events.DataReceived(stream_id=number, data=data):
                self._bodies[number] = self._bodies.get(number, b"") + data
                self.connection.acknowledge_received_data(event.flow_controlled_length, number)
            case h2.events.StreamEnded(stream_id=number):
                self._ended[number] = True
            case h2.events.StreamReset(stream_id=number):
                self._ended.setdefault(number, False)
            case h2.events.ConnectionTerminated():
                self.closed = True
            case h2.events.PingAckReceived():
                self._pongs += 1
            case _:
                pass
