"""`samples` of a Model: what is meant, and what cannot be kept."""

from __future__ import annotations

from typing import Any

import pytest
from tests.config.test_media_manifest import tensor
from tests.config.test_served import LEAST

from vedette.config.model import build, wire_value
from vedette.config.model_manifest import ModelSpec
from vedette.config.samples_manifest import SamplesSpec
from vedette.config.served import ServedModel, served_model
from vedette.errors import ConfigError

INPUTS = (tensor("x", "FP32", 0, 4), tensor("t", "BYTES", 0), tensor("n", "INT64"))


def resolved(**said: Any) -> dict[str, Any]:
    return build(SamplesSpec, said).resolve()


def served(samples: dict[str, Any], format_: str = "onnx") -> ServedModel:
    inputs = [wire_value(each) for each in INPUTS]
    return served_model({**LEAST, "inputs": inputs, "format": format_, "samples": samples})


def test_nothing_is_kept_of_a_model_whose_manifest_says_nothing() -> None:
    assert build(ModelSpec, {"file": "m.onnx"}).samples is None
    assert "samples" not in wire_value(served_model(LEAST))


def test_what_is_left_out_is_little_and_for_a_week() -> None:
    assert resolved(inputs=["x"]) == {
        "perMillion": 10_000,
        "inputs": ["x"],
        "redact": [],
        "keepMillis": 7 * 86_400_000,
        "bytes": 64 << 20,
    }


def test_what_is_said_is_what_a_snapshot_says() -> None:
    said = resolved(
        share="0.05%", inputs=["x", "t"], redact={"x": [3, 1, 3]}, keep="1h", bytes="1MB"
    )
    assert said == {
        "perMillion": 500,
        "inputs": ["x", "t"],
        "redact": [{"input": "x", "places": [1, 3]}],
        "keepMillis": 3_600_000,
        "bytes": 1 << 20,
    }
    assert served(said).samples is not None


@pytest.mark.parametrize("share", ["0%", "101%", "1", "0.00001%", "-1%", "1 %%", "٣%"])
def test_a_share_that_is_none_is_refused(share: str) -> None:
    with pytest.raises(ConfigError, match="is no share"):
        resolved(inputs=["x"], share=share)


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"inputs": []},
        {"inputs": "all"},
        {"inputs": ["x"], "keep": "366d"},
        {"inputs": ["x"], "keep": "59s"},
        {"inputs": ["x"], "bytes": "1023KB"},
        {"inputs": ["x"], "bytes": "5GB"},
        {"inputs": ["x"], "redact": {"x": []}},
        {"inputs": ["x"], "redact": {"x": [-1]}},
        {"inputs": ["x"], "outputs": ["y"]},
    ],
)
def test_inputs_are_named_and_bounds_hold(said: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        build(SamplesSpec, said)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"inputs": ["z"]}, "the model has no input 'z'"),
        ({"inputs": ["all"]}, "the model has no input 'all'"),
        ({"inputs": ["x", "x"]}, "x is there twice"),
        ({"inputs": ["t"], "redact": {"x": [0]}}, "x is not among samples.inputs"),
        ({"inputs": ["x"], "redact": {"x": [4]}}, "x has 4 elements in its last dimension"),
        ({"inputs": ["n"], "redact": {"n": [1]}}, "n has 1 elements in its last dimension"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(said: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        served(resolved(**said))


def test_events_of_a_detector_are_not_kept() -> None:
    with pytest.raises(ConfigError, match="events of a detector are not kept"):
        served(resolved(inputs=["x"]), "detector")
