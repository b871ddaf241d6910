"""Samples on a real node: nothing by default, then what is named, redacted, bounded, exported and removed."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from onnx import helper, numpy_helper
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node, wait_until
from tests.e2e.wire import HTTP_1, tls_context
from tests.models import digits_files, onnx_files

NUMBER = struct.pack("<ff", 1234.567, 7654.321)
"""Two numbers that nothing else on a disk is."""
HIDDEN = struct.pack("<f", 2345.678)
TEXT = "ana.unlikely@mail.example called from +49 30 5550 1234 with 4111 1111 1111 1111"
SAFE = "[email] called from [phone] with [card]"


@pytest.fixture(scope="module")
def models(start_node: StartNode) -> Node:
    """A node of the module's own."""
    return start_node()


def tagged() -> bytes:
    """`y = 2 * x` and `u = t`: FP32 [batch, 3] and BYTES [batch]."""
    weight = numpy_helper.from_array(np.array(2, np.float32), "factor")
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["y"]),
        helper.make_node("Identity", ["t"], ["u"]),
    ]
    inputs = [onnx_files.tensor("x", ["batch", 3]), onnx_files.tensor("t", ["batch"], "BYTES")]
    outputs = [onnx_files.tensor("y", ["batch", 3]), onnx_files.tensor("u", ["batch"], "BYTES")]
    return onnx_files.file(nodes, inputs, outputs, [weight])


def apply(node: Node, folder: Path, name: str, samples: str | None) -> None:
    """The model in `NAME.onnx`, with these samples."""
    asked = "" if samples is None else f", samples: {samples}"
    text = (
        "apiVersion: vedette.dev/v1alpha1\nkind: Model\n"
        f"metadata: {{name: {name}}}\nspec: {{file: {name}.onnx{asked}}}\n"
    )
    file = folder / f"{name}.yaml"
    file.write_text(text)
    node.run("apply", "--yes", "-f", str(file))


def asking(node: Node) -> httpx.Client:
    held = {"authorization": f"Bearer {node.usual_token}"}
    return httpx.Client(verify=tls_context(node.ca_file, HTTP_1), headers=held)


def ask(node: Node, count: int, text: str = TEXT) -> None:
    """So many requests with two numbers, one that is to be hidden, and a text."""
    content = NUMBER + HIDDEN
    said = text.encode()
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "x",
                    "datatype": "FP32",
                    "shape": [1, 3],
                    "parameters": {"binary_data_size": len(content)},
                },
                {
                    "name": "t",
                    "datatype": "BYTES",
                    "shape": [1],
                    "parameters": {"binary_data_size": 4 + len(said)},
                },
            ]
        }
    ).encode()
    body = head + content + struct.pack("<I", len(said)) + said
    headers = {
        "content-type": "application/octet-stream",
        "inference-header-content-length": str(len(head)),
    }
    with asking(node) as client:
        for _ in range(count):
            url = f"{node.url}/v2/models/tagged/infer"
            answer = client.post(url, content=body, headers=headers)
            assert answer.status_code == 200, answer.text


def found(node: Node, *needles: bytes) -> list[bytes]:
    """Those of `needles` that are in any file of the node."""
    contents = list(_contents(node.path()))
    assert contents
    return [each for each in needles if any(each in content for content in contents)]


def _contents(folder: Path) -> Iterator[bytes]:
    for each in folder.rglob("*"):
        if each.is_file() and not each.is_symlink():
            with suppress(FileNotFoundError):
                yield each.read_bytes()


