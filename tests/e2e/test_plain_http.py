"""Plain HTTP at a TLS port: it is told so in clear, recorded, and costs nobody else anything."""

from __future__ import annotations

import json
import socket
import time

import pytest
from tests.e2e.caller import Caller
from tests.e2e.node import Node, wait_until
from tests.e2e.wire import Answer, read_http_1

HEAD = b"host: localhost\r\n\r\n"


def _plain(node: Node) -> socket.socket:
    return socket.create_connection((node.endpoint.host, node.endpoint.port), timeout=20)


def _ask(node: Node, *pieces: bytes) -> Answer:
    with _plain(node) as peer:
        for piece in pieces:
            peer.sendall(piece)
            time.sleep(0.02)
        answer = read_http_1(peer, "GET")
        peer.shutdown(socket.SHUT_WR)
        assert peer.recv(1) == b"", "the connection goes on"
        return answer


@pytest.mark.parametrize(
    "pieces",
    [
        (b"GET /hello HTTP/1.1\r\n" + HEAD,),
        (b"OPTIONS * HTTP/1.1\r\n" + HEAD,),
        (b"PROPFIND / HTTP/1.1\r\n" + HEAD,),
        (b"POST /open HTTP/1.1\r\ncontent-length: 1000000\r\n" + HEAD, b"x" * 1_000_000),
        (b"G", b"E", b"T", b" ", b"/ HTTP/1.1\r\n" + HEAD),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",),
    ],
    ids=["GET", "OPTIONS", "PROPFIND", "a body", "byte by byte", "HTTP/2"],
)
def test_it_is_told_that_this_is_an_https_port(node: Node, pieces: tuple[bytes, ...]) -> None:
    answer = _ask(node, *pieces)
    assert answer.status == 400
    assert answer.headers["connection"] == "close"
    told = json.loads(answer.body)
    assert told["error"] == "This is an https port: ask with https://"
    assert told["requestId"] == answer.request_id
    record = node.record(answer.request_id)
    assert (record["outcome"], record["stage"], record["cause"]) == (
        "refused",
        "admit",
        "plain_http",
    )
    assert (record["method"], record["status"], record["listener"]) == ("-", 400, "https")
    assert "principal" not in record


@pytest.mark.parametrize(
    "sent",
    [b"SSH-2.0-OpenSSH_9.9\r\n", b"GETGETGETGETGETGETGET / HTTP/1.1\r\n", b"hello\r\n", b"\0" * 64],
    ids=["SSH", "a long word", "small letters", "zeros"],
)
def test_what_is_neither_tls_nor_http_gets_no_answer_of_http(node: Node, sent: bytes) -> None:
    before = len(node.requests.lines())
    with _plain(node) as peer:
        peer.sendall(sent)
        got = b""
        while piece := _received(peer):
            got += piece
    assert not got.startswith(b"HTTP/")
    caller = Caller(node, "HTTP/1.1")
    caller.expect_neighbour_served()
    caller.close()
    wait_until("the neighbour is recorded", lambda: len(node.requests.lines()) > before)
    assert all(
        line["cause"] != "plain_http" for line in node.requests.lines()[before:] if "cause" in line
    )


def _received(peer: socket.socket) -> bytes:
    try:
        return peer.recv(65_536)
    except ConnectionResetError:
        return b""


def test_half_a_word_is_waited_for_no_longer_than_a_handshake(node: Node) -> None:
    """The timer is the handshake's: ten seconds by default. Many wait here, and others are served."""
    peers = [_plain(node) for _ in range(50)]
    for peer in peers:
        peer.sendall(b"GE")
    caller = Caller(node, "HTTP/2.0")
    caller.expect_neighbour_served()
    caller.close()
    began = time.monotonic()
    assert _received(peers[0]) == b""
    assert time.monotonic() - began < 15
    for peer in peers:
        peer.close()
