"""One address: so many connections, so many new ones, so many requests where a route says so."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node, wait_until
from tests.e2e.wire import HTTP_1, Http2, Kept, connect, read_http_1, send

MANY, FAST, OTHER, FRIEND, OWN = (f"127.0.0.{last}" for last in (81, 82, 83, 84, 1))

EDGE = """\
apiVersion: vedette.dev/v1alpha1
kind: Node
metadata: {name: edge}
spec: {limits: {sourceConnections: {most: 4, rate: 1/h, burst: 8}}}
---
apiVersion: vedette.dev/v1alpha1
kind: AddressList
metadata: {name: friends}
spec: {action: Allow, networks: [127.0.0.84]}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: open}
spec:
  public: true
  rules: [{matches: [{path: {value: /open}}], static: {body: hello}}]
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: scarce}
spec:
  public: true
  rateLimit: {rate: 3/h}
  rules:
    - {matches: [{path: {value: /scarce}}], static: {body: hello}}
    - {matches: [{path: {value: /rare}}], static: {body: hello}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: usual}
spec:
  public: true
  rateLimit: {}
  rules: [{matches: [{path: {value: /usual}}], static: {body: hello}}]
"""


@pytest.fixture(scope="module")
def own(start_node: StartNode) -> Iterator[Node]:
    """A node on which a source may have little."""
    node = start_node()
    assert node.status()["sources"]["most"] == 1_000, "what a node says that was told nothing"
    node.apply(EDGE)
    yield node
    node.stop()


def is_let_in(node: Node, source: str, protocol: str = HTTP_1) -> bool:
    try:
        return send(node.endpoint, protocol, "/open", source=source).status == 200
    except (ConnectionError, ssl.SSLError):
        return False


def turned_away(node: Node, cause: str) -> int:
    with node.engine() as engine:
        return int(engine.get("/metrics").json()["connectionsTurnedAway"].get(cause, 0))


def test_a_source_has_no_more_connections_than_it_may_and_a_closed_one_makes_room(
    own: Node, protocol: str
) -> None:
    source = MANY if protocol == HTTP_1 else "127.0.0.86"
    before = turned_away(own, "too_many_connections")
    with ExitStack() as stack:
        held = [
            stack.enter_context(connect(own.endpoint, protocol, source=source)) for _ in range(3)
        ]
        with connect(own.endpoint, protocol, source=source):
            assert not is_let_in(own, source, protocol)
            assert is_let_in(own, OTHER), "another source has its own"
        assert turned_away(own, "too_many_connections") == before + 1
        wait_until("there is room again", lambda: is_let_in(own, source, protocol))
        for one in held:
            one.settimeout(20)
        if protocol == HTTP_1:
            request = f"GET /open HTTP/1.1\r\nhost: {own.endpoint.authority}\r\n\r\n"
            held[0].sendall(request.encode())
            assert read_http_1(held[0], "GET").status == 200
        else:
            stream = Http2(held[0])
            head = [(":method", "GET"), (":scheme", "https"), (":path", "/open")]
            number = stream.request([*head, (":authority", own.endpoint.authority)])
            assert stream.answer(number).status == 200
    (record, *_) = own.requests.wait_for(lambda line: line["client"].startswith(f"{source}:"), 5)
    records = [line for line in own.requests.lines() if line["client"].startswith(f"{source}:")]
    (refused, *_) = [line for line in records if line.get("cause") == "too_many_connections"]
    assert (refused["protocol"], refused["status"], refused["stage"]) == ("TCP", 0, "admit")
    assert record["client"].startswith(source)


def test_a_source_that_opens_connections_too_fast_is_turned_away_before_a_handshake(
    own: Node, protocol: str
) -> None:
    source = FAST if protocol == HTTP_1 else "127.0.0.87"
    answers = [is_let_in(own, source, protocol) for _ in range(12)]
    assert answers == [True] * 8 + [False] * 4
    assert is_let_in(own, OTHER, protocol)
    (record, *_) = own.requests.wait_for(
        lambda line: (
            line["client"].startswith(f"{source}:") and line.get("cause") == "connecting_too_often"
        ),
        5,
    )
    assert (record["protocol"], record["status"], record["detail"]) == ("TCP", 0, "of the source")


def test_friends_and_this_machine_itself_are_not_counted(own: Node) -> None:
    for source in (FRIEND, OWN):
        assert all(is_let_in(own, source) for _ in range(12)), source


def test_a_route_that_asks_for_it_answers_a_source_so_often_and_no_more(
    own: Node, protocol: str
) -> None:
    source = FRIEND if protocol == HTTP_1 else OWN

    def ask(path: str) -> int:
        return send(own.endpoint, protocol, path, source=source).status

    assert [ask("/scarce"), ask("/rare"), ask("/scarce"), ask("/rare")] == [200, 200, 200, 429]
    assert ask("/open") == 200
    answer = send(own.endpoint, protocol, "/scarce", source=source)
    record = own.record(answer.request_id)
    assert (record["cause"], record["detail"]) == ("rate_limited", "the limit scarce-sources")
    assert int(answer.headers["retry-after"]) > 600


def test_a_connection_that_goes_on_asking_beyond_a_limit_ends(own: Node, protocol: str) -> None:
    source = "127.0.0.88" if protocol == HTTP_1 else "127.0.0.89"
    with connect(own.endpoint, protocol, source=source) as secured:
        kept = Kept(secured, own.endpoint)
        assert [kept.ask("/scarce").status for _ in range(3)] == [200] * 3
        assert [kept.ask("/scarce").status for _ in range(20)] == [429] * 20
        last = kept.ask("/scarce")
        kept.require_closed()
    assert last.status == 429
    assert (last.headers.get("connection") == "close") == (protocol == HTTP_1)


def test_a_connection_that_asks_for_other_things_between_goes_on(own: Node, protocol: str) -> None:
    source = "127.0.0.90" if protocol == HTTP_1 else "127.0.0.91"
    with connect(own.endpoint, protocol, source=source) as secured:
        kept = Kept(secured, own.endpoint)
        told = [kept.ask("/scarce").status for _ in range(23)]
        assert told.count(429) == 20
        assert kept.ask("/open").status == 200
        assert [kept.ask("/scarce").status for _ in range(20)] == [429] * 20
        assert kept.ask("/open").status == 200


def test_the_usual_rate_is_a_hundred_a_minute(own: Node) -> None:
    answer = send(own.endpoint, HTTP_1, "/usual")
    assert answer.headers["ratelimit-policy"] == '"usual-sources";q=100;w=60'


def test_the_status_tells_what_a_source_may_have(own: Node) -> None:
    told = own.status()["sources"]
    assert told["most"] == 4
    assert told["remembered"] > 0
    assert "4 connections each at most" in own.run("status").stdout
