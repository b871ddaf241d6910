"""What tiers, confidence and a cache of a route to a model come to, and where they cannot be."""

from __future__ import annotations

import json

import pytest
from tests.control.test_resolve import of
from tests.control.test_resolve_models import made, refused, route

from vedette.config.model import wire_value
from vedette.config.snapshot import Snapshot
from vedette.control.desired_models import routes_to
from vedette.control.engine_svids import wanted_of

MODEL = of("Model", "{file: m.onnx}", "m")
REFS = "matches: [{path: {value: /x}}], backendRefs: [{kind: Model, name: m}]"
TIER = "{name: regional, url: 'https://r.example', send: {inputs: [x]}}"
UNSURE = TIER.replace("send:", "on: [lowConfidence], send:")
PEER = "spiffe://r.example/models"


def rule(more: str) -> str:
    return MODEL + route(f"{{{REFS}, {more}}}")


def test_a_route_to_a_model_may_have_tiers_confidence_and_a_cache() -> None:
    tier = TIER.replace("send:", "on: [overload, lowConfidence], send:")
    more = f"tiers: [{tier}], confidence: {{output: y, below: 0.5}}, cache: {{ttl: 1m}}"
    found = made(rule(more)).snapshot.route("one")
    assert found is not None
    said = wire_value(found)
    assert said["tiers"] == [
        {
            "name": "regional",
            "url": "https://r.example",
            "model": "m",
            "on": ["LowConfidence", "Overload"],
            "inputs": ["x"],
            "allInputs": False,
            "timeoutMillis": 10_000,
        }
    ]
    assert said["confidence"] == {"output": "y", "belowMillionths": 500_000}
    assert (said["cache"]["ttlMillis"], said["cache"]["scope"]) == (60_000, "Caller")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (f"tiers: [{TIER}, {TIER}]", "regional is there more than once"),
        (f"tiers: [{TIER.replace('[x]', '[z]')}]", "the model 'm' has no input 'z'"),
        (f"tiers: [{TIER.replace('[x]', '[]')}]", "some inputs leave, or all"),
        (
            f"tiers: [{UNSURE}]",
            "no confidence says what that is",
        ),
        (f"tiers: [{TIER}], confidence: {{output: y, below: 1}}", "nobody would be asked"),
        (
            f"tiers: [{UNSURE}], confidence: {{output: sure, below: 1}}",
            "there is no output 'sure'; the model has y",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(more: str, sentence: str) -> None:
    assert sentence in str(refused(rule(more)))


@pytest.mark.parametrize(
    ("said", "becomes"),
    [("critical", "Critical"), ("standard", None), ("sheddable", "Sheddable")],
)
def test_a_route_says_whose_turn_at_its_model_is_first(said: str, becomes: str | None) -> None:
    found = made(rule(f"criticality: {said}")).snapshot.route("one")
    assert found is not None
    assert wire_value(found)["backend"].get("criticality") == becomes


@pytest.mark.parametrize("more", [f"tiers: [{TIER}]", "cache: {ttl: 1m}", "criticality: critical"])
def test_only_a_model_has_them(more: str) -> None:
    text = route(f"{{static: {{body: x}}, {more}}}")
    assert "needs a Model that answers" in str(refused(text))


def _with_policy(peers: list[str], routes: list[str]) -> Snapshot:
    data = json.loads(made(rule(f"tiers: [{TIER}]")).snapshot.canonical_bytes())
    leaving = {"to": "https://r.example", "peers": peers}
    data["egress"] = [{"name": "p", "routes": routes, "rules": [leaving]}]
    return Snapshot.model_validate(data)


def test_the_gateway_proves_itself_to_a_tier_that_has_to_prove_itself() -> None:
    assert "gateway" in wanted_of(_with_policy([PEER], ["one"]))
    assert "gateway" not in wanted_of(_with_policy([], ["one"]))
    assert "gateway" not in wanted_of(_with_policy([PEER], ["hello"]))


FAR = of(
    "Model",
    "{inputs: [{name: x, datatype: FP32, shape: [-1]}], outputs: [{name: y, datatype: FP32, shape: [-1]}]}",
    "m",
)


def test_a_model_without_a_file_is_there_by_the_tiers_of_its_routes() -> None:
    after = made(FAR + route(f"{{{REFS}, tiers: [{TIER}]}}")).snapshot
    assert after.models is None
    assert [each.name for each in after.remote_models or ()] == ["m"]
    leading = [each.name for each in routes_to(after.routes, "m")]
    assert leading == ["one"], "and none of its own, which could ask nobody"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (FAR, "no Route leads to it"),
        (FAR + route(f"{{{REFS}}}"), "no tier of the Route 'one' has `missing` in `on`"),
        (
            FAR + route(f"{{{REFS}, tiers: [{TIER.replace('send:', 'on: [failure], send:')}]}}"),
            "no tier of the Route 'one' has `missing` in `on`",
        ),
        (
            FAR + route(f"{{{REFS}, tiers: [{TIER.replace('[x]', '[z]')}]}}"),
            "the model 'm' has no input 'z'",
        ),
        (
            FAR + route(f"{{{REFS}, tiers: [{TIER}], cache: {{ttl: 1m}}}}"),
            "only its own answers are remembered",
        ),
    ],
)
def test_a_model_that_nobody_could_answer_for_is_refused(text: str, sentence: str) -> None:
    assert sentence in str(refused(text))


def test_a_model_may_get_a_file_and_lose_it() -> None:
    tiered = route(f"{{{REFS}, tiers: [{TIER}]}}")
    first = made(MODEL)
    second = made(FAR + tiered, base=first.snapshot, applied=first.applied)
    assert second.snapshot.models is None
    assert second.snapshot.route("model-m") is None
    third = made(MODEL + tiered, base=second.snapshot, applied=second.applied)
    assert third.snapshot.remote_models is None
    assert [each.name for each in third.snapshot.models or ()] == ["m"]
    gone = made(of("Node", "{}"), base=second.snapshot, applied=second.applied, prune=True)
    assert gone.snapshot.remote_models is None
