"""`stream` of a Model: what is meant where something is left out, and what does not fit the model."""

from __future__ import annotations

from typing import Any

import pytest
from tests.config.test_media_manifest import extra, tensor
from tests.config.test_served import LEAST

from vedette.config.media_manifest import MediaSpec
from vedette.config.model import build, wire_value
from vedette.config.served import ServedModel, served_model
from vedette.errors import ConfigError

INPUTS = (
    tensor("input", "FP32", 0, 0),
    tensor("state", "FP32", 2, 0, 128),
    tensor("sr", "INT64"),
)
OUTPUTS = (tensor("output", "FP32", 0, 1), tensor("stateN", "FP32", 0, 0, 0))
STATE = [{"input": "state", "output": "stateN"}]
USUAL: dict[str, Any] = {"size": 512, "context": 64, "state": STATE, "constants": {"sr": 16_000}}


def served(
    inputs: tuple[Any, ...] = INPUTS,
    outputs: tuple[Any, ...] = OUTPUTS,
    format_: str = "onnx",
    **stream: Any,
) -> ServedModel:
    media = build(MediaSpec, {"stream": stream}).resolve(inputs, outputs, extra)
    tensors = {
        "inputs": [wire_value(each) for each in inputs],
        "outputs": [wire_value(each) for each in outputs],
    }
    return served_model({**LEAST, **tensors, **media, "format": format_})


def test_the_models_shape_says_what_a_manifest_does_not() -> None:
    assert wire_value(served(**USUAL))["stream"] == {
        "tensor": "input",
        "shape": [1, 576],
        "context": 64,
        "state": [{"input": "state", "output": "stateN", "shape": [2, 1, 128]}],
        "constants": [{"input": "sr", "value": 16_000}],
        "score": "output",
    }


def test_a_model_with_one_size_needs_none() -> None:
    inputs = (tensor("x", "INT8", 1, 3, 40), tensor("h", "FP32", 4))
    outputs = (tensor("y", "FP32", 1, 2), tensor("next", "FP32", 4), tensor("z", "FP32", 1))
    state = [{"input": "h", "output": "next"}]
    model = served(inputs, outputs, state=state, score="y", place=1, threshold=0.9)
    stream = wire_value(model)["stream"]
    assert (stream["shape"], stream["score"], stream["place"]) == ([1, 3, 40], "y", 1)
    assert stream["threshold"] == 0.9


def test_what_changes_it_runs_in_a_process_of_its_own() -> None:
    assert served(**USUAL).worker != served(**USUAL, threshold=0.5).worker


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": None}, "say how many an event has"),
        ({"size": 16_384}, "at most 65,536 bytes"),
        ({"event": "x"}, "no 'x'"),
        ({"event": "sr"}, "is a single number"),
        ({"constants": {}}, "say which of input, state, sr"),
        ({"constants": {}, "event": "input"}, "nothing is given for sr"),
        ({"constants": {"sr": 16_000, "x": 1}}, "no input 'x'"),
        ({"constants": {"sr": 16_000, "state": 1}}, "state is fed twice"),
        ({"constants": {"sr": 0.5}}, "INT64, which 0.5 is not"),
        ({"state": [{"input": "x", "output": "stateN"}], "event": "input"}, "no input 'x'"),
        ({"state": [{"input": "state", "output": "y"}], "score": "output"}, "no output 'y'"),
        ({"state": [{**STATE[0], "shape": [2, 1, 64]}]}, "is [2, any, 128], and not [2, 1, 64]"),
        ({"state": [{**STATE[0], "shape": [2, 1]}]}, "is [2, any, 128], and not [2, 1]"),
        ({"state": [{"input": "state", "output": "output"}]}, "output is [any, 1], and not"),
        ({"score": "y"}, "no 'y'"),
        ({"state": []}, "state"),
        ({"threshold": "high"}, "threshold"),
    ],
)
def test_what_does_not_fit_is_told(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        served(**{**USUAL, **change})
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("event", "state", "score", "more", "words"),
    [
        ("BYTES", "FP32", "FP32", {}, "x is BYTES, and an event is numbers"),
        ("BOOL", "FP32", "FP32", {}, "x is BOOL, and an event is numbers"),
        ("FP32", "BYTES", "FP32", {}, "h is texts"),
        ("FP32", "FP16", "FP32", {}, "h is FP16, and next FP32"),
        ("FP32", "FP32", "INT64", {}, "y is INT64"),
        ("FP32", "FP32", "FP32", {"place": 2}, "y has 2 elements"),
        ("FP32", "FP32", "FP32", {"context": 2}, "at least one element of its own"),
    ],
)
def test_only_numbers_are_events_and_scores(
    event: str, state: str, score: str, more: dict[str, Any], words: str
) -> None:
    given = "BYTES" if state == "BYTES" else "FP32"
    inputs = (tensor("x", event, 2), tensor("h", state, 4))
    outputs = (tensor("y", score, 2), tensor("next", given, 4))
    with pytest.raises(ConfigError) as caught:
        served(inputs, outputs, state=[{"input": "h", "output": "next"}], **more)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("datatype", "value", "is_one"),
    [
        ("UINT8", 255, True),
        ("UINT8", 256, False),
        ("UINT8", -1, False),
        ("INT8", -128, True),
        ("INT8", 128, False),
        ("FP32", 0.5, True),
        ("FP16", 0.5, False),
        ("BOOL", 1, False),
        ("BYTES", 1, False),
    ],
)
def test_a_constant_is_one_of_its_type(datatype: str, value: float, is_one: bool) -> None:
    inputs = (tensor("x", "FP32", 2), tensor("h", "FP32", 4), tensor("c", datatype))
    outputs = (tensor("y", "FP32", 2), tensor("next", "FP32", 4))
    said = {"state": [{"input": "h", "output": "next"}], "constants": {"c": value}}
    if is_one:
        served(inputs, outputs, **said)
        return
    with pytest.raises(ConfigError, match=f"c is {datatype}"):
        served(inputs, outputs, **said)


def test_rows_have_nothing_before_them() -> None:
    inputs = (tensor("x", "FP32", 2, 0), tensor("h", "FP32", 4))
    outputs = (tensor("y", "FP32", 2), tensor("next", "FP32", 4))
    with pytest.raises(ConfigError, match="more than one row"):
        served(inputs, outputs, size=3, context=1, state=[{"input": "h", "output": "next"}])


def test_only_a_model_of_onnx_has_one() -> None:
    with pytest.raises(ConfigError, match="only a model of ONNX"):
        served(format_="tflite", **USUAL)
