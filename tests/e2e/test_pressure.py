"""Under pressure: what is shed, in which order, and what is told of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.node import GREETING, Node, wait_until
from tests.e2e.spool import Spool
from tests.e2e.wire import HTTP_1, HTTP_2, Answer, Header, Http2, connect, send
from tests.guests import Guests
from tests.simulators.service import Service

BROWSER: list[Header] = [("user-agent", "Mozilla/5.0 Firefox/128.0"), ("accept", "text/html")]

EDGE = """\
apiVersion: vedette.dev/v1alpha1
kind: Node
metadata: {{name: edge}}
spec: {{limits: {{requests: 100}}, challenge: {{crawlers: []}}{more}}}
---
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: site}}
spec: {{url: "http://127.0.0.1:{port}"}}
---
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: silent}}
spec: {{url: "http://127.0.0.1:{silent}"}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: site}}
spec:
  public: true
  rules:
    - matches: [{{path: {{value: /site}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: site}}]
    - matches: [{{path: {{value: /silent}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: silent}}]
"""


@pytest.fixture
def ports() -> Iterator[tuple[int, int]]:
    """Ports of a service, and of one that never answers."""
    service = Service("site")
    with socket.create_server(("127.0.0.1", 0), backlog=256) as silent:
        yield service.port, silent.getsockname()[1]
    service.close()


def started(start_node: StartNode, guests: Guests, ports: tuple[int, int], more: str = "") -> Node:
    node = start_node()
    node.deploy(guests.hello, "hello")
    node.deploy(guests.hello, "open", "--public")
    file = node.ca_file.with_name("edge.yaml")
    file.write_text(EDGE.format(port=ports[0], silent=ports[1], more=more), "utf-8")
    node.run("apply", str(file), "--yes")
    return node


class Held:
    """Requests of a known caller that are not answered for as long as the block runs, and so are never shed."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._known = ("authorization", f"Bearer {node.usual_token}")
        self._count = 0
        self._stack = ExitStack()

    def __enter__(self) -> Held:
        secured = self._stack.enter_context(connect(self._node.endpoint, HTTP_2))
        self._stream = Http2(secured)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def until(self, count: int) -> None:
        """As many as that; a share of 100 in a hundred."""
        head = [(":method", "GET"), (":scheme", "https"), (":path", "/silent")]
        authority = self._node.endpoint.authority
        for _ in range(count - self._count):
            self._stream.request([*head, (":authority", authority), self._known])
        self._count = count
        wait_until("they are under way", lambda: in_flight(self._node) >= count)


def in_flight(node: Node) -> int:
    with node.engine() as engine:
        return int(engine.get("/status").json()["inFlight"])


def level(node: Node) -> str:
    with node.engine() as engine:
        return str(engine.get("/status").json()["pressure"]["level"])


def ask(node: Node, path: str, *fields: Header) -> Answer:
    return send(node.endpoint, HTTP_1, path, headers=fields)


def cause(node: Node, answer: Answer) -> str:
    record = node.record(answer.request_id)
    return str(record.get("cause", record["outcome"]))


def test_what_is_shed_comes_in_order_is_told_and_ends(
    start_node: StartNode, guests: Guests, ports: tuple[int, int]
) -> None:
    node = started(start_node, guests, ports)
    known = ("authorization", f"Bearer {node.usual_token}")
    assert level(node) == "calm"
    assert ask(node, "/site", *BROWSER).status == 200
    with Held(node) as held:
        held.until(87)
        wait_until("browsers are asked", lambda: level(node) == "challenge")
        answer = ask(node, "/site", *BROWSER)
        assert (answer.status, cause(node, answer)) == (403, "challenge_required")
        assert ask(node, "/site").status == 200, "a program is not"
        assert ask(node, "/open").body == GREETING

        held.until(93)
        wait_until("unknown callers lose functions", lambda: level(node) == "unknownExpensive")
        answer = ask(node, "/open")
        assert (answer.status, cause(node, answer)) == (503, "under_pressure")
        assert answer.headers["retry-after"] == "15"
        assert ask(node, "/open", known).body == GREETING
        assert ask(node, "/site").status == 200, "a service costs the node little"

        held.until(96)
        wait_until("unknown callers lose all", lambda: level(node) == "unknown")
        assert cause(node, ask(node, "/site")) == "under_pressure"
        assert ask(node, "/hello", known).body == GREETING

        held.until(99)
        wait_until("known ones lose functions", lambda: level(node) == "knownExpensive")
        assert cause(node, ask(node, "/hello", known)) == "under_pressure"
        assert ask(node, "/site", known).status == 200
        told = node.status()["pressure"]
        assert told["reason"].startswith("unknown to knownExpensive: inFlight at 99 %")
        assert "knownExpensive, since" in node.run("status").stdout
    wait_until("it falls again", lambda: level(node) == "unknown")
    events = Spool(node.path("spool", "requests"), "pressure").lines()
    moves = [(event["from"], event["to"]) for event in events]
    assert moves == [
        ("calm", "challenge"),
        ("challenge", "unknownExpensive"),
        ("unknownExpensive", "unknown"),
        ("unknown", "knownExpensive"),
        ("knownExpensive", "unknown"),
    ]
    assert {event["gauge"] for event in events[:4]} == {"inFlight"}
    assert [event["percent"] for event in events[:4]] == [87, 93, 96, 99]
    assert all(event["seconds"] >= 3 for event in events)


def test_a_node_that_is_told_not_to_sheds_nothing(
    start_node: StartNode, guests: Guests, ports: tuple[int, int]
) -> None:
    node = started(start_node, guests, ports, ", shed: false")
    with Held(node) as held:
        held.until(93)
        wait_until("it is under pressure", lambda: level(node) == "unknownExpensive")
        assert ask(node, "/open").body == GREETING
        assert ask(node, "/site", *BROWSER).status == 200
