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


def _with_model() -> Snapshot:
    """The sample, with a model and a route to it."""
    data = snapshot_data()
    tensor = {"name": "x", "datatype": "FP32", "shape": [0]}
    model = {"name": "digits", "version": 1, "blob": f"sha256:{'a' * 64}", "size": 1}
    model |= {"format": "onnx", "inputs": [tensor], "outputs": [tensor], "worker": "0" * 16}
    data["models"] = [model]
    backend = {"type": "Model", "model": "digits"}
    path = {"type": "PathPrefix", "value": "/digits"}
    data["routes"].append({"name": "score", "path": path, "backend": backend})
    return build(Snapshot, data)


def test_a_model_is_asked_about_as_itself_though_no_route_leads_to_it() -> None:
    made = _with_model()
    route = made.route("score")
    assert route is not None
    assert resources_of(route) == (("Model", "digits"),)
    alone = made.with_(routes=tuple(each for each in made.routes if each != route))
    assert ("Model", "digits") in all_resources(alone)
    assert _said(("Model", "digits"), of=alone) == []
    assert _said(("Model", "digit"), ("Route", "score"), of=made) == [
        "team.cedar:7: mine names Model::\"digit\", which does not exist; did you mean 'digits'?",
        'team.cedar:7: mine names Route::"score", which only leads to a model; write Model::"digits"',
    ]


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


def test_where_models_are_the_node_itself_can_be_asked_about() -> None:
    own = ("Route", "open-inference")
    assert _said(own, of=_with_model()) == []
    assert _said(own) != []
