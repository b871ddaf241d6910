"""What a caller can make the HTTPS server hold."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.control.federation.conftest import Web

from vedette.control.federation.endpoint import Bounds, HttpsServer

DOCUMENT = b'{"keys":[]}'
PATIENCE = 60.0

Serve = Callable[[Bounds], int]


@pytest.fixture
def serve(web: Web) -> Iterator[Serve]:
    """Serves one document with these bounds; gives the port."""
    started: list[HttpsServer] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(web.certificate, web.key)

    def serve(bounds: Bounds) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        server = HttpsServer(lambda: {"/bundle": DOCUMENT}, lambda: context, bounds)
        server.start([listener])
        started.append(server)
        return port

    yield serve
    for server in started:
        server.stop()


def connected(port: int) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", port))
    made.settimeout(PATIENCE)
    return made


def secured(port: int, ca: Path) -> ssl.SSLSocket:
    return ssl.create_default_context(cafile=str(ca)).wrap_socket(
        connected(port), server_hostname="localhost"
    )


def answer(made: ssl.SSLSocket) -> bytes:
    """All that comes until the server closes."""
    found = b""
    try:
        while part := made.recv(65_536):
            found += part
    except (ssl.SSLError, ConnectionResetError):
        pass
    return found


def is_closed(made: socket.socket) -> bool:
    try:
        return made.recv(1) == b""
    except ConnectionResetError:
        return True


GET = b"GET /bundle HTTP/1.1\r\nhost: localhost\r\n\r\n"


def test_it_answers_one_request_and_closes(serve: Serve, web: Web) -> None:
    made = secured(serve(Bounds()), web.ca)
    made.sendall(GET + GET)
    found = answer(made)
    assert found.startswith(b"HTTP/1.1 200")
    assert found.count(b"HTTP/1.1") == 1
    assert found.endswith(DOCUMENT)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /bundle HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 20_000,
        b"\x16\x03\x01 no HTTP\r\n\r\n",
        b"GET /bundle HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_a_head_that_is_too_large_or_no_http_is_cut(serve: Serve, web: Web, sent: bytes) -> None:
    port = serve(Bounds())
    made = secured(port, web.ca)
    made.sendall(sent)
    assert b"200" not in answer(made)
    again = secured(port, web.ca)
    again.sendall(GET)
    assert answer(again).endswith(DOCUMENT)


def test_who_is_slow_at_the_handshake_or_the_request_is_cut(serve: Serve, web: Web) -> None:
    port = serve(Bounds(seconds=0.5))
    silent, slow = connected(port), secured(port, web.ca)
    slow.sendall(GET[:-4])
    assert is_closed(silent)
    assert answer(slow) == b""


def test_one_address_has_a_few_connections_and_the_others_their_own(serve: Serve, web: Web) -> None:
    port = serve(Bounds(of_address=2, seconds=1_000.0))
    held = [secured(port, web.ca) for _ in range(2)]
    assert is_closed(connected(port))
    other = socket.socket()
    other.settimeout(PATIENCE)
    other.bind(("127.0.0.2", 0))
    other.connect(("127.0.0.1", port))
    context = ssl.create_default_context(cafile=str(web.ca))
    with context.wrap_socket(other, server_hostname="localhost") as made:
        made.sendall(GET)
        assert answer(made).endswith(DOCUMENT)
    held[0].close()
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            made = secured(port, web.ca)
            made.sendall(GET)
            break
        except (OSError, ssl.SSLError):
            assert time.monotonic() < deadline
    assert answer(made).endswith(DOCUMENT)


def test_who_comes_when_all_places_are_taken_waits_and_is_served(serve: Serve, web: Web) -> None:
    port = serve(Bounds(connections=2, seconds=1.0))
    held = [connected(port) for _ in range(2)]
    waiting = secured(port, web.ca)  # its handshake begins when one of the two was cut
    waiting.sendall(GET)
    assert answer(waiting).endswith(DOCUMENT)
    assert all(is_closed(one) for one in held)
