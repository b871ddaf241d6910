"""Pictures and texts through the whole node: a folder taken in, the gateway, labels, boxes, an embedding."""

from __future__ import annotations

import io
import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from tests.e2e.node import Node, new_home
from tests.support import light, minilm, pages
from tests.support.pictures import encoded, picture

CLASSES = """
task: image-classification
input:
  image: {resize: crop, shorterSide: 256, scale: 1.0}
output:
  labels: {names: names.txt, top: 3}
"""

FIXED = """
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: fixed}
spec:
  public: true
  rules:
    - matches: [{path: {value: /fixed}}]
      static: {body: all is well}
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(new_home())
    try:
        node.start()
        add(node, tmp_path_factory.mktemp("squeeze"), "squeeze", light.squeezenet(), CLASSES)
        yield node
    finally:
        node.discard()


def add(node: Node, folder: Path, name: str, file: bytes, spec: str) -> None:
    (folder / "model.onnx").write_bytes(file)
    (folder / "names.txt").write_text("\n".join(f"class {each}" for each in range(1000)))
    (folder / "model.yaml").write_text(spec)
    node.run("model", "add", str(folder), "--name", name)


def ask(node: Node, name: str, body: bytes, headers: dict[str, str]) -> httpx.Response:
    context = ssl.create_default_context(cafile=str(node.ca_file))
    proof = {"authorization": f"Bearer {node.usual_token}"}
    with httpx.Client(verify=context, timeout=120) as client:
        url = f"{node.url}/v2/models/{name}/infer"
        return client.post(url, content=body, headers={**proof, **headers})


def test_a_folder_is_taken_in_and_a_photo_asked_in_two_commands(node: Node, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(encoded(picture(800, 600), "JPEG"))
    lines = node.run("predict", "squeeze", str(tmp_path / "photo.jpg")).stdout.splitlines()
    assert lines[0] == "label\tscore"
    assert len(lines) == 4
    assert all(line.startswith("class ") for line in lines[1:])
    shown = json.loads(node.run("model", "show", "squeeze", "--json").stdout)
    assert (shown["input"]["type"], shown["output"]["type"]) == ("Image", "Labels")
    assert "a picture, 224 x 224, crop, RGB" in node.run("model", "show", "squeeze").stdout


def test_any_client_sends_a_picture_and_the_record_says_what_it_took(node: Node) -> None:
    answer = ask(node, "squeeze", encoded(picture(80, 60), "JPEG"), {"content-type": "image/jpeg"})
    assert answer.status_code == 200, answer.text
    assert [each["name"] for each in answer.json()["outputs"]] == ["label", "score"]
    line = node.record(answer.headers["x-request-id"])
    assert (line["model"], line["status"]) == ("squeeze", 200)
    assert line["runMicros"] > 0
    refused = ask(node, "squeeze", b"\xff\xd8\xff\xe0 no picture", {"content-type": "image/jpeg"})
    assert refused.status_code == 400
    assert "picture" in refused.json()["error"]
    assert ask(node, "squeeze", b"RIFF", {"content-type": "audio/wav"}).status_code == 415


def test_what_a_model_does_not_take_it_refuses_itself_and_the_firewall_that_of_others(
    node: Node, tmp_path: Path
) -> None:
    """The Core Rule Set's list of types is for those who read any (920420)."""
    types = ("image/webp", "image/svg+xml", "video/mp4", "application/pdf", "text/csv", "text/html")
    for kind in types:
        answer = ask(node, "squeeze", b"RIFF0000WEBPVP8 ", {"content-type": kind})
        assert answer.status_code == 415, (kind, answer.text)
        assert answer.json()["error"] == (
            f"{kind} is not what the model takes, which is image/jpeg, image/png, or tensors"
        )
        line = node.record(answer.headers["x-request-id"])
        assert (line["cause"], line["outcome"]) == ("model_medium", "refused")
    # What is wrong with a type stays the firewall's.
    attack = {"content-type": "image/webp; charset=() { :;}; /bin/sh"}
    assert ask(node, "squeeze", b"x", attack).status_code == 403
    (tmp_path / "fixed.yaml").write_text(FIXED, "utf-8")
    node.run("apply", "--yes", str(tmp_path / "fixed.yaml"))
    context = ssl.create_default_context(cafile=str(node.ca_file))
    proof = {"authorization": f"Bearer {node.usual_token}"}
    with httpx.Client(verify=context, timeout=120) as client:
        for kind, status in (("image/webp", 403), ("application/pdf", 403), ("image/png", 200)):
            headers = {**proof, "content-type": kind}
            answer = client.post(f"{node.url}/fixed", content=b"x", headers=headers)
            assert answer.status_code == status, (kind, answer.text)