def shown(node: Node, name: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(node.run("model", "samples", name, "--json").stdout)
    return told


def count(node: Node, name: str) -> int:
    return sum(each["count"] for each in shown(node, name)["versions"])


def exported(node: Node, name: str, out: Path, *flags: str) -> dict[str, Any]:
    node.run("model", "samples", name, "--out", str(out), *flags)
    assert out.stat().st_mode & 0o777 == 0o600
    return dict(np.load(out, allow_pickle=False))


def test_nothing_of_a_request_is_on_the_disk_unless_it_is_asked_for(
    models: Node, tmp_path: Path
) -> None:
    (tmp_path / "tagged.onnx").write_bytes(tagged())
    needles = NUMBER, HIDDEN, b"ana.unlikely", b"5550 1234", b"4111 1111"
    apply(models, tmp_path, "tagged", None)
    ask(models, 20)
    assert "No samples are kept" in models.run("model", "samples", "tagged").stderr
    assert found(models, *needles) == []
    asked = "{share: 100%, inputs: [x, t], redact: {x: [2]}}"
    apply(models, tmp_path, "tagged", asked)
    ask(models, 20)
    wait_until("they are kept", lambda: count(models, "tagged") == 20, every=0.5)
    # What is kept is there, so what is not would have been found as well; and it is not.
    assert found(models, *needles, SAFE.encode()) == [NUMBER, SAFE.encode()]

    arrays = exported(models, "tagged", tmp_path / "s.npz")
    assert arrays["x"].shape == (20, 3)
    assert arrays["x"][:, 2].tolist() == [0.0] * 20
    assert set(arrays["t"].tolist()) == {SAFE}
    assert models.run("model", "show", "tagged").stdout.count("100% of requests: x, t") == 1
    later = ("--since", "2199-01-01T00:00:00Z")
    refused = models.run(
        "model", "samples", "tagged", "--out", str(tmp_path / "n.npz"), *later, check=False
    )
    assert (refused.returncode, (tmp_path / "n.npz").exists()) == (2, False)
    assert "there is no sample" in refused.stderr

    # One input alone, and then none any more.
    apply(models, tmp_path, "tagged", "{share: 100%, inputs: [x]}")
    ask(models, 5, "another text")
    wait_until("they are kept", lambda: count(models, "tagged") == 25, every=0.5)
    assert found(models, b"another text") == []
    apply(models, tmp_path, "tagged", None)
    assert shown(models, "tagged")["asked"] is None
    ask(models, 5)
    assert "Removed 25 samples" in models.run("model", "samples", "tagged", "--delete").stderr
    assert count(models, "tagged") == 0
    assert found(models, NUMBER, SAFE.encode()) == []


def test_a_model_goes_with_its_samples(models: Node, tmp_path: Path) -> None:
    (tmp_path / "tagged.onnx").write_bytes(tagged())
    apply(models, tmp_path, "tagged", "{share: 100%, inputs: [x]}")
    ask(models, 3)
    wait_until("they are kept", lambda: count(models, "tagged") == 3, every=0.5)
    models.run("model", "remove", "tagged")
    assert list(models.path("control", "samples").glob("tagged*")) == []


def test_samples_calibrate_the_model_that_they_are_of(models: Node, tmp_path: Path) -> None:
    (tmp_path / "digits.onnx").write_bytes(digits_files.perceptron())
    apply(models, tmp_path, "digits", "{share: 100%, inputs: [pixels]}")
    pixels, _ = digits_files.pictures()
    with asking(models) as client:
        for start in range(0, 200, 10):
            rows = pixels[start : start + 10]
            given = {
                "name": "pixels",
                "datatype": "FP32",
                "shape": [10, 64],
                "data": rows.ravel().tolist(),
            }
            url = f"{models.url}/v2/models/digits/infer"
            assert client.post(url, json={"inputs": [given]}).status_code == 200
    wait_until("they are kept", lambda: count(models, "digits") == 20, every=0.5)
    arrays = exported(models, "digits", tmp_path / "s.npz", "--since", "1h")
    assert np.array_equal(arrays["pixels"], pixels[:200])
    labelled = digits_files.save_samples(tmp_path / "l.npz", 1300, 1797, (64,), labels=True)
    flags = ("--calibrate", str(tmp_path / "s.npz"), "--samples", str(labelled), "--json")
    told = json.loads(models.run("model", "quantize", "digits", *flags).stdout)
    assert told["calibratedOn"] == 200
    assert told["accuracy"]["drop"] <= 0.01
    status = json.loads(models.run("model", "show", "digits", "--json").stdout)
    assert status["samples"]["inputs"] == ["pixels"]
    models.run("model", "promote", "digits", "--version", str(told["version"]["version"]))
    assert shown(models, "digits")["asked"] is None, "another version has to ask for itself"
