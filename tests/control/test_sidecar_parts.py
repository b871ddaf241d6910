"""What manifests of kind Sidecar, `callers` of a Route and hosts of the mesh make of a snapshot."""

from __future__ import annotations

from typing import Any

import pytest
from tests.config.samples import snapshot
from tests.control.manifest_texts import OUR, SHOP, resolved
from tests.control.test_resolve import COMPONENT, of, refused

from vedette.config.sidecar_manifest import SidecarSpec
from vedette.config.snapshot import Snapshot
from vedette.control.resolve import Kept, Resolved
from vedette.control.sidecar_parts import parts_of
from vedette.errors import ConfigError

SHOP_ID = "spiffe://edge-1.example.org/shop"
WEB_ID = "spiffe://edge-1.example.org/web"
BILLING = f"{{port: 9000, callers: [{WEB_ID}, {SHOP_ID}, {WEB_ID}]}}"
LEADS = "backendRefs: [{kind: Upstream, group: vedette.dev, name: shop}]"


def policy(made: Resolved, name: str) -> str:
    """The text of a policy file of a snapshot."""
    (blob,) = [each.blob for each in made.snapshot.policy.policies if each.name == name]
    return made.texts[blob]


def names(made: Snapshot) -> tuple[list[str], list[str], list[str]]:
    """Upstreams, routes and policies."""
    return (
        [each.name for each in made.upstreams],
        [each.name for each in made.routes],
        [each.name for each in made.policy.policies],
    )


def test_a_sidecar_is_a_route_to_its_program_and_a_permit_for_each_caller() -> None:
    made = resolved(of("Sidecar", BILLING, "billing"))
    assert [(each.name, each.mode) for each in made.snapshot.sidecars or ()] == [
        ("billing", "Strict")
    ]
    route = made.snapshot.route("sidecar-billing")
    assert route is not None
    assert (route.hosts, route.path.type, route.path.value) == (
        ("billing.mesh",),
        "PathPrefix",
        "/",
    )
    (upstream,) = made.snapshot.upstreams
    assert upstream.name == "sidecar-billing"
    assert [(each.host, each.port) for each in upstream.endpoints] == [("127.0.0.1", 9000)]
    text = policy(made, "sidecar.billing.cedar")
    assert text.count("permit (") == 2, "a caller that is named twice is one"
    assert text.count('resource == Route::"sidecar-billing"') == 2
    assert f'principal == Workload::"{SHOP_ID}"' in text
    assert "billing.mesh" in made.snapshot.admit.hosts


def test_a_program_that_only_calls_has_an_identity_and_nothing_else() -> None:
    made = resolved(of("Sidecar", "{mode: Permissive}", "shop")).snapshot
    assert [(each.name, each.mode) for each in made.sidecars or ()] == [("shop", "Permissive")]
    assert names(made) == names(snapshot())


def test_without_callers_nobody_is_permitted() -> None:
    made = resolved(of("Sidecar", "{port: 9000}", "billing")).snapshot
    assert names(made)[2] == names(snapshot())[2]


def test_what_a_sidecar_no_longer_says_goes_and_what_others_made_stays() -> None:
    before = resolved(SHOP + of("Sidecar", BILLING, "billing"))
    only_calls = of("Sidecar", "{}", "billing")
    after = resolved(only_calls, base=before.snapshot, applied=before.applied)
    assert names(after.snapshot) == (["shop"], names(snapshot())[1], names(snapshot())[2])
    assert "billing.mesh" not in after.snapshot.admit.hosts
    gone = resolved(SHOP, base=before.snapshot, applied=before.applied, prune=True).snapshot
    assert gone.sidecars is None
    assert names(gone) == names(after.snapshot)
    left = resolved(SHOP, base=before.snapshot, applied=before.applied).snapshot
    assert left == before.snapshot, "without prune it stays"


@pytest.mark.parametrize("name", ["gateway", "fn"])
def test_a_sidecar_is_not_called_as_the_node_itself(name: str) -> None:
    error = refused(of("Sidecar", "{port: 9000}", name))
    assert (error.line, f"/{name} is the node's own" in error.message) == (3, True)


def test_a_name_must_leave_room_for_that_of_its_route() -> None:
    assert parts_of("a" * 55, SidecarSpec(port=9000)).route is not None
    with pytest.raises(ConfigError) as caught:
        parts_of("a" * 56, SidecarSpec(port=9000))
    assert caught.value.code == "invalid_name"


def test_another_route_for_its_host_is_a_conflict_told_at_its_line() -> None:
    route = of("Route", f"{{hostnames: [billing.mesh], rules: [{{{LEADS}}}]}}", "billing")
    error = refused(SHOP + of("Sidecar", "{port: 9000}", "billing") + route)
    assert (error.code, error.line) == ("route_conflict", 8)
    assert error.message == "route 'billing' in edge.yaml:14 already takes billing.mesh /"
    beside = route.replace("rules: [{", "rules: [{matches: [{path: {value: /v2}}], ")
    assert resolved(SHOP + of("Sidecar", "{port: 9000}", "billing") + beside)


