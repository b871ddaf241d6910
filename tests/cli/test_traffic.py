"""Routes and services on the command line: short words, filters, and JSON of the documented shape."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from tests.cli.conftest import Shell, started_node
from tests.simulators.native import COMPONENT

from vedette.cli.traffic import (
    _is_failing,
    callers,
    circuit_of,
    conditions,
    goes_to,
    inspected,
    matches,
)
from vedette.control.traffic_messages import RouteStatus, UpstreamStatus

HEAD = "apiVersion: vedette.dev/v1alpha1\n"
EDGE = f"""\
{HEAD}kind: Upstream
metadata: {{name: shop}}
spec: {{url: "http://10.0.0.7:8080"}}
---
{HEAD}kind: Upstream
metadata: {{name: new-shop}}
spec: {{url: "https://[2001:db8::7]", health: {{path: /healthz}}}}
---
{HEAD}kind: Route
metadata: {{name: shop}}
spec:
  public: true
  hostnames: ["*.example.com"]
  rules:
    - backendRefs:
        - {{kind: Upstream, group: vedette.dev, name: shop, weight: 9}}
        - {{kind: Upstream, group: vedette.dev, name: new-shop, weight: 1}}
"""


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A node with a function, two services and a route to both, which the tests here only ask."""
    folder = tmp_path_factory.mktemp("edge")
    (folder / "edge.yaml").write_text(EDGE)
    (folder / "hello.wasm").write_bytes(COMPONENT)
    with started_node(tmp_path_factory) as node:
        assert node("deploy", str(folder / "hello.wasm")).returncode == 0
        done = node("apply", "--yes", str(folder / "edge.yaml"))
        assert done.returncode == 0, done.stderr
        yield node


def _rows(shell: Shell, *arguments: str) -> list[list[str]]:
    done = shell(*arguments)
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()[1:]]


def test_wide_routes_say_limits_countries_and_the_challenge(edge: Shell) -> None:
    hello, _ = _rows(edge, "routes", "--wide")
    assert hello[:2] == ["hello", "any host /hello/*"]
    assert hello[-3:] == ["none", "all", "pressure"]


def test_the_conditions_of_a_route_are_told_in_short() -> None:
    allow, block = {"action": "Allow", "codes": ["CH", "DE"]}, {"action": "Block", "codes": ["AQ"]}
    row = {"limits": ["a", "b"], "countries": allow, "challenge": "Suspicious"}
    assert conditions(row) == ("a, b", "only CH, DE", "suspicious")
    assert conditions({**row, "countries": block})[1] == "all but AQ"
    assert conditions({**row, "countries": None})[1] == "all"


def test_routes_say_what_they_match_where_they_lead_and_who_may_call(edge: Shell) -> None:
    hello, shop = _rows(edge, "routes")
    told = ["hello", "any host /hello/*", "Function hello", "block 1", "tokens if node-token"]
    assert hello == told
    assert shop[:2] == ["shop", "*.example.com /*"]
    assert shop[2] == "Upstream new-shop 10 %, Upstream shop 90 % (no healthy endpoint)"
    assert shop[3] == "block 1"
    assert shop[4].startswith("tokens if node-token, anybody (public-route-shop)")


def test_routes_are_filtered_by_name_host_and_where_they_lead(edge: Shell) -> None:
    def names(*arguments: str) -> list[str]:
        return [row[0] for row in _rows(edge, "routes", *arguments)]

    assert names("shop") == ["shop"]
    assert names("--host", "WWW.example.com") == ["hello", "shop"]
    assert names("--host", "example.com") == ["hello"]
    assert names("--to", "new-shop") == ["shop"]
    assert names("--to", "hello", "--host", "www.example.com") == ["hello"]
    unknown = edge("routes", "shpo")
    assert (unknown.returncode, "did you mean 'shop'?" in unknown.stderr) == (2, True)


def test_upstreams_say_how_each_endpoint_does(edge: Shell) -> None:
    new, shop = _rows(edge, "upstreams")
    assert new[:4] == ["new-shop", "[2001:db8::7]:443", "unknown", "asked for /healthz"]
    assert shop == [
        "shop",
        "10.0.0.7:8080",
        (
            "ejected until 2026-01-01T00:00:10Z, failing since 2026-01-01T00:00:00Z, "
            "circuit open until 2026-01-01T00:00:20Z (3 failures in a row)"
        ),
        "by requests",
        "1",
        "14",
        "5",
        "2026-01-01T00:00:00Z it answered 503",
    ]
    assert [row[0] for row in _rows(edge, "upstreams", "shop", "--failing")] == ["shop"]
    assert edge("upstreams", "nothing").returncode == 2


