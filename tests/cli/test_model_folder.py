"""A folder that is taken in as a model, with `model.yaml`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vedette.cli.model_folder import model_folder
from vedette.errors import ConfigError
from vedette.ids import digest_of


def folder(path: Path, spec: str | None) -> Path:
    (path / "net.onnx").write_bytes(b"x")
    (path / "names.txt").write_text("cat\ndog\n")
    if spec is not None:
        (path / "model.yaml").write_text(spec)
    return path


def test_a_folder_without_one_is_its_model_alone(tmp_path: Path) -> None:
    found = model_folder(folder(tmp_path, None))
    assert (found.file, found.wish, found.extras) == (tmp_path / "net.onnx", {}, {})


def test_what_it_says_is_wished_and_its_files_go_by_digest(tmp_path: Path) -> None:
    spec = "task: image-classification\nsessions: 2\nidle: 10m\ninput: {image: {resize: fill}}\n"
    found = model_folder(folder(tmp_path, spec + "output: {labels: {names: names.txt, top: 2}}\n"))
    digest = digest_of(b"cat\ndog\n")
    assert found.extras == {digest: tmp_path / "names.txt"}
    assert found.wish["task"] == "image-classification"
    assert found.wish["sessions"] == 2
    assert found.wish["idle"] == "10m"
    assert "threads" not in found.wish, "what is not said stays as it was"
    media = found.wish["media"]
    assert media["input"]["image"]["resize"] == "fill"
    assert media["output"]["labels"]["names"] == digest


def test_without_input_and_output_it_takes_tensors_whatever_was_before(tmp_path: Path) -> None:
    assert model_folder(folder(tmp_path, "task: t\n")).wish["media"] == {}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("input: {image: {sise: 3}}", "sise"),
        ("output: {labels: {names: ../names.txt}}", "names.txt"),
        ("output: {labels: {names: none.txt}}", "none.txt"),
        ("file: ../net.onnx", "net.onnx"),
        ("file: linked.bin", "leads out"),
        ("version: 3", "version"),
        ("&a [*a]", ""),
        ("- 1", ""),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, spec: str, said: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "names.txt").write_text("x")
    (tmp_path / "net.onnx").write_bytes(b"x")
    os.symlink(tmp_path / "net.onnx", inner / "linked.bin")
    with pytest.raises(ConfigError) as caught:
        model_folder(folder(inner, spec))
    assert said in caught.value.message


@pytest.mark.parametrize("spec", [None, "task: t\n"])
@pytest.mark.parametrize("name", ["model.onnx", "net.tflite"])
def test_a_model_that_is_a_link_out_of_its_folder_is_not_read(
    tmp_path: Path, name: str, spec: str | None
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "private.bin").write_bytes(b"x")
    (inner / name).symlink_to("../private.bin")
    if spec is not None:
        (inner / "model.yaml").write_text(spec)
    with pytest.raises(ConfigError) as caught:
        model_folder(inner)
    assert caught.value.code == "manifest_invalid"
    assert "leads out" in caught.value.message


def test_a_link_to_a_model_within_its_folder_is_the_model(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "a.bin").write_bytes(b"x")
    (tmp_path / "model.onnx").symlink_to("weights/a.bin")
    for path in (tmp_path, tmp_path / "model.onnx"):
        assert model_folder(path).file == tmp_path / "model.onnx"
