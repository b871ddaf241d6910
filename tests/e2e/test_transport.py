"""TLS and HTTP framing: what is spoken, what is not, and that malformed bytes cost only their own connection."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess

import pytest
from tests.e2e.caller import Caller
from tests.e2e.node import GREETING, Node, wait_until
from tests.e2e.wire import HTTP_1, HTTP_2, connect, read_http_1, send_bytes, tls_context


def test_tls_1_3_is_spoken(node: Node, protocol: str) -> None:
    with connect(node.endpoint, protocol) as secured:
        assert secured.version() == "TLSv1.3"


def test_tls_1_2_is_refused(node: Node) -> None:
    context = tls_context(node.ca_file, HTTP_1)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    address = (node.endpoint.host, node.endpoint.port)
    with (
        socket.create_connection(address, timeout=10) as plain,
        pytest.raises(ssl.SSLError, match=r"(?i)version|alert"),
    ):
        context.wrap_socket(plain, server_hostname="localhost")


def test_the_post_quantum_group_is_preferred(node: Node) -> None:
    """Needs an openssl that knows X25519MLKEM768 (3.5); Python's ssl cannot name the group that was used."""
    openssl = shutil.which("openssl")
    known = openssl and subprocess.run(
        [openssl, "list", "-tls-groups"], capture_output=True, text=True, check=False
    )
    if not known or "X25519MLKEM768" not in known.stdout:
        pytest.skip("no openssl here that knows X25519MLKEM768; crates/engine tests it with rustls")
    done = subprocess.run(
        [
            str(openssl),
            "s_client",
            "-connect",
            f"{node.endpoint.host}:{node.endpoint.port}",
            "-servername",
            "localhost",
            "-CAfile",
            str(node.ca_file),
            "-groups",
            "X25519:X25519MLKEM768",
            "-brief",
        ],
        input="",
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert "X25519MLKEM768" in done.stdout + done.stderr


def test_a_client_that_does_not_know_the_ca_turns_away(node: Node) -> None:
    context = ssl.create_default_context()
    address = (node.endpoint.host, node.endpoint.port)
    with (
        socket.create_connection(address, timeout=10) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        context.wrap_socket(plain, server_hostname="localhost")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /hello HTTP/1.1\r\nhost: localhost\r\nbad header\r\n\r\n",
        b"GET /hello HTTP/1.1\r\nhost: localhost\r\nx: a\x00b\r\n\r\n",
        b"GET  /hello HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /hello HTTP/9.9\r\nhost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"POST /open HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef",
        b"POST /open HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"POST /open HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip, x\r\n\r\n",
    ],
    ids=[
        "no colon",
        "NUL",
        "two spaces",
        "version",
        "TLS in TLS",
        "two lengths",
        "negative length",
        "coding",
    ],
)
def test_malformed_bytes_cost_only_their_connection(node: Node, request_bytes: bytes) -> None:
    """Below HTTP there is no request to record: 400 or a closed connection, never an answer of a function."""
    answer = send_bytes(node.endpoint, request_bytes)
    assert answer.status in (0, 400, 505), answer
    for protocol in (HTTP_1, HTTP_2):
        caller = Caller(node, protocol)
        caller.expect_neighbour_served()
        caller.close()


def test_a_length_and_a_coding_together_are_not_two_requests(node: Node) -> None:
    """RFC 9112 section 6.1: a request smuggled behind an ambiguous length must not be answered."""
    head = (
        "POST /mirror/count HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n"
        "transfer-encoding: chunked\r\n\r\n"
    )
    smuggled = (
        "0\r\n\r\nGET /mirror/status?299 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    )
    with connect(node.endpoint, HTTP_1) as secured:
        secured.sendall((head + smuggled).encode())
        first = read_http_1(secured, "POST")
    assert first.status in (200, 400)
    if first.status == 200:
        assert first.body == b"0\n", "the body must be read as chunked, never by its length"


def test_headers_that_are_too_large_are_refused(caller: Caller) -> None:
    answer = caller.send("/hello", headers=[("x-large", "x" * 40_000)])
    assert answer.status in (0, 431), answer
    caller.expect_neighbour_served()


def test_a_connection_that_says_nothing_holds_nobody_up(node: Node) -> None:
    silent = [
        socket.create_connection((node.endpoint.host, node.endpoint.port), timeout=10)
        for _ in range(50)
    ]
    caller = Caller(node, HTTP_1)
    assert caller.ask("/hello").body == GREETING
    caller.close()
    for each in silent:
        each.close()


def test_a_thousand_requests_on_one_connection(caller: Caller) -> None:
    for _ in range(1_000):
        assert caller.ask("/hello").status == 200


def test_idle_connections_are_counted_and_gone_when_closed(node: Node, protocol: str) -> None:
    def connections() -> int:
        with node.engine() as engine:
            return int(engine.get("/metrics").json()["connections"])

    wait_until("earlier connections are gone", lambda: connections() == 0)
    with connect(node.endpoint, protocol):
        wait_until("one connection is counted", lambda: connections() == 1)
    wait_until("the connection is gone", lambda: connections() == 0)
