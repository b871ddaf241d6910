"""Versions of models on a real node: one takes the place of another without a failed call."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from onnx import helper, numpy_helper
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node
from tests.e2e.wire import HTTP_1, HTTP_2, tls_context
from tests.models import onnx_files

ROUTED = """\
apiVersion: vedette.dev/v1alpha1
kind: Model
metadata: {name: declared}
spec: {file: declared.onnx, sessions: 2}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: classify}
spec:
  rules:
    - matches: [{path: {value: /classify}}]
      backendRefs: [{kind: Model, name: declared}]
"""


def times(factor: float) -> bytes:
    """`y = factor * x`, FP32 [batch, 3]."""
    weight = numpy_helper.from_array(np.array(factor, np.float32), "factor")
    nodes = [helper.make_node("Mul", ["x", "factor"], ["y"])]
    tensors = [onnx_files.tensor(name, ["batch", 3]) for name in ("x", "y")]
    return bytes(onnx_files.file(nodes, [tensors[0]], [tensors[1]], [weight]))


@pytest.fixture(scope="module")
def models(start_node: StartNode) -> Node:
    """A node of the module's own."""
    return start_node()


def add(node: Node, folder: Path, content: bytes, name: str, *flags: str) -> dict[str, Any]:
    file = folder / "m.onnx"
    file.write_bytes(content)
    done = node.run("model", "add", str(file), "--name", name, "--json", *flags)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def predicted(node: Node, name: str, given: str = "[[1, 2, 3]]") -> list[float]:
    answer = json.loads(node.run("predict", name, given, "--json").stdout)
    values: list[float] = answer["outputs"][0]["data"]
    return values


def test_a_model_answers_goes_on_and_comes_back(models: Node, tmp_path: Path) -> None:
    first = add(models, tmp_path, times(2), "m", "--task", "scaling")
    assert first["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [0, 3]}]
    assert first["runtime"].startswith("onnxruntime ")
    assert predicted(models, "m") == [2, 4, 6]
    np.save(tmp_path / "x.npy", np.array([[4, 5, 6]], np.float32))
    assert predicted(models, "m", str(tmp_path / "x.npy")) == [8, 10, 12]
    assert add(models, tmp_path, times(3), "m")["version"] == 2
    assert predicted(models, "m") == [3, 6, 9]
    models.run("model", "rollback", "m")
    assert predicted(models, "m") == [2, 4, 6]
    status = json.loads(models.run("model", "show", "m", "--json").stdout)
    assert (status["version"], status["worker"]["state"]) == (1, "ready")
    assert {each["version"]: each["state"] for each in status["versions"]} == {
        2: "previous",
        1: "serving",
    }
    models.run("rollback")
    assert predicted(models, "m") == [3, 6, 9], "the node goes back on the rollback of the model"


def test_who_has_no_token_is_not_answered_and_records_name_the_version(
    models: Node, tmp_path: Path
) -> None:
    added = add(models, tmp_path, times(2), "recorded")
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
    with httpx.Client(verify=tls_context(models.ca_file, HTTP_1)) as client:
        refused = client.post(f"{models.url}/v2/models/recorded/infer", json=body)
        assert refused.status_code == 401
        held = {"authorization": f"Bearer {models.usual_token}"}
        answer = client.post(f"{models.url}/v2/models/recorded/infer", json=body, headers=held)
        assert answer.status_code == 200, answer.text
    record = models.record(answer.headers["x-request-id"])
    assert (record["model"], record["modelVersion"], record["tier"]) == ("recorded", 1, "edge")
    assert record["modelDigest"] == added["file"]
    assert record["runMicros"] >= 0


def test_no_call_fails_while_one_version_takes_the_place_of_another(
    models: Node, tmp_path: Path
) -> None:
    add(models, tmp_path, times(2), "busy")
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
    headers = {"authorization": f"Bearer {models.usual_token}"}
    found: list[tuple[int, Any]] = []
    done, begun = threading.Event(), threading.Event()

    def ask() -> None:
        with httpx.Client(verify=tls_context(models.ca_file, HTTP_2), http2=True) as client:
            while not done.is_set():
                answer = client.post(
                    f"{models.url}/v2/models/busy/infer", json=body, headers=headers
                )
                said = answer.json()
                data = said["outputs"][0]["data"] if answer.status_code == 200 else said
                found.append((answer.status_code, data))
                begun.set()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        assert begun.wait(60)
        for factor in (3, 4):
            add(models, tmp_path, times(factor), "busy")
        known = len(found)
        assert predicted(models, "busy") == [4, 8, 12]
    finally:
        done.set()
        asking.join()
    assert {status for status, _ in found} == {200}, [each for each in found if each[0] != 200][:3]
    order = [data[0] for _, data in found]
    assert order == sorted(order), "no answer of an older version after one of a newer"
    assert known > 0
    assert order[0] == 2


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("external", "in another file"),
        ("custom_domain", "domain"),
        ("broken", "is not ONNX"),
        ("nonsense", "error:"),
    ],
)
def test_a_model_that_cannot_be_run_is_told_and_nothing_changes(
    models: Node, tmp_path: Path, kind: str, code: str
) -> None:
    before = models.status()["snapshot"]
    content = {
        "external": onnx_files.external,
        "custom_domain": onnx_files.custom_domain,
        "broken": lambda: times(2)[:-5],
        "nonsense": lambda: b"\x08\x09\x3a\x04\xff\xff\xff\xff",
    }[kind]()
    (tmp_path / "m.onnx").write_bytes(content)
    done = models.run("model", "add", str(tmp_path), "--name", "bad", check=False)
    assert done.returncode == 2, done.stderr
    assert code in done.stderr
    assert models.status()["snapshot"] == before
    assert "bad" not in models.run("model", "list").stdout


def test_a_manifest_leads_to_a_model_by_a_route_of_its_own(models: Node, tmp_path: Path) -> None:
    (tmp_path / "declared.onnx").write_bytes(times(5))
    (tmp_path / "edge.yaml").write_text(ROUTED)
    planned = models.run("plan", "-f", str(tmp_path), check=False)
    assert planned.returncode == 2, planned.stderr
    models.run("apply", "-f", str(tmp_path), "--yes")
    assert predicted(models, "declared") == [5, 10, 15]
    assert models.run("plan", "-f", str(tmp_path)).returncode == 0
    routes = models.run("routes").stdout
    assert "Model declared" in routes
    assert "model-declared" not in routes
