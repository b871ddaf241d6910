"""Models in a snapshot: the name of a worker."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from tests.config.samples import DIGEST, OTHER_DIGEST, snapshot_data

from vedette.config.difference import difference
from vedette.config.model import build, wire_value
from vedette.config.served import served_model, worker_of
from vedette.config.snapshot import Snapshot
from vedette.errors import ConfigError

TENSOR = {"name": "x", "datatype": "FP32", "shape": [0, 3]}
LEAST: dict[str, Any] = {
    "name": "m",
    "version": 1,
    "blob": DIGEST,
    "size": 5,
    "format": "onnx",
    "inputs": [TENSOR],
    "outputs": [TENSOR],
}


def test_a_worker_is_named_by_all_that_is_said_of_its_model() -> None:
    model = served_model(LEAST)
    said = dict(wire_value(model))
    assert said.pop("worker") == model.worker
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    assert model.worker == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert '"queue":64' in text, "what is not said is said by its default"
    assert served_model({**LEAST, "sessions": 1}).worker == model.worker
    assert worker_of(model.model_copy(update={"worker": "0" * 16})) == model.worker


@pytest.mark.parametrize(
    "change",
    [
        {"name": "n"},
        {"version": 2},
        {"blob": OTHER_DIGEST},
        {"size": 6},
        {"task": "t"},
        {"threads": 2},
        {"limits": {"queue": 1}},
        {"inputs": [{**TENSOR, "shape": [3]}]},
    ],
)
def test_whatever_changes_runs_in_a_process_of_its_own(change: dict[str, Any]) -> None:
    assert served_model({**LEAST, **change}).worker != served_model(LEAST).worker


def test_what_is_no_model_is_refused_with_the_code_that_was_asked_for() -> None:
    with pytest.raises(ConfigError) as caught:
        served_model({**LEAST, "inputs": []}, code="request_invalid")
    assert caught.value.code == "request_invalid"


def test_a_model_is_an_object_of_its_own() -> None:
    model = dict(wire_value(served_model(LEAST)))
    before = build(Snapshot, {**snapshot_data()})
    after = build(Snapshot, {**snapshot_data(), "models": [model]})
    (change,) = difference(before, after)
    assert (change.action, change.kind, change.name) == ("create", "Model", "m")
    assert DIGEST in after.blobs()
