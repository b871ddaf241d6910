"""What counts as lost: by labels, by classes, by direction, by length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper
from tests.models import onnx_files

from vedette.errors import ConfigError
from vedette.models.quantize_measure import compare, inputs_of
from vedette.models.quantize_samples import Samples

RNG = np.random.default_rng(4)
PICTURES = RNG.normal(size=(40, 3)).astype(np.float32)


def scaled(folder: Path, name: str, weights: Any, after: str | None = None) -> Path:
    """`y = x * weights` [n, 3], perhaps with one more operator; x and y in a file."""
    outputs, nodes = "y", [helper.make_node("Mul", ["x", "w"], ["z" if after else "y"])]
    kind = "FP32"
    shape: list[Any] = ["n", 3]
    if after == "ArgMax":
        nodes.append(helper.make_node(after, ["z"], ["y"], axis=1, keepdims=0))
        kind, shape = "INT64", ["n"]
    elif after == "ReduceSum":
        axes = numpy_helper.from_array(np.array([1]), "axes")
        nodes.append(helper.make_node(after, ["z", "axes"], ["y"], keepdims=1))
        shape = ["n", 1]
    elif after:
        nodes.append(helper.make_node(after, ["z"], ["y"]))
    constants = [numpy_helper.from_array(np.array(weights, np.float32), "w")]
    if after == "ReduceSum":
        constants.append(axes)
    file = folder / name
    file.write_bytes(
        onnx_files.file(
            nodes,
            [onnx_files.tensor("x", ["n", 3])],
            [onnx_files.tensor(outputs, shape, kind)],
            constants,
        )
    )
    return file


def measured(
    folder: Path,
    old: Any,
    new: Any,
    after: str | None = None,
    labels: np.ndarray[Any, Any] | None = None,
) -> dict[str, Any]:
    before, then = scaled(folder, "old.onnx", old, after), scaled(folder, "new.onnx", new, after)
    found, *millis = compare(before, then, Samples({"x": PICTURES}, labels, None), None)
    assert all(each is not None and each > 0 for each in millis)
    assert found is not None
    assert found["samples"] == 40
    return found


def test_nothing_is_lost_between_a_model_and_itself(tmp_path: Path) -> None:
    for after in (None, "Softmax", "ArgMax", "ReduceSum"):
        found = measured(tmp_path, [1, 2, 3], [1, 2, 3], after)
        assert found["drop"] == pytest.approx(0, abs=1e-6), after


def test_rows_are_compared_by_their_direction(tmp_path: Path) -> None:
    found = measured(tmp_path, [1, 1, 1], [2, 2, 2])
    assert (found["measure"], found["drop"]) == ("cosine", pytest.approx(0, abs=1e-6))
    found = measured(tmp_path, [1, 1, 1], [1, 1, -1])
    turned = PICTURES * [1, 1, -1]
    cosines = np.sum(PICTURES * turned, 1) / np.sum(PICTURES**2, 1)
    assert found["drop"] == pytest.approx(1 - cosines.mean(), abs=1e-5)


def test_probabilities_are_compared_by_the_highest(tmp_path: Path) -> None:
    found = measured(tmp_path, [1, 1, 1], [1, 1, -1], "Softmax")
    same = np.mean(PICTURES.argmax(1) == (PICTURES * [1, 1, -1]).argmax(1))
    assert (found["measure"], found["drop"]) == ("top1", pytest.approx(1 - same))
    assert f"{same:.2%} of the samples" in found["sentence"]


def test_classes_are_compared_as_they_are(tmp_path: Path) -> None:
    found = measured(tmp_path, [1, 1, 1], [1, 1, -1], "ArgMax")
    same = np.mean(PICTURES.argmax(1) == (PICTURES * [1, 1, -1]).argmax(1))
    assert (found["measure"], found["drop"]) == ("top1", pytest.approx(1 - same))


def test_one_number_is_compared_by_its_size(tmp_path: Path) -> None:
    found = measured(tmp_path, [1, 1, 1], [1.5, 1.5, 1.5], "ReduceSum")
    assert (found["measure"], found["drop"]) == ("error", pytest.approx(0.5, abs=1e-5))


@pytest.mark.parametrize("after", [None, "ArgMax"])
def test_with_labels_right_answers_count_and_more_of_them_is_no_loss(
    tmp_path: Path, after: str | None
) -> None:
    labels = PICTURES.argmax(1)
    found = measured(tmp_path, [1, 1, 1], [1, 1, -1], after, labels)
    right = np.mean((PICTURES * [1, 1, -1]).argmax(1) == labels)
    assert (found["measure"], found["before"]) == ("labels", 1.0)
    assert found["drop"] == pytest.approx(1 - right)
    better = measured(tmp_path, [1, 1, -1], [1, 1, 1], after, labels)
    assert (better["after"], better["drop"]) == (1.0, 0.0)


def test_values_that_are_no_numbers_any_more_are_all_lost(tmp_path: Path) -> None:
    found = measured(tmp_path, [1, 1, 1], [1, np.nan, 1])
    assert (found["measure"], found["drop"]) == ("finite", 1.0)


def test_labels_that_fit_no_output_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        measured(tmp_path, [1, 1, 1], [1, 1, 1], "ReduceSum", np.zeros(40, np.int64))
    assert caught.value.code == "samples_invalid"


def test_what_a_model_takes_is_told_in_words_of_numpy(tmp_path: Path) -> None:
    file = scaled(tmp_path, "m.onnx", [1, 1, 1])
    assert inputs_of(file) == {"x": ("float32", ["n", 3])}
    file.write_bytes(onnx_files.identity("BYTES"))
    with pytest.raises(ConfigError) as caught:
        inputs_of(file)
    assert "tensor(string)" in caught.value.message