def test_a_version_that_does_not_say_keeps_how_it_is_fed(node: Node, tmp_path: Path) -> None:
    (tmp_path / "again.onnx").write_bytes(light.squeezenet())
    node.run("model", "add", str(tmp_path / "again.onnx"), "--name", "squeeze", "--threads", "2")
    answer = ask(node, "squeeze", encoded(picture(30, 40)), {"content-type": "image/png"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["data"][0].startswith("class ")


def test_boxes_are_printed_and_drawn(node: Node, tmp_path: Path) -> None:
    folder = tmp_path / "layout"
    folder.mkdir()
    add(node, folder, "layout", pages.model().read_bytes(), json.dumps(pages.SPEC))
    (tmp_path / "page.png").write_bytes(encoded(pages.page()))
    out = tmp_path / "drawn.png"
    told = node.run("predict", "layout", str(tmp_path / "page.png"), "--draw", str(out))
    lines = [line.split("\t") for line in told.stdout.splitlines()]
    assert lines[0] == ["label", "score", "x1", "y1", "x2", "y2"]
    (table,) = [line for line in lines if line[0] == "table"]
    assert abs(int(table[2]) - 80) < 20
    with Image.open(out) as drawn:
        apart = np.asarray(drawn.convert("RGB"), np.int16) - np.asarray(pages.page(), np.int16)
    assert (np.abs(apart).sum(-1) > 60).any()


TEXT = {"content-type": "text/plain; charset=utf-8"}


def test_a_text_becomes_a_vector_and_an_attack_in_it_is_refused(node: Node, tmp_path: Path) -> None:
    folder = tmp_path / "minilm"
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes((minilm.folder() / "tokenizer.json").read_bytes())
    spec = "input: {text: {tokenizer: tokenizer.json, maxTokens: 128}}\noutput: {embedding: {}}\n"
    add(node, folder, "minilm", minilm.model().SerializeToString(), spec)
    told = json.loads(node.run("predict", "minilm", "--text", "A guitar", "--json").stdout)
    (output,) = told["outputs"]
    assert (output["name"], output["shape"]) == ("embedding", [1, 384])
    assert abs(sum(each * each for each in output["data"]) - 1) < 1e-3
    answer = ask(node, "minilm", b"A guitar", TEXT)
    assert answer.status_code == 200, answer.text
    attack = b"1' UNION SELECT password FROM users WHERE '1'='1"
    assert ask(node, "minilm", attack, TEXT).status_code == 403
    head = b'{"parameters":{"binary_data_output":true}}'
    length = {"inference-header-content-length": str(len(head))}
    hidden = ask(node, "minilm", head + attack, {**TEXT, **length})
    assert hidden.status_code == 403, "JSON before it hides nothing"
    assert ask(node, "minilm", head + b"A guitar", {**TEXT, **length}).status_code == 200


def test_a_manifest_brings_the_files_it_names_and_twice_is_no_change(
    node: Node, tmp_path: Path
) -> None:
    (tmp_path / "m.onnx").write_bytes(light.squeezenet())
    (tmp_path / "names.txt").write_text("only one\n")
    manifest = {
        "apiVersion": "vedette.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": "declared"},
        "spec": {
            "file": "m.onnx",
            "input": {"image": {}},
            "output": {"labels": {"names": "names.txt", "top": 1000}},
        },
    }
    path = tmp_path / "model.yaml"
    path.write_text(json.dumps(manifest))
    node.run("apply", str(path), "--yes")
    photo = io.BytesIO()
    picture(50, 50).save(photo, "PNG")
    answer = ask(node, "declared", photo.getvalue(), {"content-type": "image/png"})
    assert answer.status_code == 200, answer.text
    assert "only one" in answer.json()["outputs"][0]["data"]
    assert node.run("plan", str(path)).stdout.startswith("No changes.")
