"""A model that only tiers have: an engine's real process, and simulators of tiers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.e2e.test_models import ATTACK, Engine
from tests.e2e.test_tiers import (
    ASKED,
    INPUTS,
    NOTE,
    OUTPUTS,
    Place,
    X,
    running_engine,
    running_place,
    score,
)
from tests.e2e.wire import HTTP_1
from tests.simulators.tier import tensor

from vedette.config.served import RemoteModel
from vedette.config.tiers import Confidence, ResultCache
from vedette.errors import ConfigError

REMOTE = RemoteModel(name="digits", inputs=INPUTS, outputs=OUTPUTS, request_bytes=65_536)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as engine:
        yield engine


@pytest.fixture
def place(engine: Engine) -> Iterator[Place]:
    with running_place(engine) as place:
        yield place


def serve(place: Place, remote: RemoteModel = REMOTE, **more: Any) -> None:
    place.serve(place.route(**{"tiers": place.both(), **more}), remote=remote)


def get(place: Place, path: str, method: str = "GET") -> httpx.Response:
    with place.engine.client(HTTP_1) as client:
        return client.request(method, path, headers=place.engine.authorization)


def test_its_tiers_are_asked_at_once_and_no_process_here(place: Place) -> None:
    serve(place)
    answer = place.ask()
    assert (answer.status_code, answer.headers["x-vedette-tier"]) == (200, "regional")
    assert answer.json()["outputs"] == [score(0.2, 0.8)]
    assert answer.json()["id"] == "mine"
    assert not place.here.asked
    assert not place.central.asked
    [asked] = place.regional.asked
    assert json.loads(asked.body) == {"inputs": [X]}, "only what the route says leaves"
    line = place.record(answer)
    assert (line["model"], line["tier"], line["outcome"]) == ("digits", "regional", "served")
    assert line["tiers"] == [{"tier": "edge", "cause": "missing"}, {"tier": "regional"}]
    assert not {"modelVersion", "modelDigest"} & set(line)
    [call] = place.calls(answer)
    assert (call["tier"], call["route"]) == ("regional", "classify")


def test_a_version_is_the_tiers_to_know(place: Place) -> None:
    serve(place)
    assert place.ask(path="/classify/versions/9/infer").status_code == 200
    assert [each.target for each in place.regional.asked] == ["/v2/models/digits/versions/9/infer"]
    assert get(place, "/classify/versions/9").status_code == 404


def test_the_node_says_what_was_declared_of_it(place: Place) -> None:
    serve(place)
    answer = get(place, "/classify")
    assert answer.status_code == 200
    assert "x-vedette-tier" not in answer.headers
    assert answer.json() == {
        "name": "digits",
        "versions": [],
        "platform": "vedette_tiers",
        "inputs": [
            {"name": "note", "datatype": "BYTES", "shape": [1]},
            {"name": "x", "datatype": "FP32", "shape": [-1, 2]},
        ],
        "outputs": [{"name": "score", "datatype": "FP32", "shape": [-1, 2]}],
    }
    assert "tier" not in place.record(answer)
    posted = get(place, "/classify/ready", "DELETE")
    assert (posted.status_code, posted.headers["allow"]) == (405, "GET")
    assert get(place, "/classify/infer").status_code == 405
    assert get(place, "/classify/stream").status_code == 404
    assert get(place, "/v2/health/ready").status_code == 200
    assert not place.regional.asked


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"inputs": [X]}, 'the input "note" is missing'),
        ({"inputs": [X, NOTE, tensor("z", "FP32", [1], [1])]}, 'the model has no input "z"'),
        ({"inputs": [tensor("x", "FP64", [1, 2], [1, 2]), NOTE]}, "another datatype"),
        ({"inputs": [tensor("x", "FP32", [1, 3], [1, 2, 3]), NOTE]}, "another shape"),
        ({"inputs": [tensor("x", "FP32", [2, 2], [1, 2]), NOTE]}, "not the elements"),
        ({**ASKED, "outputs": [{"name": "best"}]}, 'the model has no output "best"'),
        ({"inputs": "none"}, "no request of the Open Inference Protocol"),
    ],
)
def test_what_the_caller_has_to_mend_is_told_and_asked_of_nobody(
    place: Place, body: Any, sentence: str
) -> None:
    serve(place)
    answer = place.ask(body)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]
    assert place.record(answer)["cause"] == "model_request_invalid"
    assert not place.regional.asked


def test_what_a_model_does_not_take_this_one_does_not_take_either(place: Place) -> None:
    serve(place, REMOTE.model_copy(update={"inputs": INPUTS[1:]}))
    assert place.ask(b"\x89PNG of something", **{"content-type": "image/png"}).status_code == 415
    serve(place)
    large = json.dumps(ASKED).encode() + b" " * 65_536
    assert place.ask(large).status_code == 413
    assert place.ask(authorization="Bearer none").status_code == 401
    note = tensor("note", "BYTES", [1], [ATTACK])
    assert place.ask({"inputs": [X, note]}).status_code == 403
    assert not place.regional.asked


def test_a_picture_goes_where_all_inputs_may_go(place: Place) -> None:
    tier = place.tier("regional", place.regional.port, all_inputs=True)
    remote = REMOTE.model_copy(update={"inputs": INPUTS[1:]})
    serve(place, remote, tiers=(tier,))
    answer = place.ask(b"\x89PNG of something", **{"content-type": "image/png"})
    assert (answer.status_code, answer.headers["x-vedette-tier"]) == (200, "regional")


@pytest.mark.parametrize(
    "lie",
    [
        tensor("score", "FP32", [2, 2], [0.2, 0.8, 0.1, 0.9]),
        tensor("score", "FP64", [1, 2], [0.2, 0.8]),
        tensor("best", "FP32", [1, 2], [0.2, 0.8]),
    ],
)
def test_what_comes_back_is_held_to_what_was_declared(place: Place, lie: Any) -> None:
    place.regional.answers(lie)
    serve(place)
    answer = place.ask()
    assert (answer.status_code, answer.headers["x-vedette-tier"]) == (200, "central")
    assert place.record(answer)["tiers"][1] == {"tier": "regional", "cause": "tier_invalid"}


def test_when_nobody_answers_that_is_said_and_it_is_not_ready_any_more(place: Place) -> None:
    for tier in (place.regional, place.central):
        tier.says(status=503)
    serve(place)
    assert get(place, "/classify/ready").json() == {"ready": True}
    answer = place.ask()
    assert answer.status_code == 503
    assert "x-vedette-tier" not in answer.headers
    line = place.record(answer)
    assert (line["cause"], line["model"]) == ("tiers_unavailable", "digits")
    assert "tier" not in line
    causes = [each["cause"] for each in line["tiers"]]
    assert causes == ["missing", "tier_failed", "tier_failed"]
    for _ in range(4):
        place.ask()
    assert get(place, "/classify/ready").status_code == 503
    assert get(place, "/v2/health/ready").status_code == 200, "the node itself is there"


def test_a_tier_that_is_not_sure_is_followed_by_one_that_is_asked_for_that(place: Place) -> None:
    confidence = Confidence(output="score", below_millionths=600_000)
    first = place.tier("regional", place.regional.port, "Missing")
    second = place.tier("central", place.central.port, "LowConfidence")
    place.regional.answers(score(0.5, 0.5))
    serve(place, tiers=(first, second), confidence=confidence)
    answer = place.ask()
    assert (answer.status_code, answer.headers["x-vedette-tier"]) == (200, "central")


def test_a_snapshot_in_which_nobody_could_answer_is_none(place: Place) -> None:
    for more, sentence in (
        ({"tiers": place.both("Overload")}, "needs a tier with `missing` in `on`"),
        ({"tiers": None}, "needs a tier with `missing` in `on`"),
        ({"cache": ResultCache(ttl_millis=1_000)}, "only its own answers are remembered"),
    ):
        with pytest.raises(ConfigError) as refused:
            serve(place, **more)
        assert sentence in str(refused.value)