def test_json_has_the_documented_shape(edge: Shell) -> None:
    routes, upstreams = edge.json("routes"), edge.json("upstreams")
    TypeAdapter(list[RouteStatus]).validate_python(routes)
    TypeAdapter(list[UpstreamStatus]).validate_python(upstreams)
    root = Path(__file__).resolve().parents[2] / "docs/reference"
    for name, rows in (("routes", routes), ("upstreams", upstreams)):
        schema = json.loads((root / f"status-{name}.schema.json").read_text("utf-8"))
        shape = schema["$defs"]["RouteStatus" if name == "routes" else "UpstreamStatus"]
        assert isinstance(rows, list)
        assert all(shape["properties"].keys() == row.keys() for row in rows)


def _route(**changes: Any) -> dict[str, Any]:
    route: dict[str, Any] = {
        "hosts": [],
        "path": {"type": "Exact", "value": "/cart"},
        "method": None,
        "headers": [],
        "query": [],
        "cookies": [],
        "backends": [],
        "mirror": None,
        "fault": None,
        "callers": [],
        "waf": {"mode": "block", "paranoiaLevel": 1, "exclusions": 0, "expired": 0},
    }
    return {**route, **changes}


def test_a_match_is_told_in_short() -> None:
    exact = {"type": "Exact", "name": "x-beta", "value": "1"}
    regular = {"type": "RegularExpression", "name": "v", "value": "2|3"}
    assert matches(_route()) == "any host /cart"
    assert matches(_route(path={"type": "PathPrefix", "value": "/"})) == "any host /*"
    full = _route(hosts=["a", "b"], method="GET", headers=[exact], query=[regular], cookies=[exact])
    assert matches(full) == "a,b /cart GET x-beta=1 ?v~2|3 cookie x-beta=1"


def test_who_answers_is_told_in_short() -> None:
    static = {
        "kind": "Static",
        "name": None,
        "weight": 1,
        "detail": "200 text/plain",
        "ready": None,
    }
    assert goes_to(_route(backends=[static])) == "Static 200 text/plain"
    one = {"kind": "Upstream", "name": "a", "weight": 1, "detail": None, "ready": True}
    none = {**one, "name": "b", "weight": 2, "ready": False}
    told = goes_to(_route(backends=[one, none], mirror="c"))
    assert told == "Upstream a 33.3 %, Upstream b 66.7 % (no healthy endpoint), copies to c"
    assert goes_to(_route(backends=[{**one, "weight": 0}])) == "Upstream a"
    fault = {
        "delay": {"perMillion": 100_000, "fixedMillis": 1_500},
        "abort": {"perMillion": 1, "status": 503},
    }
    told = goes_to(_route(backends=[one], fault=fault))
    assert told == "Upstream a, fault: 10 % wait 1s500ms, fault: 0.0001 % get 503"
    only = goes_to(_route(backends=[one], fault={**fault, "delay": None}))
    assert only == "Upstream a, fault: 0.0001 % get 503"


def test_a_service_counts_as_failing_while_its_circuit_is_not_closed() -> None:
    circuit = {"state": "half-open", "openUntil": None, "why": "3 failures in a row"}
    service = {"endpoints": [{"state": "healthy"}], "circuit": circuit}
    assert _is_failing(service)
    assert circuit_of(service) == ", circuit half-open (3 failures in a row)"
    for closed in (None, {**circuit, "state": "closed"}):
        assert not _is_failing({**service, "circuit": closed})
        assert circuit_of({**service, "circuit": closed}) == ""
    assert _is_failing({"endpoints": [{"state": "ejected"}], "circuit": None})


def _caller(policy: str, **more: Any) -> dict[str, Any]:
    usual = {"effect": "permit", "principalType": None, "principalId": None, "conditional": False}
    return {"policy": policy, **usual, **more}


def test_who_may_call_is_told_in_short() -> None:
    forbid = _caller("robots", effect="forbid", principalType="Anonymous", conditional=True)
    assert callers(_route()) == "nobody"
    assert callers(_route(callers=[forbid])) == "nobody"
    assert callers(_route(callers=[_caller("open"), forbid])) == (
        "anybody (open), except the anonymous if robots"
    )
    named = _caller("team", principalType="Subject", principalId="iss#\x1b[2Jalice")
    assert callers(_route(callers=[named])) == "iss#\\x1b[2Jalice (team)"
    function = _caller("scores", principalType="Function", principalId="shop")
    assert callers(_route(callers=[function])) == "the function shop (scores)"
    workload = _caller("mesh", principalType="Workload", conditional=True)
    assert callers(_route(callers=[workload])) == "client certificates if mesh"


def test_the_firewall_is_shown_in_a_few_words() -> None:
    waf = {"mode": "detect", "paranoiaLevel": 2, "exclusions": 3, "expired": 1}
    assert inspected(_route()) == "block 1"
    assert inspected(_route(waf=waf)) == "detect 2, 3 exclusions (1 ended)"
    assert inspected(_route(waf={**waf, "mode": "off"})) == "off"
