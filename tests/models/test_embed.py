"""Weights that lie in other files: put into the model's own, of files that are listed by digest and no other."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.models import workers

from vedette.errors import VedetteError
from vedette.models.embed import embedded

WEIGHTS = np.arange(4096, dtype=np.float32).reshape(64, 64)
DATA = "model.onnx.data"


def digest(file: Path) -> str:
    return f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"


def save(model: onnx.ModelProto, file: Path, location: str = DATA) -> None:
    onnx.save(
        model,
        file,
        save_as_external_data=True,
        location=location,
        size_threshold=0,
        convert_attribute=True,
    )


def product() -> onnx.ModelProto:
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["m"]),
            # In an attribute, of a node within a branch.
            helper.make_node(
                "If",
                ["yes"],
                ["y"],
                then_branch=helper.make_graph(
                    [
                        helper.make_node("Constant", [], ["c"], value=constant("c", 3)),
                        helper.make_node("Add", ["m", "c"], ["s"]),
                    ],
                    "then",
                    [],
                    [helper.make_tensor_value_info("s", TensorProto.FLOAT, [1, 64])],
                ),
                else_branch=helper.make_graph(
                    [helper.make_node("Identity", ["m"], ["i"])],
                    "else",
                    [],
                    [helper.make_tensor_value_info("i", TensorProto.FLOAT, [1, 64])],
                ),
            ),
        ],
        "product",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64]),
            helper.make_tensor_value_info("yes", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


def constant(name: str, value: float) -> TensorProto:
    return numpy_helper.from_array(np.full((1, 64), value, np.float32), name)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "model.onnx"
    save(product(), file)
    assert (tmp_path / DATA).stat().st_size >= WEIGHTS.nbytes
    return file


def refusal(model: Path, data: dict[str, str]) -> VedetteError:
    with pytest.raises(VedetteError) as caught, embedded(model, data):
        pass
    return caught.value


def edited(model: Path, **entries: str) -> None:
    """Other words about where the first tensor lies."""
    read = onnx.load(model, load_external_data=False)
    tensor = read.graph.initializer[0]
    said = {each.key: each.value for each in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, value in said.items():
        tensor.external_data.add(key=key, value=value)
    model.write_bytes(read.SerializeToString())


def answer(content: bytes, **given: Any) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, given)[0])


def test_what_was_beside_is_within_and_the_node_takes_it_in(model: Path) -> None:
    assert workers.inspect(model)["error"]["code"] == "model_reaches_out"
    with embedded(model, {DATA: digest(model.with_name(DATA))}) as made:
        content = made.read_bytes()
        assert "error" not in workers.inspect(made)
    x = np.ones((1, 64), np.float32)
    assert np.array_equal(answer(content, x=x, yes=np.array(True)), x @ WEIGHTS + 3)
    assert not made.exists()


def test_the_same_files_make_the_same_one(model: Path) -> None:
    contents = set()
    for _ in range(2):
        with embedded(model, {DATA: digest(model.with_name(DATA))}) as made:
            contents.add(made.read_bytes())
    assert len(contents) == 1


def test_a_file_that_is_not_listed_is_not_read(model: Path) -> None:
    error = refusal(model, {})
    assert error.code == "model_reaches_outside"
    assert f"'{DATA}', which is not listed" in error.message
    assert f"--data {DATA}=sha256:" in str(error.hint)


def test_a_file_with_another_digest_is_refused(model: Path) -> None:
    listed = digest(model.with_name(DATA))
    content = bytearray(model.with_name(DATA).read_bytes())
    content[7] ^= 1
    model.with_name(DATA).write_bytes(content)
    error = refusal(model, {DATA: listed})
    assert error.code == "digest_mismatch"
    assert listed in error.message


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../outside"])
def test_names_that_lead_out_are_refused_though_they_are_listed(model: Path, name: str) -> None:
    outside = model.parent.parent / "outside"
    outside.write_bytes(b"secret")
    edited(model, location=name)
    assert refusal(model, {name: digest(outside)}).code == "model_reaches_outside"
    # Nor does the model lead anybody to what is not listed.
    assert refusal(model, {DATA: digest(model.with_name(DATA))}).code == "model_reaches_outside"


def test_a_link_out_of_the_folder_is_refused(model: Path, tmp_path_factory: Any) -> None:
    outside = tmp_path_factory.mktemp("outside") / "weights"
    outside.write_bytes(model.with_name(DATA).read_bytes())
    model.with_name(DATA).unlink()
    os.symlink(outside, model.with_name(DATA))
    assert refusal(model, {DATA: digest(outside)}).code == "model_reaches_outside"


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"length": "4"}, "has 16,384 bytes"),
        ({"offset": "16"}, "at 16"),
        ({"offset": "-1"}, "at no place of a file"),
        ({"offset": "9" * 30}, "at no place of a file"),
        ({"offset": "999999999999"}, "at 999,999,999,999"),
        ({"length": str(1 << 40)}, "1,099,511,627,776"),
    ],
)
def test_a_tensor_gets_as_many_bytes_as_its_shape_says(
    model: Path, entries: dict[str, str], words: str
) -> None:
    whole = model.with_name(DATA)
    if "offset" in entries:
        # The second tensor's bytes would do for its end.
        whole.write_bytes(whole.read_bytes()[: WEIGHTS.nbytes])
    edited(model, **entries)
    error = refusal(model, {DATA: digest(whole)})
    assert (error.code, words in error.message) == ("model_invalid", True), error.message


def test_what_is_listed_for_nothing_is_told(model: Path) -> None:
    other = model.with_name("other.data")
    other.write_bytes(b"")
    listed = {DATA: digest(model.with_name(DATA)), "other.data": digest(other)}
    error = refusal(model, listed)
    assert (error.code, "'other.data'" in error.message) == ("request_invalid", True)


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x80\x02]q\x00."])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    if content:
        assert refusal(file, {}).code == "model_invalid"
    else:  # an empty message: the node says that it has no graph
        with embedded(file, {}) as made:
            assert workers.inspect(made)["error"]["code"] == "model_invalid"
