"""Names in policies that nothing has."""

from __future__ import annotations

from tests.config.samples import snapshot, snapshot_data

from vedette.config.model import build
from vedette.config.snapshot import BackendRef, ServicesBackend, Snapshot
from vedette.policy.check import Outline, Scope
from vedette.policy.resources import all_resources, resources_of, unknown_names

ANY = Scope(None, None)


def _snapshot() -> Snapshot:
    """The sample, with a route to a function and a service."""
    data = snapshot_data()
    data["upstreams"] = [{"name": "shop", "endpoints": [{"host": "10.0.0.7", "port": 80}]}]
    services = [{"kind": "Function", "name": "hello"}, {"kind": "Upstream", "name": "shop"}]
    backend = {"type": "Services", "services": services}
    path = {"type": "PathPrefix", "value": "/split"}
    data["routes"].append({"name": "split", "path": path, "backend": backend})
    return build(Snapshot, data)


def _said(*names: tuple[str, str], of: Snapshot | None = None) -> list[str]:
    outline = Outline("mine", "team.cedar", 7, "permit", ANY, ANY, False, names)
    return [str(finding) for finding in unknown_names([outline], of or snapshot())]


def test_a_function_is_asked_about_as_itself_and_anything_else_as_its_route() -> None:
    made = _snapshot()
    asked = {route.name: resources_of(route) for route in made.routes}
    assert asked["hello"] == (("Function", "hello"),)
    assert asked["health"] == (("Route", "health"),)
    assert asked["split"] == (("Function", "hello"), ("Route", "split"))
    assert all_resources(made) == {
        ("Function", "hello"),
        ("Route", "health"),
        ("Route", "split"),
    }


def test_a_route_to_several_functions_is_asked_about_as_these_only() -> None:
    services = ServicesBackend(services=(BackendRef(kind="Function", name="hello"),))
    route = _snapshot().routes[0].model_copy(update={"backend": services})
    assert resources_of(route) == (("Function", "hello"),)


def test_what_is_there_is_not_told() -> None:
    assert _said(("Function", "hello"), ("Route", "health")) == []


def test_a_name_that_nothing_has_is_told_with_the_nearest() -> None:
    assert _said(("Function", "helo"), ("Route", "nothing")) == [
        "team.cedar:7: mine names Function::\"helo\", which does not exist; did you mean 'hello'?",
        'team.cedar:7: mine names Route::"nothing", which does not exist',
    ]


def test_a_route_that_only_leads_to_a_function_is_never_asked_about() -> None:
    [told] = _said(("Route", "hello"))
    assert told.endswith('Route::"hello", which only leads to functions; write Function::"hello"')
    assert _said(("Route", "split"), of=_snapshot()) == []
