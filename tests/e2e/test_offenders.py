"""Addresses that keep offending are blocked for a while, and nobody else is."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node, wait_until
from tests.e2e.spool import Spool
from tests.e2e.wire import HTTP_1, HTTP_2, Answer, Kept, connect, send

HONEST, ATTACKER, FORGER, LOST, FRIEND = (f"127.0.0.{last}" for last in (1, 71, 72, 73, 74))

EDGE = """\
apiVersion: vedette.dev/v1alpha1
kind: Node
metadata: {name: edge}
spec: {offenders: {threshold: 60, halfLife: 10m, firstBlock: BLOCK}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: open}
spec:
  public: true
  rules: [{matches: [{path: {value: /open}}], static: {body: hello}}]
---
apiVersion: vedette.dev/v1alpha1
kind: AddressList
metadata: {name: friends}
spec: {action: Allow, networks: [127.0.0.74]}
"""
ATTACK = "/open?q=1%27%20OR%20%271%27%3D%271"
FORGED = [("authorization", "Bearer e30.e30.e30")]


@pytest.fixture(scope="module")
def own(start_node: StartNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that blocks who keeps offending."""
    node = start_node()
    apply(node, tmp_path_factory.mktemp("offenders"), "10m")
    yield node
    node.stop()


def apply(node: Node, folder: Path, block: str) -> None:
    (folder / "edge.yaml").write_text(EDGE.replace("BLOCK", block), "utf-8")
    node.run("apply", str(folder), "--yes")


def ask(node: Node, source: str, path: str = "/open", protocol: str = HTTP_1) -> Answer:
    return send(node.endpoint, protocol, path, source=source)


def require_blocked(node: Node, source: str) -> None:
    """The record that is one too many closes after its answer has arrived."""

    def is_blocked() -> bool:
        try:
            return ask(node, source).status == 0
        except (ConnectionError, ssl.SSLError):
            return True

    wait_until(f"{source} is blocked", is_blocked)


def asked_then_blocked(own: Node, secured: ssl.SSLSocket, source: str) -> Kept:
    """A connection that was answered, of an address that was blocked since."""
    kept = Kept(secured, own.endpoint)
    assert kept.ask("/open").status == 200
    for _ in range(6):
        ask(own, source, ATTACK)
    require_blocked(own, source)
    return kept


def test_attacks_get_their_address_blocked_and_nobody_else(own: Node) -> None:
    answers = [ask(own, ATTACKER, ATTACK).status for _ in range(6)]
    assert answers == [403] * 6
    require_blocked(own, ATTACKER)
    assert ask(own, HONEST).status == 200
    events = Spool(own.path("spool", "requests"), "block")
    (event,) = events.wait_for(lambda line: line["client"] == ATTACKER, 5)
    assert (event["cause"], event["strike"], event["status"]) == ("waf_blocked", 1, 403)
    assert event["source"] == ATTACKER
    assert 590 <= event["seconds"] <= 600
    assert own.record(event["requestId"])["cause"] == "waf_blocked"


def test_forged_credentials_get_their_address_blocked(own: Node) -> None:
    for _ in range(8):
        answer = send(own.endpoint, HTTP_1, "/open", source=FORGER, headers=FORGED)
        assert answer.status == 401
    require_blocked(own, FORGER)


def test_a_few_misses_block_nobody(own: Node, protocol: str) -> None:
    answers = {ask(own, LOST, f"/none/{number}", protocol).status for number in range(20)}
    assert answers == {404}
    assert ask(own, LOST).status == 200


def test_an_address_of_an_allow_list_is_never_blocked(own: Node) -> None:
    assert {ask(own, FRIEND, ATTACK).status for _ in range(8)} == {403}
    assert ask(own, FRIEND).status == 200


def test_an_open_connection_of_a_blocked_address_ends_with_its_next_request(
    own: Node, protocol: str
) -> None:
    source = f"127.0.0.{79 if protocol == HTTP_1 else 80}"
    with connect(own.endpoint, protocol, source=source) as secured:
        kept = asked_then_blocked(own, secured, source)
        answer = kept.ask("/open")
        kept.require_closed()
    record = own.record(answer.request_id)
    assert (answer.status, record["cause"]) == (403, "address_blocked")
    assert record["detail"] == "it kept offending: block 1"
    assert 500 < int(answer.headers["retry-after"]) <= 600
    assert answer.headers.get("connection") == ("close" if protocol == HTTP_1 else None)


def test_who_does_not_take_a_goodbye_is_left_in_the_middle_of_it(own: Node) -> None:
    """A client that never answers the ping behind GOAWAY could open streams for ever."""
    source = "127.0.0.81"
    with connect(own.endpoint, HTTP_2, source=source) as secured:
        kept = asked_then_blocked(own, secured, source)
        started, asked = time.monotonic(), 0
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while time.monotonic() - started < 20:
                kept.begin("/open")
                asked += 1
                time.sleep(0.05)
        assert time.monotonic() - started < 20, "it was still open"
    assert asked > 10, "it was given time to hear of it"


def test_the_status_tells_who_is_blocked_and_for_how_long(own: Node) -> None:
    source = "127.0.0.76"
    for _ in range(6):
        ask(own, source, ATTACK)
    require_blocked(own, source)
    told = own.status()["offenders"]
    assert told["blocked"] >= 1
    assert source in [one["source"] for one in told["first"]]
    assert f"{told['blocked']:,} blocked" in own.run("status").stdout


def test_a_block_ends_and_new_terms_begin_anew(own: Node, tmp_path: Path) -> None:
    source = "127.0.0.77"
    apply(own, tmp_path, "1s")
    assert own.status()["offenders"]["sources"] == 0, "other terms, another table"
    for _ in range(6):
        ask(own, source, ATTACK)
    wait_until("the block has ended", lambda: _status(own, source) == 200)
    apply(own, tmp_path, "10m")


def _status(node: Node, source: str) -> int:
    try:
        return ask(node, source).status
    except (ConnectionError, ssl.SSLError):
        return 0


def test_a_block_outlives_the_node_that_made_it(own: Node) -> None:
    source = "127.0.0.78"
    for _ in range(6):
        ask(own, source, ATTACK)
    require_blocked(own, source)
    own.stop()
    own.start()
    told = {one["source"]: one for one in own.status()["offenders"]["first"]}
    assert 500 < told[source]["seconds"] <= 600
    assert _status(own, source) == 0
    assert ask(own, HONEST).status == 200
