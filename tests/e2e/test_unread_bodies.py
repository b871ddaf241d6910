"""A body that nobody reads: over HTTP/1.1 the connection goes on behind the answer, or that says that it does not.

A client that is told nothing sends its next request into a connection that closes, and may not send a POST again.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from typing import Final

import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node
from tests.e2e.wire import HTTP_1, Answer, connect, read_http_1
from tests.guests import Guests

SHORT: Final = b"x" * 100
GAPS: Final = (0.0, 0.0001, 0.0005, 0.002, 0.02, 0.3)  # seconds between head and body


@pytest.fixture(scope="module")
def node(start_node: StartNode, guests: Guests) -> Node:
    """A node with a function that reads no body."""
    node = start_node("--workers", "1")
    node.deploy(guests.hello, "hello")
    return node


@pytest.fixture
def secured(node: Node) -> Iterator[ssl.SSLSocket]:
    """A connection."""
    with connect(node.endpoint, HTTP_1) as secured:
        yield secured


def _head(node: Node, path: str, *fields: str, method: str = "POST") -> bytes:
    own = [
        f"host: {node.endpoint.authority}",
        f"authorization: Bearer {node.usual_token}",
        "content-type: application/octet-stream",
    ]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *own, *fields, "", ""]).encode()


def _goes_on(secured: ssl.SSLSocket, node: Node, answer: Answer) -> bool:
    """Whether the connection answers again, which it must have said."""
    said = answer.headers.get("connection") != "close"
    try:
        secured.sendall(_head(node, "/hello", method="GET"))
        again = read_http_1(secured, "GET").status
    except (ConnectionError, ssl.SSLError):
        again = 0
    assert (again == 200) is said, answer.headers
    return said


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/hello", 200)])
def test_a_short_body_after_its_head_leaves_the_connection_as_the_answer_says(
    node: Node, path: str, status: int, gap: float
) -> None:
    for _ in range(10):
        with connect(node.endpoint, HTTP_1) as secured:
            secured.sendall(_head(node, path, f"content-length: {len(SHORT)}"))
            time.sleep(gap)
            secured.sendall(SHORT)
            answer = read_http_1(secured, "POST")
            assert answer.status == status
            _goes_on(secured, node, answer)


@pytest.mark.parametrize(("path", "status"), [("/nowhere", 404), ("/hello", 200)])
def test_a_short_body_with_its_head_keeps_the_connection(
    node: Node, secured: ssl.SSLSocket, path: str, status: int
) -> None:
    for _ in range(3):
        secured.sendall(_head(node, path, f"content-length: {len(SHORT)}") + SHORT)
        answer = read_http_1(secured, "POST")
        assert answer.status == status
        assert _goes_on(secured, node, answer)


@pytest.mark.parametrize(
    "field", ["content-length: 100", "content-length: 65537", "transfer-encoding: chunked"]
)
def test_a_refusal_does_not_wait_for_a_body_that_does_not_come(
    node: Node, secured: ssl.SSLSocket, field: str
) -> None:
    secured.sendall(_head(node, "/nowhere", field))
    answer = read_http_1(secured, "POST")
    assert (answer.status, answer.headers["connection"]) == (404, "close")


def test_a_body_that_waits_to_be_asked_for_is_not(node: Node, secured: ssl.SSLSocket) -> None:
    head = _head(node, "/nowhere", "content-length: 100", "expect: 100-continue")
    secured.sendall(head)
    answer = read_http_1(secured, "POST")
    assert (answer.status, answer.headers["connection"]) == (404, "close")


def test_a_connection_whose_body_was_read_away_may_rest_and_go_on(
    node: Node, secured: ssl.SSLSocket
) -> None:
    """Longer than a connection may be quiet before the engine takes it out of what serves it."""
    secured.sendall(_head(node, "/hello", f"content-length: {len(SHORT)}"))
    time.sleep(0.01)
    secured.sendall(SHORT)
    answer = read_http_1(secured, "POST")
    time.sleep(2.5)
    _goes_on(secured, node, answer)
