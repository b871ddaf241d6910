"""Serving a model and removing it, as changes of a snapshot."""

from __future__ import annotations

from typing import Any

import pytest
from tests.config.samples import DIGEST, snapshot

from vedette.config.served import RemoteModel, ServedModel, Tensor, served_model
from vedette.config.snapshot import Limit, ModelBackend, PathMatch, Route
from vedette.config.tiers import Tier
from vedette.control.desired import put_route, remove_route
from vedette.control.desired_models import model_route, put_model, remove_model, routes_to
from vedette.errors import ConfigError

HOSTS = frozenset({"localhost"})
TENSOR = {"name": "x", "datatype": "FP32", "shape": [0]}


def served(name: str = "m", **changes: Any) -> ServedModel:
    usual = {"name": name, "version": 1, "blob": DIGEST, "size": 5, "format": "onnx"}
    return served_model({**usual, "inputs": [TENSOR], "outputs": [TENSOR], **changes})


def test_a_model_comes_with_its_route_and_goes_with_all_that_lead_to_it() -> None:
    before = snapshot()
    after = put_model(put_model(before, served("b"), HOSTS), served("a"), HOSTS)
    assert [each.name for each in after.models or ()] == ["a", "b"]
    assert after.route("model-a") == model_route("a")
    other = Route(
        name="other",
        path=PathMatch(type="Exact", value="/other"),
        backend=ModelBackend(model="a"),
    )
    after = remove_model(put_route(after, other, HOSTS), "a", HOSTS)
    assert [each.name for each in after.models or ()] == ["b"]
    assert routes_to(after.routes, "a") == ()
    assert remove_model(after, "b", HOSTS).models is None
    assert remove_model(after, "c", HOSTS) == after


def test_a_limit_for_its_route_keeps_a_model_there_and_is_named() -> None:
    after = put_model(snapshot(), served("a"), HOSTS)
    limit = Limit(name="slow", per=("Principal",), routes=("model-a",), concurrency=1)
    limited = after.with_(limits=(*after.limits, limit))
    with pytest.raises(ConfigError) as caught:
        remove_model(limited, "a", HOSTS, {"slow": "edge.yaml"})
    assert caught.value.code == "route_in_use"
    assert "'slow'" in caught.value.message
    assert "'model-a'" in caught.value.message
    assert caught.value.file == "edge.yaml"
    with pytest.raises(ConfigError, match="'slow' is for the route 'model-a'"):
        remove_route(limited, "model-a", HOSTS)


def test_another_version_takes_the_place_and_keeps_the_routes() -> None:
    after = put_model(put_model(snapshot(), served(), HOSTS), served(version=2), HOSTS)
    assert [each.version for each in after.models or ()] == [2]
    assert len(routes_to(after.routes, "m")) == 1


def test_a_file_takes_the_place_of_what_only_tiers_had_and_removing_takes_its_routes_along() -> (
    None
):
    tensor = Tensor(name="x", datatype="FP32", shape=(0,))
    far = RemoteModel(name="far", inputs=(tensor,), outputs=(tensor,))
    tier = Tier(name="t", url="https://t", model="Far:8b", on=("Missing",), inputs=("x",))
    route = Route(
        name="zz",
        path=PathMatch(type="Exact", value="/far"),
        backend=ModelBackend(model="far"),
        tiers=(tier,),
    )
    before = snapshot()
    base = before.with_(remote_models=(far,), routes=(*before.routes, route))
    gone = remove_model(base, "far", HOSTS)
    assert (gone.remote_models, gone.route("zz")) == (None, None)
    taken = put_model(base, served("far"), HOSTS)
    assert taken.remote_models is None
    assert taken.route("zz") == route
    assert taken.route("model-far") is None
