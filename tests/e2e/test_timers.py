"""How long a client may take over each part: settings of the node's manifest, and what happens beyond them."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from pathlib import Path

import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.node import GREETING, Node
from tests.e2e.wire import HTTP_1, Http2, connect, read_http_1
from tests.guests import Guests

MANIFEST = """\
apiVersion: vedette.dev/v1alpha1
kind: Node
metadata: {name: impatient}
spec:
  timers: {handshake: 300ms, header: 400ms, idle: 900ms, bodyRate: 1000KB}
"""


@pytest.fixture(scope="module")
def impatient(start_node: StartNode, guests: Guests) -> Node:
    """A node with short timers."""
    node = start_node()
    node.deploy(guests.hello, "hello", "--public")
    node.deploy(guests.hostile, "mirror", "--public")
    node.apply(MANIFEST)
    return node


def _ends(secured: ssl.SSLSocket) -> float:
    """How long the server leaves the connection open, in seconds, while nothing is sent."""
    started = time.monotonic()
    secured.settimeout(20)
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        assert secured.recv(1) == b""
    return time.monotonic() - started


def test_a_handshake_that_does_not_come_is_given_up(impatient: Node) -> None:
    address = (impatient.endpoint.host, impatient.endpoint.port)
    with socket.create_connection(address, timeout=20) as plain:
        plain.sendall(b"\x16\x03\x01")
        assert plain.recv(1) == b""


def test_a_head_that_does_not_end_is_given_up_and_recorded(impatient: Node) -> None:
    with connect(impatient.endpoint, HTTP_1) as secured:
        secured.sendall(b"GET /hello HTTP/1.1\r\nhost: localhost\r\nx-slow: ")
        assert _ends(secured) >= 0.3
    [record] = impatient.requests.wait_for(lambda line: line.get("cause") == "head_too_slow")
    assert (record["status"], record["stage"], record["outcome"]) == (408, "admit", "refused")


def test_bytes_now_and_then_do_not_keep_a_head_open(impatient: Node) -> None:
    """Slowloris: the time counts from the first byte of the head, not from the last one that came."""
    started = time.monotonic()
    with connect(impatient.endpoint, HTTP_1) as secured:
        secured.sendall(b"GET /hello HTTP/1.1\r\nhost: localhost\r\n")
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while time.monotonic() - started < 20:
                secured.sendall(b"x: y\r\n")
                time.sleep(0.05)
    assert time.monotonic() - started < 20, "it was still open"


def test_an_idle_connection_is_closed_and_one_in_use_is_not(impatient: Node) -> None:
    with connect(impatient.endpoint, HTTP_1) as secured:
        for _ in range(4):
            secured.sendall(b"GET /hello HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert read_http_1(secured, "GET").body == GREETING
            time.sleep(0.45)  # longer than a head may take, shorter than a connection may idle
        assert _ends(secured) >= 0.3


def test_a_body_slower_than_the_pace_is_cut(impatient: Node, protocol: str) -> None:
    """After ten seconds of grace, a thousand kilobytes a second are asked for and none come."""
    with connect(impatient.endpoint, protocol, timeout=60) as secured:
        if protocol == HTTP_1:
            head = "POST /mirror/count HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n"
            secured.sendall(head.encode() + b"slow")
            answer = read_http_1(secured, "POST")
        else:
            client = Http2(secured)
            fields = [
                (":method", "POST"),
                (":scheme", "https"),
                (":authority", impatient.endpoint.authority),
                (":path", "/mirror/count"),
                ("content-length", "100"),
            ]
            answer = client.answer(client.request(fields, b"slow", end=False))
    assert answer.status == 408
    record = impatient.record(answer.request_id)
    assert (record["stage"], record["cause"]) == ("execute", "body_too_slow")


def test_timers_are_in_the_snapshot(impatient: Node, tmp_path: Path) -> None:
    manifest = tmp_path / "node.yaml"
    manifest.write_text(MANIFEST, "utf-8")
    assert impatient.run("plan", "-f", str(manifest), check=False).returncode == 0
