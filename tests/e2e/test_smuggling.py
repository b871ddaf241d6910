"""No request hides in another: whatever the bytes, the service gets nothing, or one request in one form."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node
from tests.e2e.smuggling import CASES, CHUNKED, Case, Refused
from tests.e2e.wire import HTTP_1, connect, read_http_1
from tests.simulators.recorder import Message, Recorder

END = "/end"


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    """The service."""
    recorder = Recorder()
    yield recorder
    recorder.close()


@pytest.fixture(scope="module")
def edge(
    start_node: StartNode, recorder: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> Node:
    """A node in front of it, with TLS and without."""
    node = start_node("--listen", "127.0.0.1:0", "--listen", "http://127.0.0.1:0")
    node.send_all_to(recorder.port, tmp_path_factory.mktemp("smuggling"))
    return node


@pytest.fixture(scope="module")
def plain_port(edge: Node) -> int:
    """Where the node listens without TLS."""
    urls = [str(each["url"]) for each in edge.status()["listeners"]]
    [port] = [int(url.rsplit(":", 1)[1]) for url in urls if url.startswith("http://")]
    return port


def _connected(
    edge: Node, plain_port: int, is_plain: bool
) -> AbstractContextManager[socket.socket]:
    if is_plain:
        return socket.create_connection(("127.0.0.1", plain_port), timeout=20)
    return connect(edge.endpoint, HTTP_1)


@pytest.mark.parametrize("is_plain", [False, True], ids=["TLS", "plain"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_request_is_read_in_one_way(
    edge: Node, plain_port: int, recorder: Recorder, case: Case, is_plain: bool
) -> None:
    recorder.forget()
    with _connected(edge, plain_port, is_plain) as peer:
        peer.sendall(case.sent)
        answer = read_http_1(peer, "GET")
        _ask_for_the_end(peer)
    messages = [each for each in recorder.messages if each.target != END]
    assert recorder.complaints == []
    if isinstance(case.becomes, Refused):
        assert messages == []
        assert answer.status == case.becomes.status, answer
        assert edge.record(answer.request_id)["outcome"] in ("refused", "failed")
        return
    assert (answer.status, answer.body) == (200, b"seen")
    assert [(each.method, each.target, each.body) for each in messages] == [
        (case.becomes.method, case.becomes.target, case.becomes.body)
    ]
    _expect_one_form(messages[0])


@pytest.mark.parametrize("is_plain", [False, True], ids=["TLS", "plain"])
@pytest.mark.parametrize("wrong", [b"5\r\nhelloXX", b"0\r\nx: " + b"a" * 300_000])
def test_who_goes_on_sending_what_was_refused_hears_why(
    edge: Node, plain_port: int, wrong: bytes, is_plain: bool
) -> None:
    """Closing at once would be answered by a reset, which throws the answer away on its way."""
    with _connected(edge, plain_port, is_plain) as peer:
        peer.sendall(CHUNKED + wrong)
        for _ in range(10):
            time.sleep(0.02)  # the refusal is on its way by then
            peer.sendall(b"a" * 50_000)
        answer = read_http_1(peer, "POST")
        assert (answer.status, answer.headers["connection"]) == (400, "close")


def _ask_for_the_end(peer: socket.socket) -> None:
    """One more request, if the connection takes one. They are served in order: what was smuggled came first."""
    with contextlib.suppress(OSError):
        peer.sendall(b"GET /end HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        while peer.recv(65_536):
            pass


def _expect_one_form(message: Message) -> None:
    """Nothing in the head or behind the body says anything about framing, host or caller but the node."""
    framing = message.values("content-length") + message.values("transfer-encoding")
    assert len(framing) <= 1
    assert message.values("x-vedette-principal") == ["anonymous"]
    assert message.values("upgrade") == []
    named = {name for name, _ in message.trailers}
    forbidden = {"content-length", "transfer-encoding", "host", "x-vedette-principal"}
    assert named.isdisjoint(forbidden), message.trailers
