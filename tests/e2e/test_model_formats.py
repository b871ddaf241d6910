"""Models of TensorFlow Lite, and INT8 ones, on a real node: taken in, asked through the gateway, promoted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node
from tests.models import digits_files, tflite_files


@pytest.fixture(scope="module")
def models(start_node: StartNode) -> Node:
    """A node of the module's own."""
    return start_node()


def shown(node: Node, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(node.run("model", "show", name, "--json").stdout)
    return found


def test_a_model_of_tensorflow_lite_is_served_as_any_other(models: Node, tmp_path: Path) -> None:
    file = tmp_path / "squares.tflite"
    file.write_bytes(tflite_files.squares())
    done = models.run("model", "add", str(file), "--name", "squares", "--json")
    added = json.loads(done.stdout)
    assert added["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [0, 4]}]
    assert added["runtime"].startswith("litert 2.")
    for given, wanted in (
        ("[[1, 2, 3, 4]]", [1, 2, 2]),
        ("[[1, 2, 3, 4], [5, 6, 7, 8]]", [2, 2, 2]),
    ):
        answer = json.loads(models.run("predict", "squares", given, "--json").stdout)
        (output,) = answer["outputs"]
        assert output["shape"] == wanted
        assert output["data"][:4] == [2, 3, 4, 5]
    status = shown(models, "squares")
    assert (status["format"], status["worker"]["state"]) == ("tflite", "ready")
    file.write_bytes(tflite_files.custom("FlexErf"))
    refused = models.run("model", "add", str(file), "--name", "squares", check=False)
    assert "FlexErf" in refused.stderr
    assert refused.returncode != 0
    assert shown(models, "squares")["version"] == 1


def test_an_int8_model_is_the_next_version_and_serves_when_it_is_promoted(
    models: Node, tmp_path: Path
) -> None:
    file = tmp_path / "digits.onnx"
    file.write_bytes(digits_files.perceptron())
    models.run("model", "add", str(file), "--name", "digits")
    calibration = digits_files.save_samples(tmp_path / "c.npz", 0, 200, (64,), labels=False)
    samples = digits_files.save_samples(tmp_path / "s.npz", 1300, 1797, (64,), labels=True)
    measured = ("--calibrate", str(calibration), "--samples", str(samples))
    done = models.run("model", "quantize", "digits", *measured, "--json")
    told = json.loads(done.stdout)
    assert told["accuracy"]["drop"] <= 0.01
    assert told["after"]["bytes"] < told["before"]["bytes"]
    assert (told["version"]["version"], told["version"]["promoted"]) == (2, False)
    assert shown(models, "digits")["version"] == 1
    models.run("model", "promote", "digits", "--version", "2")
    pixels, digits = digits_files.pictures()
    np.save(tmp_path / "x.npy", pixels[1300:1320])
    answer = json.loads(models.run("predict", "digits", str(tmp_path / "x.npy"), "--json").stdout)
    scores = np.array(answer["outputs"][0]["data"]).reshape(20, 10)
    assert np.mean(scores.argmax(1) == digits[1300:1320]) >= 0.9
    again = models.run("model", "quantize", "digits", *measured, check=False)
    assert "it is quantised already" in again.stderr
    spoilt = models.run("model", "quantize", "digits", "--promote", check=False)
    assert "what was not measured is not promoted" in spoilt.stderr
