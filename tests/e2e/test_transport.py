"""TLS and HTTP framing: what is spoken, what is not, and that malformed bytes cost only their own connection."""

from __future__ import annotations

import socket
import ssl
import time

import pytest
from tests.e2e.caller import Caller
from tests.e2e.conftest import StartNode
from tests.e2e.node import GREETING, Node, wait_until
from tests.e2e.wire import HTTP_1, Http2, connect, read_http_1, send_bytes, tls_context

from vedette.verification.first_flight import X25519, X25519MLKEM768, chosen_group


def test_tls_1_3_is_spoken(node: Node, protocol: str) -> None:
    with connect(node.endpoint, protocol) as secured:
        assert secured.version() == "TLSv1.3"


def test_tls_1_2_is_refused(node: Node) -> None:
    context = tls_context(node.ca_file, HTTP_1)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    address = (node.endpoint.host, node.endpoint.port)
    with (
        socket.create_connection(address, timeout=60) as plain,
        pytest.raises(ssl.SSLError, match=r"(?i)version|alert"),
    ):
        context.wrap_socket(plain, server_hostname="localhost")


def test_tls_1_2_is_spoken_where_it_was_asked_for(start_node: StartNode) -> None:
    node = start_node("--tls-min-version", "1.2")
    context = tls_context(node.ca_file, HTTP_1)
    address = (node.endpoint.host, node.endpoint.port)
    for version, name in (
        (ssl.TLSVersion.TLSv1_2, "TLSv1.2"),
        (ssl.TLSVersion.TLSv1_3, "TLSv1.3"),
    ):
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = version
        with (
            socket.create_connection(address, timeout=60) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            assert secured.version() == name
            cipher = secured.cipher()
            assert cipher is not None
            assert "CBC" not in cipher[0], "AEAD only"


@pytest.mark.parametrize("offered", [[X25519MLKEM768, X25519], [X25519MLKEM768]])
def test_a_client_that_prefers_post_quantum_gets_it(node: Node, offered: list[int]) -> None:
    """X25519MLKEM768 resists somebody who records now and decrypts later; of two shares rustls takes the first."""
    address = (node.endpoint.host, node.endpoint.port)
    assert chosen_group(address, offered, "localhost") == X25519MLKEM768


def test_a_client_without_post_quantum_is_served(node: Node) -> None:
    address = (node.endpoint.host, node.endpoint.port)
    assert chosen_group(address, [X25519], "localhost") == X25519


def test_a_client_that_does_not_know_the_ca_turns_away(node: Node) -> None:
    context = ssl.create_default_context()
    address = (node.endpoint.host, node.endpoint.port)
    with (
        socket.create_connection(address, timeout=60) as plain,
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
    """What is no HTTP does not reach the path, and is answered and recorded like any refusal."""
    answer = send_bytes(node.endpoint, request_bytes)
    caller = Caller(node, HTTP_1)
    caller.expect_refused(answer, 400, "admit", "malformed_request")
    caller.close()
    assert answer.headers["connection"] == "close"


def test_malformed_bytes_after_a_request_have_an_answer_of_their_own(node: Node) -> None:
    with connect(node.endpoint, HTTP_1) as secured:
        secured.sendall(b"GET /open HTTP/1.1\r\nhost: localhost\r\n\r\n")
        first = read_http_1(secured, "GET")
        secured.sendall(b"GET  /open HTTP/1.1\r\nhost: localhost\r\n\r\n")
        second = read_http_1(secured, "GET")
    assert (first.status, first.body) == (200, GREETING)
    caller = Caller(node, HTTP_1)
    caller.expect_refused(second, 400, "admit", "malformed_request")
    caller.close()


def test_a_body_that_looks_like_a_refusal_passes_untouched(node: Node) -> None:
    """Only hyper's own refusals are replaced; a body is the function's, whatever it begins with."""
    body = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n" * 4
    caller = Caller(node, HTTP_1)
    kind = [("content-type", "application/octet-stream")]
    answer = caller.send("/mirror/echo", method="POST", headers=kind, body=body)
    assert (answer.status, answer.body) == (200, body)
    caller.close()


@pytest.mark.parametrize(
    ("head", "status", "cause"),
    [
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", 414, "uri_too_long"),
        (
            b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 1_000_000 + b"\r\n\r\n",
            431,
            "headers_too_large",
        ),
        (
            b"GET / HTTP/1.1\r\nhost: localhost\r\n" + b"x: a\r\n" * 300 + b"\r\n",
            431,
            "headers_too_large",
        ),
    ],
    ids=["target", "a megabyte", "300 fields"],
)
def test_a_head_that_is_too_large_for_http_is_refused_like_any_other(
    node: Node, head: bytes, status: int, cause: str
) -> None:
    answer = send_bytes(node.endpoint, head)
    caller = Caller(node, HTTP_1)
    caller.expect_refused(answer, status, "admit", cause)
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


@pytest.mark.parametrize(("path", "status"), [("/nobody", 404), ("/mirror/method", 200)])
def test_a_body_that_nobody_reads_does_not_spoil_the_answer(
    node: Node, protocol: str, path: str, status: int
) -> None:
    """The answer is complete before the body has come. Over HTTP/2 a reset after it, even with NO_ERROR (RFC 9113
    section 8.1), makes common clients (curl 7.88) throw the answer away."""
    with connect(node.endpoint, protocol) as secured:
        if protocol == HTTP_1:
            head = (
                f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\n"
                "content-type: application/octet-stream\r\n\r\n"
            )
            secured.sendall(head.encode())
            time.sleep(0.05)
            secured.sendall(b"x=1")
            answer = read_http_1(secured, "POST")
        else:
            stream = Http2(secured)
            number = stream.request(_post(node, path), end=False)
            time.sleep(0.05)
            stream.connection.send_data(number, b"x=1", end_stream=True)
            stream.flush()
            answer = stream.answer(number)
            stream.ping()
            assert stream.resets == {}
    assert (answer.status, answer.complete) == (status, True)


def _post(node: Node, path: str) -> list[tuple[str, str]]:
    authority = node.endpoint.authority
    return [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", authority),
        (":path", path),
        ("content-length", "3"),
        ("content-type", "application/octet-stream"),
    ]


def test_headers_that_are_too_large_are_refused(caller: Caller) -> None:
    answer = caller.send("/hello", headers=[("x-large", "x" * 40_000)])
    assert answer.status in (0, 431), answer
    caller.expect_neighbour_served()


def test_a_connection_that_says_nothing_holds_nobody_up(node: Node) -> None:
    silent = [
        socket.create_connection((node.endpoint.host, node.endpoint.port), timeout=60)
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
