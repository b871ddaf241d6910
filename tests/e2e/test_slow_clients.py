"""Clients that keep the node waiting, in each phase of HTTP/2 and while they are answered; and tunnels nobody uses.

HTTP/1.1 heads, handshakes and request bodies are in `test_timers`.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator

import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.frames import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    fields,
    frame,
)
from tests.e2e.node import GREETING, Node
from tests.e2e.wire import HTTP_1, HTTP_2, Http2, connect, read_head, read_http_1, tls_context
from tests.guests import Guests
from tests.simulators.service import Service

IDLE = 0.9

MANIFEST = """\
apiVersion: vedette.dev/v1alpha1
kind: Node
metadata: {{name: impatient}}
spec:
  timers: {{header: 400ms, idle: 900ms, tunnel: 700ms, bodyRate: 1000KB}}
---
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: service}}
spec: {{url: "http://127.0.0.1:{port}"}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: services}}
spec:
  public: true
  rules:
    - matches: [{{path: {{value: /api}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: service}}]
"""


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """What is behind the node."""
    service = Service("service")
    yield service
    service.close()


@pytest.fixture(scope="module")
def impatient(
    start_node: StartNode,
    guests: Guests,
    service: Service,
) -> Node:
    """A node with short timers."""
    node = start_node()
    node.deploy(guests.hello, "hello", "--public")
    node.apply(MANIFEST.format(port=service.port))
    return node


def _until_closed(peer: ssl.SSLSocket) -> tuple[bytes, float]:
    """What comes until the connection closes, and how long that takes."""
    began, came = time.monotonic(), b""
    peer.settimeout(20)
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while piece := peer.recv(65_536):
            came += piece
    return came, time.monotonic() - began


def _frames(came: bytes) -> list[tuple[int, int, bytes]]:
    """Kind, stream and payload of each."""
    found = []
    while len(came) >= 9:
        end = 9 + int.from_bytes(came[:3], "big")
        found.append((came[3], int.from_bytes(came[5:9], "big"), came[9:end]))
        came = came[end:]
    return found


HALF_SENT = {
    "nothing at all": b"",
    "half a preface": PREFACE[:10],
    "half the head of a frame": PREFACE
    + frame(SETTINGS, 0, 0)
    + frame(PING, 0, 0, b"12345678")[:5],
    "half a frame": PREFACE + frame(SETTINGS, 0, 0) + frame(PING, 0, 0, b"12345678")[:-1],
    "half a head": PREFACE
    + frame(SETTINGS, 0, 0)
    + frame(HEADERS, END_STREAM | END_HEADERS, 1, fields())[:-1],
    "fields that are to go on": PREFACE
    + frame(SETTINGS, 0, 0)
    + frame(HEADERS, END_STREAM, 1, fields()),
    "fields that went on": PREFACE
    + frame(SETTINGS, 0, 0)
    + frame(HEADERS, END_STREAM, 1, fields())
    + frame(CONTINUATION, 0, 1, b""),
}


@pytest.mark.parametrize("name", HALF_SENT)
def test_what_is_half_sent_is_given_up_and_recorded(impatient: Node, name: str) -> None:
    known = len(impatient.requests.lines())
    with connect(impatient.endpoint, HTTP_2) as secured:
        secured.sendall(HALF_SENT[name])
        _, took = _until_closed(secured)
    assert 0.3 < took < 10
    [record] = impatient.requests.wait_for(
        lambda line: line in impatient.requests.lines()[known:] and "cause" in line
    )
    assert (record["cause"], record["protocol"]) == ("head_too_slow", "HTTP/2.0")
    assert (record["status"], record["stage"], record["outcome"]) == (408, "admit", "refused")


def test_bytes_now_and_then_do_not_keep_a_head_open(impatient: Node) -> None:
    """Slowloris over HTTP/2: a head in pieces of one byte, which takes half a minute."""
    head = frame(HEADERS, END_STREAM | END_HEADERS, 1, fields(path="/" + "x" * 1_000))
    assert len(head) > 600
    with connect(impatient.endpoint, HTTP_2) as secured:
        secured.sendall(PREFACE + frame(SETTINGS, 0, 0))
        began = time.monotonic()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            for byte in head:
                secured.sendall(bytes([byte]))
                time.sleep(0.05)
    assert time.monotonic() - began < 10, "it was still open"


def test_an_idle_connection_gets_goaway_whatever_it_pings(impatient: Node) -> None:
    with connect(impatient.endpoint, HTTP_2) as secured:
        secured.settimeout(0.1)
        secured.sendall(PREFACE + frame(SETTINGS, 0, 0))
        began, came, is_open = time.monotonic(), b"", True
        while is_open and time.monotonic() - began < 20:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                secured.sendall(frame(PING, 0, 0, b"still on"))
            time.sleep(0.05)
            try:
                piece = secured.recv(65_536)
            except TimeoutError:
                continue
            except (ConnectionError, ssl.SSLError):
                break
            came, is_open = came + piece, bool(piece)
    took = time.monotonic() - began
    codes = [payload[4:8] for kind, _, payload in _frames(came) if kind == GOAWAY]
    assert codes, "closed without a word"
    assert set(codes) == {bytes(4)}, "idle is no error"
    assert IDLE * 0.9 < took < 15


def test_a_connection_in_use_is_not_idle(impatient: Node) -> None:
    with connect(impatient.endpoint, HTTP_2) as secured:
        client = Http2(secured)
        for _ in range(4):
            number = client.request(_request(impatient, "/hello"))
            assert client.answer(number).body == GREETING
            time.sleep(IDLE / 2)


def _request(node: Node, path: str) -> list[tuple[str, str]]:
    return [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", node.endpoint.authority),
        (":path", path),
    ]


@pytest.mark.parametrize("path", ["/api/json", "/api/large", "/hello"])
def test_an_answer_for_which_no_window_is_opened_is_given_up(impatient: Node, path: str) -> None:
    """The connection stays: only the stream is reset, and what it held is free."""
    no_window = b"\x00\x04" + bytes(4)
    request = fields(path=path)
    with connect(impatient.endpoint, HTTP_2) as secured:
        secured.sendall(PREFACE + frame(SETTINGS, 0, 0, no_window))
        secured.sendall(frame(HEADERS, END_STREAM | END_HEADERS, 1, request))
        came, took = _until_closed(secured)
    resets = [(stream, payload) for kind, stream, payload in _frames(came) if kind == RST_STREAM]
    assert resets == [(1, b"\0\0\0\x08")], "CANCEL"
    assert took > IDLE * 0.9
    record = impatient.requests.wait_for(
        lambda line: line["path"] == path and line.get("cause") == "answer_not_taken"
    )[-1]
    assert (record["outcome"], record["stage"], record["status"]) == ("aborted", "respond", 200)


@pytest.mark.parametrize("kind", [HTTP_1, HTTP_2])
def test_a_client_that_does_not_read_is_given_up(impatient: Node, kind: str) -> None:
    known = len(impatient.requests.lines())
    with _deaf(impatient, kind) as secured:
        if kind == HTTP_1:
            secured.sendall(b"GET /api/large HTTP/1.1\r\nhost: localhost\r\n\r\n")
        else:
            wide = b"\x00\x04" + (2**31 - 1).to_bytes(4, "big")
            open_wide = frame(WINDOW_UPDATE, 0, 0, (2**31 - 70_000).to_bytes(4, "big"))
            secured.sendall(PREFACE + frame(SETTINGS, 0, 0, wide) + open_wide)
            request = fields(path="/api/large")
            secured.sendall(frame(HEADERS, END_STREAM | END_HEADERS, 1, request))
        [record] = impatient.requests.wait_for(
            lambda line: (
                line in impatient.requests.lines()[known:] and line["path"] == "/api/large"
            ),
            timeout=20,
        )
    assert (record["cause"], record["outcome"]) == ("answer_not_taken", "aborted")
    assert record["bytesOut"] < 64 << 20


@contextlib.contextmanager
def _deaf(node: Node, protocol: str) -> Iterator[ssl.SSLSocket]:
    """A connection whose own buffer is small, so that what is not read is not sent either."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    plain.settimeout(20)
    plain.connect((node.endpoint.host, node.endpoint.port))
    context = tls_context(node.ca_file, protocol)
    with plain, context.wrap_socket(plain, server_hostname="localhost") as secured:
        yield secured


def test_a_client_that_pauses_gets_the_rest(impatient: Node) -> None:
    size = 64 << 20
    with connect(impatient.endpoint, HTTP_1) as secured:
        secured.sendall(b"GET /api/large HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        read = 0
        for pause_at in (1, size // 2, size):
            time.sleep(IDLE / 2)
            while read < pause_at and (piece := secured.recv(1 << 20)):
                read += len(piece)
    assert read >= size


def test_a_tunnel_that_both_leave_silent_is_closed(impatient: Node) -> None:
    with connect(impatient.endpoint, HTTP_1) as secured:
        secured.sendall(
            b"GET /api/tunnel HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n"
        )
        answer = read_head(secured)
        for _ in range(4):
            time.sleep(0.4)
            secured.sendall(b"still here")
            assert secured.recv(100) == b"still here"
        _, took = _until_closed(secured)
    assert 0.5 < took < 10
    record = impatient.record(answer.split("x-request-id: ")[1].split("\r\n")[0])
    assert (record["cause"], record["stage"], record["status"]) == ("tunnel_silent", "respond", 101)
    assert record["bytesIn"] == record["bytesOut"] == 40


def test_a_tunnel_ends_when_the_token_it_was_opened_with_has_expired(impatient: Node) -> None:
    token = impatient.run("token", "--subject", "guest", "--ttl", "3s").stdout.strip()
    with connect(impatient.endpoint, HTTP_1) as secured:
        secured.sendall(
            b"GET /api/tunnel HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: echo\r\n"
            b"authorization: Bearer " + token.encode() + b"\r\n\r\n"
        )
        answer = read_head(secured)
        assert answer.startswith("http/1.1 101 ")
        echoed = 0
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            for _ in range(200):
                secured.sendall(b"still here")
                if not secured.recv(100):
                    break
                echoed += 1
                time.sleep(0.1)
    assert 0 < echoed < 200
    record = impatient.record(answer.split("x-request-id: ")[1].split("\r\n")[0])
    assert (record["cause"], record["stage"], record["status"]) == (
        "proof_expired",
        "respond",
        101,
    )


def test_the_node_still_answers_others(impatient: Node) -> None:
    with connect(impatient.endpoint, HTTP_1) as secured:
        secured.sendall(b"GET /hello HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert read_http_1(secured, "GET").body == GREETING
