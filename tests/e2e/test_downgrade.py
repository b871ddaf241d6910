"""HTTP/2 has no line ends and no second length to quarrel over; the HTTP/1.1 behind it has.

Each request is written by hand. The service behind the node gets nothing, or one request in one form.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node
from tests.e2e.smuggling import CANARY
from tests.e2e.wire import HTTP_2, Answer, Header, Http2, connect
from tests.simulators.recorder import Message, Recorder

RESET = 0
"""The stream or the connection ends with a protocol error: no answer."""

PSEUDO: dict[str, list[Header]] = {
    "method": [(":method", "POST")],
    "scheme": [(":scheme", "https")],
    "authority": [(":authority", "localhost")],
    "path": [(":path", "/in")],
}


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
    """A node in front of it."""
    node = start_node()
    node.send_all_to(recorder.port, tmp_path_factory.mktemp("downgrade"))
    return node


def _head(*more: Header, **changed: list[Header]) -> list[Header]:
    """A POST with these fields more, and these of its pseudo-header fields changed."""
    parts = {**PSEUDO, **changed}
    return [field for fields in parts.values() for field in fields] + list(more)


def _send(edge: Node, head: list[Header], body: bytes = b"hello") -> Answer:
    with connect(edge.endpoint, HTTP_2) as secured:
        stream = Http2(secured)
        number = stream.request(_head(("x-first", "1")))
        assert stream.answer(number).status == 200
        number = stream.request(head, body)
        answer = stream.answer(number)
        if not stream.closed:
            last = stream.request(_head())
            assert stream.answer(last).status == 200
        return answer


REFUSED: dict[str, tuple[list[Header], int]] = {
    "a line end in a value": (_head(("x", "a\r\ntransfer-encoding: chunked")), RESET),
    "LF in a value": (_head(("x", "a\nb: c")), RESET),
    "CR in a value": (_head(("x", "a\rb: c")), RESET),
    "NUL in a value": (_head(("x", "a\0b")), RESET),
    "a line end in a name": (_head(("x\r\ny", "a")), RESET),
    "a colon in a name": (_head(("x: y\r\nz", "a")), RESET),
    "a space in a name": (_head(("x y", "a")), RESET),
    "a name in capitals": (_head(("X-Upper", "a")), RESET),
    "an empty name": (_head(("", "a")), RESET),
    "a coding": (_head(("transfer-encoding", "chunked")), RESET),
    "a connection": (_head(("connection", "x-vedette-principal")), RESET),
    "keep-alive": (_head(("keep-alive", "5")), RESET),
    "proxy-connection": (_head(("proxy-connection", "close")), RESET),
    "an upgrade": (_head(("upgrade", "h2c")), RESET),
    "te other than trailers": (_head(("te", "chunked")), RESET),
    "a length that is too long": (_head(("content-length", "500")), RESET),
    "a length that is too short": (_head(("content-length", "2")), RESET),
    "two lengths": (_head(("content-length", "5"), ("content-length", "6")), RESET),
    "a length that is no number": (_head(("content-length", "+5")), RESET),
    "a list of lengths": (_head(("content-length", "5, 5")), RESET),
    "a method twice": (_head(method=[(":method", "GET"), (":method", "POST")]), RESET),
    "a path twice": (_head(path=[(":path", "/in"), (":path", "/smuggled")]), RESET),
    "a scheme twice": (_head(scheme=[(":scheme", "http"), (":scheme", "https")]), RESET),
    "an authority twice": (
        _head(authority=[(":authority", "localhost"), (":authority", "evil.example")]),
        RESET,
    ),
    "a pseudo-header field behind others": ([*_head(path=[]), ("x", "a"), (":path", "/in")], RESET),
    "a pseudo-header field nobody knows": (
        _head(path=[(":path", "/in"), (":smuggle", "x")]),
        RESET,
    ),
    "a status in a request": (_head(path=[(":path", "/in"), (":status", "200")]), RESET),
    "no path": (_head(path=[]), RESET),
    "an empty path": (_head(path=[(":path", "")]), RESET),
    "no method": (_head(method=[]), RESET),
    "no scheme": (_head(scheme=[]), RESET),
    "a line end in the path": (
        _head(path=[(":path", "/in HTTP/1.1\r\nhost: evil.example\r\n\r\n")]),
        RESET,
    ),
    "a space in the path": (_head(path=[(":path", "/in HTTP/1.1 x")]), RESET),
    "NUL in the path": (_head(path=[(":path", "/in\0")]), RESET),
    "a path that is a target": (_head(path=[(":path", "http://evil.example/")]), RESET),
    "a path without a slash": (_head(path=[(":path", "in")]), RESET),
    "a path that is a star": (_head(path=[(":path", "*")]), 400),
    "a path with an escaped line end": (_head(path=[(":path", "/in%0d%0ax: y")]), RESET),
    "a line end in the method": (_head(method=[(":method", "GET /x HTTP/1.1\r\nx:")]), RESET),
    "a space in the method": (_head(method=[(":method", "GET /smuggled")]), RESET),
    "a method in small letters": (_head(method=[(":method", "post")]), 405),
    "CONNECT": ([(":method", "CONNECT"), (":authority", "localhost")], 405),
    "a user in the authority": (_head(authority=[(":authority", "localhost@evil.example")]), 400),
    "a path in the authority": (_head(authority=[(":authority", "localhost/x")]), RESET),
    "a line end in the authority": (_head(authority=[(":authority", "localhost\r\nx: y")]), RESET),
    "an empty authority": (_head(authority=[(":authority", "")]), RESET),
    "a host that is another": (_head(("host", "evil.example")), 400),
    "two hosts": (_head(("host", "localhost"), ("host", "localhost")), 400),
    "a host and no authority, twice": (
        _head(("host", "localhost"), ("host", "evil.example"), authority=[]),
        400,
    ),
    "a line end in the scheme": (_head(scheme=[(":scheme", "https\r\nx: y")]), RESET),
}

SERVED: dict[str, tuple[list[Header], bytes]] = {
    "a body that is a request": (_head(), CANARY),
    "a body that is a chunk": (_head(), b"0\r\n\r\n" + CANARY),
    "a length that is right": (_head(("content-length", "5")), b"hello"),
    "te: trailers": (_head(("te", "trailers")), b"hello"),
    "the same host as field": (_head(("host", "localhost")), b"hello"),
    "the host only as field": (_head(("host", "localhost"), authority=[]), b"hello"),
    "cookies in pieces": (_head(("cookie", "a=1"), ("cookie", "b=2")), b"hello"),
    "another scheme": (_head(scheme=[(":scheme", "http")]), b"hello"),
    "a path with dots": (_head(path=[(":path", "/x/..//in")]), b"hello"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_http_1_could_misread_does_not_reach_it(
    edge: Node, recorder: Recorder, name: str
) -> None:
    head, status = REFUSED[name]
    recorder.forget()
    answer = _send(edge, head)
    assert recorder.complaints == []
    assert _others(recorder) == []
    assert answer.status == status, answer


@pytest.mark.parametrize("name", SERVED)
def test_what_is_clear_arrives_in_one_form(edge: Node, recorder: Recorder, name: str) -> None:
    head, body = SERVED[name]
    recorder.forget()
    answer = _send(edge, head, body)
    assert answer.status == 200
    assert recorder.complaints == []
    [message] = _others(recorder)
    assert (message.method, message.target, message.body) == ("POST", "/in", body)
    assert message.values("host") == ["localhost"]
    assert message.values("x-forwarded-proto") == ["https"]


def _others(recorder: Recorder) -> list[Message]:
    """What came between the first request of the connection and the last, which are only there to see that it lives."""
    return [each for each in recorder.messages if not (each.body == b"" and each.method == "POST")]