def test_a_limit_means_the_route_of_a_sidecar_by_its_own_name() -> None:
    sidecar, route = (
        of("Sidecar", BILLING, "shop"),
        of("Route", f"{{rules: [{{{LEADS}}}]}}", "shop"),
    )
    for which in ("shop", "sidecar-shop"):
        limit = of("Limit", f"{{routes: [{which}], rate: 1/s}}", "few")
        made = resolved(SHOP + sidecar + route + limit)
        (made_limit,) = made.snapshot.limits
        assert made_limit.routes == (which,)
        (later,) = resolved(limit, base=made.snapshot, applied=made.applied).snapshot.limits
        assert later.routes == (which,), "also when the sidecar was applied before"


@pytest.mark.parametrize(
    "text",
    [
        of("Route", f"{{hostnames: [a.mesh, a.example.com], rules: [{{{LEADS}}}]}}"),
        of("Route", f"{{hostnames: ['*.mesh', a.example.com], rules: [{{{LEADS}}}]}}"),
        of("Function", "{component: a.wasm, domains: [a.mesh, a.example.com]}"),
        of("Node", "{hosts: [a.mesh]}"),
    ],
    ids=["a route", "with a wildcard", "a function", "the node"],
)
def test_hosts_of_the_mesh_stand_alone(text: str) -> None:
    error = refused(SHOP + text, attachments=COMPONENT)
    assert (error.line, "mesh" in error.message) == (9, True)
    alone = text.replace(", a.example.com", "").replace("hosts: [a.mesh]", "hosts: [a.example.com]")
    assert resolved(SHOP + alone, attachments=COMPONENT)


CALLERS = f"callers: [{WEB_ID}, {SHOP_ID}]"


def test_callers_of_a_route_may_call_all_it_makes() -> None:
    rules = f"rules: [{{matches: [{{path: {{value: /a}}}}, {{path: {{value: /b}}}}], {LEADS}}}]"
    route = of("Route", f"{{hostnames: [billing.mesh], {CALLERS}, {rules}}}", "billing")
    made = resolved(SHOP + route)
    text = policy(made, "callers-route.billing.cedar")
    for name in ("billing", "billing-2"):
        for caller in (SHOP_ID, WEB_ID):
            scope = f'principal == Workload::"{caller}",\n  action == Action::"invoke",\n'
            assert f'{scope}  resource == Route::"{name}"\n' in text
    assert text.count("permit (") == 4
    without = resolved(
        SHOP + route.replace(CALLERS, "waf: {}"), base=made.snapshot, applied=made.applied
    )
    assert "callers-route.billing.cedar" not in names(without.snapshot)[2]


def test_a_function_behind_a_route_is_open_to_its_callers_there_alone() -> None:
    function = of("Function", "{component: a.wasm}", "f")
    leads = "backendRefs: [{kind: Function, group: vedette.dev, name: f}]"
    route = of("Route", f"{{hostnames: [f.mesh], callers: [{SHOP_ID}], rules: [{{{leads}}}]}}")
    text = policy(resolved(function + route, attachments=COMPONENT), "callers-route.one.cedar")
    assert 'resource == Function::"f"\n)\nwhen { (context.host == "f.mesh") }' in text


def test_public_and_callers_exclude_each_other() -> None:
    error = refused(of("Route", f"{{public: true, {CALLERS}, rules: [{{static: {{}}}}]}}"))
    assert "callers would say nothing" in error.message


def test_callers_and_routes_that_make_too_many_permits_are_refused() -> None:
    matches = ", ".join(f"{{path: {{value: /{number}}}}}" for number in range(11))
    callers = ", ".join(f"{SHOP_ID}{number}" for number in range(1_000))
    spec = f"{{callers: [{callers}], rules: [{{matches: [{matches}], static: {{}}}}]}}"
    assert "1000 callers of 11 routes" in refused(of("Route", spec)).message


def test_no_host_of_the_mesh_is_let_in_by_chance() -> None:
    made: dict[str, Any] = {}
    text = f"{OUR}kind: Route\nmetadata: {{name: one}}\nspec: {{hostnames: [a.mesh], rules: [{{static: {{}}}}]}}\n"
    made["with"] = resolved(text)
    made["without"] = resolved(
        text.replace("[a.mesh]", "[a.example.com]"),
        base=made["with"].snapshot,
        applied=made["with"].applied,
    )
    assert "a.mesh" in made["with"].snapshot.admit.hosts
    assert "a.mesh" not in made["without"].snapshot.admit.hosts


@pytest.mark.parametrize(
    "text",
    [
        of("Sidecar", BILLING, "billing"),
        SHOP + of("Route", f"{{hostnames: [billing.mesh], {CALLERS}, rules: [{{{LEADS}}}]}}"),
    ],
    ids=["a sidecar", "a route"],
)
def test_a_caller_whose_trust_domain_has_no_bundle_is_noted_once(text: str) -> None:
    def notes(*domains: str) -> list[str]:
        made = resolved(text, kept=Kept(domains=frozenset(domains)))
        return [each for each in made.notes if "bundle" in each]

    (note,) = notes("other.example.org")
    assert note.startswith("no bundle of edge-1.example.org: ")
    assert "vedette federation set edge-1.example.org" in note
    assert notes("edge-1.example.org") == []
