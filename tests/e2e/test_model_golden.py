"""Golden answers on a real node: a model serves when it gives them, and not before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node
from tests.e2e.test_model_versions import add, predicted, times


@pytest.fixture(scope="module")
def models(start_node: StartNode) -> Node:
    """A node of the module's own."""
    return start_node()


def golden(factor: float, **more: Any) -> str:
    x = {"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [[1, 2, 3], [0, 0, 0.5]]}
    data = (factor * np.array(x["data"])).tolist()
    return json.dumps(
        {"request": {"inputs": [x]}, "outputs": [{**x, "name": "y", "data": data}], **more}
    )


def test_a_model_that_answers_otherwise_is_not_served(models: Node, tmp_path: Path) -> None:
    file = tmp_path / "golden.json"
    file.write_text(golden(2))
    assert add(models, tmp_path, times(2), "m", "--golden", str(file))["golden"] == 1
    (tmp_path / "m.onnx").write_bytes(times(2.01))
    wrong = ["model", "add", str(tmp_path / "m.onnx"), "--name", "m", "--golden", str(file)]
    done = models.run(*wrong, check=False)
    assert done.returncode == 2, done.stderr
    assert "m version 2, golden answer 1: output 'y' differs in 4 of 6 elements" in done.stderr
    assert "at [0,2]: 6.03 instead of 6 (off by 0.03, 0.00601 is allowed)" in done.stderr
    assert predicted(models, "m") == [2, 4, 6]
    near = golden(2, tolerance={"absolute": 0.05, "relative": 0})
    file.write_text(near)
    assert models.run(*wrong).returncode == 0
    assert predicted(models, "m") == pytest.approx([2.01, 4.02, 6.03])


def test_what_it_answers_now_is_what_it_must_answer_later(models: Node, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[4, 5, 6]], np.float32))
    flags = ["--golden-record", "[[1, 2, 3]]", "--golden-record", str(tmp_path / "x.npy")]
    assert add(models, tmp_path, times(3), "r", *flags)["golden"] == 2
    add(models, tmp_path, times(4), "r")
    models.run("model", "rollback", "r")
    assert predicted(models, "r") == [3, 6, 9]
    page = models.run("model", "show", "r").stdout
    assert "\n1\tserving\t2\t" in page
    done = models.run(
        *("model", "add", str(tmp_path / "m.onnx"), "--name", "r", "--golden-record", "[[1]]"),
        check=False,
    )
    assert done.returncode == 2
    assert "golden answer 1 was refused with 400" in done.stderr
