"""What a function may call on one route and not on another: also one instance that answers both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing

import pytest
from tests.e2e.caller import Answer, Caller
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node, wait_until
from tests.e2e.spool import Line
from tests.e2e.wire import HTTP_1
from tests.guests import Guests
from tests.simulators.origin import Origin

REFUSED = b"refused: ErrorCode::HttpRequestDenied\n"
REACHED = b"REACHED 200\norigin\n"
ROUTES = """\
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: admin}
spec:
  rules:
    - matches: [{path: {value: /admin}}, {path: {value: /staff}}]
      backendRefs: [{kind: Function, group: vedette.dev, name: courier}]
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: shared}
spec:
  rules:
    - matches: [{path: {value: /shared}}]
      backendRefs: [{kind: Function, group: vedette.dev, name: courier3}]
---
"""


@pytest.fixture(scope="module")
def node(start_node: StartNode, guests: Guests) -> Node:
    """A node with functions that have routes of their own, and some more; their instances serve again."""
    started = start_node("--name", "edge-routes", "--site", "example.org")
    for component, name in ((guests.outbound, "courier"), (guests.service, "courier3")):
        started.deploy(component, name, "--waf", "off", "--reuse")
    return started


def _apply(node: Node, origin: Origin, routes: str, rule: str = "") -> None:
    node.apply(
        f"{ROUTES}apiVersion: vedette.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {{name: extra}}\n"
        f"spec: {{routes: {routes}, allow: [{{to: '{origin.url}'{rule}}}]}}\n"
    )


@pytest.fixture
def caller(node: Node) -> Iterator[Caller]:
    with closing(Caller(node, HTTP_1)) as caller:
        yield caller


def _record(node: Node, answer: Answer) -> Line:
    [record] = node.egress.wait_for(lambda line: line.get("requestId") == answer.request_id)
    return record


def test_a_function_calls_on_the_routes_that_a_policy_names_and_on_no_other(
    node: Node, origin: Origin, caller: Caller
) -> None:
    _apply(node, origin, "[admin]")
    for path, route in (("admin", "admin"), ("staff", "admin-2")):
        answer = caller.ask(f"/{path}/get?{origin.authority}/")
        assert answer.body == REACHED
        record = _record(node, answer)
        assert (record["function"], record["route"]) == ("courier", route)
        assert record["outcome"] == "served"
    before = len(origin.received)
    for path, function in (("courier/get", "courier"), ("shared/call", "courier3")):
        answer = caller.ask(f"/{path}?{origin.authority}/")
        assert answer.body.startswith(b"refused")
        record = _record(node, answer)
        assert (record["function"], record["route"]) == (function, path.split("/")[0])
        assert (record["outcome"], record["cause"]) == ("refused", "destination_not_allowed")
        assert record["wouldAllow"] == origin.url
    assert len(origin.received) == before
    said = node.run("records", "--tail", "20").stdout
    assert f"courier on route admin-2 calls GET {origin.url}" in said


def test_one_name_of_several_is_that_one(node: Node, origin: Origin, caller: Caller) -> None:
    _apply(node, origin, "[admin-2]")
    assert caller.ask(f"/staff/get?{origin.authority}/").body == REACHED
    assert caller.ask(f"/admin/get?{origin.authority}/").body == REFUSED


@pytest.mark.parametrize(
    ("allowed", "other"), [("/admin/get", "/courier/get"), ("/shared/call", "/courier3/call")]
)
def test_an_instance_that_served_one_route_has_no_more_on_the_next(
    node: Node, origin: Origin, caller: Caller, allowed: str, other: str
) -> None:
    """Requests one after the other on one connection are answered by one worker, which keeps its instance."""
    _apply(node, origin, "[admin, shared]")
    for _ in range(3):
        assert caller.ask(f"{allowed}?{origin.authority}/").body == REACHED
        answer = caller.ask(f"{other}?{origin.authority}/")
        assert answer.body.startswith(b"refused"), answer
        assert _record(node, answer)["route"] == other.split("/")[1]


def test_a_rate_counts_over_all_routes_of_its_policy(
    node: Node, origin: Origin, caller: Caller
) -> None:
    _apply(node, origin, "[admin]", ", rate: 2/h")
    assert caller.ask(f"/admin/get?{origin.authority}/").body == REACHED
    assert caller.ask(f"/staff/get?{origin.authority}/").body == REACHED
    answer = caller.ask(f"/admin/get?{origin.authority}/")
    assert answer.body == REFUSED
    assert _record(node, answer)["cause"] == "rate_limited"


def test_a_rule_of_a_route_adds_the_jwt_svid_of_whoever_answers_it(
    node: Node, origin: Origin, caller: Caller
) -> None:
    _apply(node, origin, "[shared]", ", credential: {jwtSvid: {audience: [billing]}}")
    file = node.path("engine", "svids.json")
    tokens = lambda: json.loads(file.read_text("utf-8")).get("tokens", [])  # noqa: E731
    wait_until("it has its token", lambda: len(tokens()) == 1)
    assert tokens()[0]["name"] == "fn/courier3"
    path = f"/shared/call?{origin.authority}/"
    wait_until("the engine knows", lambda: caller.ask(path).body == REACHED)
    assert origin.received[-1].headers["authorization"] == [f"Bearer {tokens()[0]['token']}"]


def test_a_route_that_is_not_there_is_told(node: Node, origin: Origin) -> None:
    with pytest.raises(AssertionError, match="there is no route 'admn'; did you mean 'admin'"):
        _apply(node, origin, "[admn]")
