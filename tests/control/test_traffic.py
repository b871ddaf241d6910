"""Routes and services as a person sees them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.config.samples import snapshot_data
from tests.simulators.engine import UPSTREAMS

from vedette.config.addresses import CountryRule
from vedette.config.clients import Challenge
from vedette.config.model import build
from vedette.config.snapshot import Snapshot
from vedette.control.status import route_url
from vedette.control.traffic import route_statuses, upstream_statuses
from vedette.control.traffic_messages import RouteStatus
from vedette.policy.check import Outline, Scope

ANY = Scope(None, None)
BASE = "https://localhost:8443"


def _route(name: str, backend: dict[str, Any], **more: object) -> dict[str, Any]:
    path = {"type": "PathPrefix", "value": f"/{name}"}
    return {"name": name, "path": path, "backend": backend, **more}


@pytest.fixture
def snapshot() -> Snapshot:
    """The sample with two services, one of them asked, and a route of each sort."""
    data = snapshot_data()
    shop = {"name": "shop", "endpoints": [{"host": "10.0.0.7", "port": 8080}]}
    spare = {
        "name": "spare",
        "endpoints": [{"host": "10.0.0.8", "port": 80}, {"host": "10.0.0.9", "port": 80}],
        "health": {"path": "/healthz"},
    }
    data["upstreams"] = [shop, spare]
    services = [
        {"kind": "Function", "name": "hello", "weight": 1},
        {"kind": "Upstream", "name": "shop", "weight": 9},
    ]
    split = {"type": "Services", "services": services}
    files = [
        {"path": "a", "blob": data["functions"][0]["component"], "size": 1, "contentType": "x"}
    ]
    data["routes"] += [
        _route("moved", {"type": "Redirect", "hostname": "new.example.com", "status": 301}),
        _route("site", {"type": "Files", "files": files}),
        _route("split", split, mirror={"upstream": "spare"}, method="GET"),
    ]
    data["limits"] = [
        {"name": "all", "per": ["Source"], "concurrency": 5},
        {"name": "some", "per": ["Source"], "routes": ["site"], "concurrency": 5},
    ]
    return build(Snapshot, data)


def _outline(name: str, resource: Scope = ANY, effect: str = "permit", **more: Any) -> Outline:
    principal = more.get("principal", ANY)
    conditional = more.get("conditional", False)
    return Outline(
        name, "p.cedar", more.get("line", 1), effect, principal, resource, conditional, ()
    )


NOW = datetime(2026, 6, 1, tzinfo=UTC)


def _routes(snapshot: Snapshot, *outlines: Outline) -> dict[str, RouteStatus]:
    upstreams = upstream_statuses(snapshot, UPSTREAMS)
    return {each.name: each for each in route_statuses(snapshot, BASE, outlines, upstreams, NOW)}


def test_a_service_is_shown_with_what_the_engine_knows_of_it(snapshot: Snapshot) -> None:
    shop, spare = upstream_statuses(snapshot, UPSTREAMS)
    assert (shop.name, shop.ready, shop.check, shop.routes) == (
        "shop",
        False,
        "passive",
        ("split",),
    )
    assert (shop.requests, shop.failures, shop.retries, shop.mirrors_dropped) == (12, 3, 2, 1)
    assert (shop.hedges, shop.hedges_won) == (4, 3)
    assert shop.circuit is not None
    assert (shop.circuit.state, shop.circuit.opened, shop.circuit.refused) == ("open", 2, 9)
    assert shop.circuit.open_until == "2026-01-01T00:00:20Z"
    assert shop.circuit.why == "3 failures in a row"
    assert spare.circuit is None
    [endpoint] = shop.endpoints
    assert (endpoint.state, endpoint.ready, endpoint.in_flight) == ("ejected", False, 1)
    assert endpoint.failing_since == "2026-01-01T00:00:00Z"
    assert endpoint.ejected_until == "2026-01-01T00:00:10Z"
    assert endpoint.last_error is not None
    assert endpoint.last_error.message == "it answered 503"
    assert (spare.check, spare.health is not None) == ("active", True)


def test_a_route_is_inspected_as_the_node_says_unless_it_says_otherwise(snapshot: Snapshot) -> None:
    ended = {"rules": ["942100"], "until": 1, "reason": "once"}
    waf = {
        "version": "4.25.0",
        "rules": "sha256:" + "e" * 64,
        "policy": {"paranoiaLevel": 2, "exclusions": [ended]},
    }
    data = json.loads(snapshot.canonical_bytes())
    data["waf"] = waf
    for route in data["routes"]:
        if route["name"] == "site":
            exclusion = {"rules": ["tag:attack-xss"], "reason": "prose"}
            route["waf"] = {"mode": "detect", "exclusions": [exclusion]}
    found = _routes(build(Snapshot, data))
    site, split = found["site"].waf, found["split"].waf
    assert (site.mode, site.paranoia_level, site.exclusions, site.expired) == ("detect", 2, 2, 1)
    assert (split.mode, split.paranoia_level, split.exclusions, split.expired) == ("block", 2, 1, 1)
    assert _routes(snapshot)["site"].waf.mode == "off", "a snapshot from before the firewall"


def test_without_an_engine_nothing_is_known_of_a_service(snapshot: Snapshot) -> None:
    for each in upstream_statuses(snapshot, None):
        assert each.ready is None
        assert {one.state for one in each.endpoints} == {"unknown"}


@pytest.mark.parametrize(
    ("states", "ready"),
    [((True, False), True), ((False, False), False), ((None, True), None)],
)
def test_a_service_is_ready_when_one_endpoint_is(
    snapshot: Snapshot, states: tuple[bool | None, ...], ready: bool | None
) -> None:
    sample = UPSTREAMS[0]["endpoints"][0]
    endpoints = [
        {**sample, "host": host, "port": 80, "ready": state}
        for host, state in zip(("10.0.0.8", "10.0.0.9"), states, strict=True)
        if state is not None
    ]
    rows = [{**UPSTREAMS[0], "name": "spare", "endpoints": endpoints}]
    assert upstream_statuses(snapshot, rows)[1].ready is ready


def test_a_route_says_who_answers_and_with_which_share(snapshot: Snapshot) -> None:
    routes = _routes(snapshot)
    shown = {
        name: [(one.kind, one.name, one.weight, one.detail, one.ready) for one in each.backends]
        for name, each in routes.items()
    }
    assert shown == {
        "health": [("Static", None, 1, "200 text/plain", None)],
        "hello": [("Function", "hello", 1, None, None)],
        "moved": [("Redirect", None, 1, "301 …://new.example.com/…", None)],
        "site": [("Files", None, 1, "1 file", None)],
        "split": [("Function", "hello", 1, None, None), ("Upstream", "shop", 9, None, False)],
    }
    assert routes["split"].mirror == "spare"
    assert routes["split"].limits == ("all",)
    assert routes["site"].limits == ("all", "some")
    assert routes["hello"].url == "https://api.example.com:8443/hello"


def test_a_route_of_the_mesh_is_asked_for_as_a_program_does(snapshot: Snapshot) -> None:
    route = snapshot.routes[1].model_copy(update={"hosts": ("hello.mesh",)})
    assert route_url(BASE, route) == "http://hello.mesh/hello"


def test_a_route_has_the_policies_about_its_function_or_itself(snapshot: Snapshot) -> None:
    routes = _routes(
        snapshot,
        _outline("late", Scope("Route", "health"), line=9),
        _outline("no", effect="forbid", line=1, principal=Scope("Anonymous", None)),
        _outline("hello-only", Scope("Function", "hello"), line=2, conditional=True),
        _outline("routes", Scope("Route", None), line=3),
    )
    about = {name: [one.policy for one in each.callers] for name, each in routes.items()}
    assert about == {
        "health": ["routes", "late", "no"],
        "hello": ["hello-only", "no"],
        "moved": ["routes", "no"],
        "site": ["routes", "no"],
        "split": ["hello-only", "routes", "no"],
    }
    last = routes["hello"].callers[-1]
    assert (last.effect, last.principal_type, last.conditional) == ("forbid", "Anonymous", False)


def test_a_route_says_its_countries_and_its_challenge(snapshot: Snapshot) -> None:
    rule = CountryRule(action="Allow", codes=("CH",))
    own = {"site": {"challenge": "Always"}, "split": {"countries": rule}}
    challenge = Challenge(mode="Pressure")
    changed = snapshot.model_copy(
        update={
            "admit": snapshot.admit.model_copy(update={"challenge": challenge}),
            "routes": tuple(
                each.model_copy(update=own.get(each.name, {})) for each in snapshot.routes
            ),
        }
    )

    def told(of: Snapshot) -> dict[str, tuple[str, CountryRule | None]]:
        now = datetime(2026, 11, 22, tzinfo=UTC)
        rows = route_statuses(of, BASE, [], [], now)
        return {each.name: (each.challenge, each.countries) for each in rows}

    shown = told(changed)
    assert shown["split"] == ("Pressure", rule)
    assert shown["moved"] == ("Never", None), "the node itself answers"
    assert shown["site"] == ("Always", None), "unless the route says so itself"
    assert {each for each, _ in told(snapshot).values()} == {"Never"}


def test_an_engine_from_before_there_were_breakers_is_understood(snapshot: Snapshot) -> None:
    before = [
        {key: row[key] for key in row if key not in ("circuit", "hedges", "hedgesWon")}
        for row in UPSTREAMS
    ]
    shop, _ = upstream_statuses(snapshot, before)
    assert (shop.circuit, shop.hedges, shop.requests) == (None, 0, 12)


def test_a_service_is_shown_once_more_for_each_sidecar_that_calls_it(snapshot: Snapshot) -> None:
    data = json.loads(snapshot.canonical_bytes())
    to_shop = {"type": "Services", "services": [{"kind": "Upstream", "name": "shop"}]}
    data["routes"].append(_route("tangled", to_shop, hosts=["shop.mesh"]))
    data["admit"]["hosts"] = sorted([*data["admit"]["hosts"], "shop.mesh"])
    called = [{**UPSTREAMS[0], "name": name} for name in ("shop@web", "shop@app", "gone@web")]
    own = {**UPSTREAMS[0], "requests": 1, "circuit": None}
    found = upstream_statuses(build(Snapshot, data), [own, *called])
    assert [each.name for each in found] == ["shop", "shop@app", "shop@web", "spare"]
    shop, app = found[:2]
    assert (shop.requests, shop.circuit, shop.routes) == (1, None, ("split", "tangled"))
    assert (app.requests, app.routes) == (12, ("tangled",))
    assert app.circuit is not None
    assert app.circuit.state == "open"
    assert [each.state for each in app.endpoints] == ["ejected"]
    assert app.endpoints[0].last_error is not None


def test_policies_about_tokens_are_about_nobody_in_the_mesh(snapshot: Snapshot) -> None:
    token = _outline("node-token", principal=Scope("Subject", None))
    caller = _outline("caller", principal=Scope("Workload", "spiffe://a.example.org/shop"))
    anybody = _outline("no-robots", effect="forbid")
    data = json.loads(snapshot.canonical_bytes())
    to_shop = {"type": "Services", "services": [{"kind": "Upstream", "name": "shop"}]}
    data["routes"].append(_route("tangled", to_shop, hosts=["shop.mesh"]))
    data["admit"]["hosts"] = sorted([*data["admit"]["hosts"], "shop.mesh"])
    routes = _routes(build(Snapshot, data), token, caller, anybody)
    named = {name: [one.policy for one in each.callers] for name, each in routes.items()}
    assert named["tangled"] == ["caller", "no-robots"]
    assert named["split"] == ["node-token", "caller", "no-robots"]
