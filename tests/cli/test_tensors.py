"""What people write as input of a model, and how its outputs look."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from vedette.cli.tensors import HEADER_LENGTH, output_rows, question_of
from vedette.errors import ConfigError

ONE = [{"name": "x", "datatype": "FP32", "shape": [0, 3]}]
TWO = [*ONE, {"name": "mask", "datatype": "INT64", "shape": [0]}]


def asked(text: str, inputs: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    question = question_of(text.encode(), inputs or ONE)
    assert question.headers == {"content-type": "application/json"}
    found: list[dict[str, Any]] = json.loads(question.body)["inputs"]
    return found


def npy(shape: str, data: bytes, descr: str = "<f4", order: str = "False") -> bytes:
    """As numpy.save writes it (NEP 1)."""
    header = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def test_lists_become_a_tensor_of_the_models_type() -> None:
    (tensor,) = asked("[[1, 2.5, 3], [4, 5, 6]]")
    assert tensor == {
        "name": "x",
        "datatype": "FP32",
        "shape": [2, 3],
        "data": [1, 2.5, 3, 4, 5, 6],
    }
    assert asked('{"x": [[]]}')[0]["shape"] == [1, 0]
    assert asked('{"x": 7}')[0] == {"name": "x", "datatype": "FP32", "shape": [], "data": [7]}


def test_inputs_are_named_and_go_in_the_models_order() -> None:
    found = asked('{"mask": [9007199254740993], "x": [[1, 2, 3]]}', TWO)
    assert [each["name"] for each in found] == ["x", "mask"]
    assert found[1]["data"] == [9007199254740993], "no detour through a float"


def test_a_request_of_the_protocol_goes_as_it_is() -> None:
    text = '{"id": "7", "inputs": [ {"name": "x"} ], "outputs": []}'
    assert question_of(text.encode(), TWO).body == text.encode()


def test_an_array_goes_as_bytes() -> None:
    data = struct.pack("<6f", *range(6))
    question = question_of(npy("(2, 3)", data), ONE)
    length = int(question.headers[HEADER_LENGTH])
    assert question.headers["content-type"] == "application/octet-stream"
    assert question.body[length:] == data
    assert json.loads(question.body[:length]) == {
        "inputs": [
            {
                "name": "x",
                "datatype": "FP32",
                "shape": [2, 3],
                "parameters": {"binary_data_size": 24},
            }
        ],
        "parameters": {"binary_data_output": True},
    }


@pytest.mark.parametrize(
    ("content", "inputs", "sentence"),
    [
        (b"nonsense", ONE, "neither JSON nor .npy"),
        (b"[" * 100_000, ONE, "neither JSON nor .npy"),
        (b"7", ONE, "a single value"),
        (b"[1]", TWO, "the model has 2 inputs (x, mask); name each"),
        (b'{"y": [1]}', ONE, "no input 'y'; it has x"),
        (b'{"x": [1]}', TWO, "nothing for the input 'mask'"),
        (b"[[1, 2], [3]]", ONE, "not all of one length"),
        (b"[[1], 2]", ONE, "not all of one length"),
        (b"[1, [2]]", ONE, "not all of one length"),
        (b"[null]", ONE, "not all of one length"),
        (b"[" * 20 + b"]" * 20, ONE, "nested more than 16 deep"),
        (npy("(2,)", b"1234"), ONE, "has 4 bytes and should have 8"),
        (npy("(1,)", b"12345678", "<i8"), ONE, "takes FP32, and the array is INT64"),
        (npy("(1,)", b"1234", ">f4"), ONE, "have no datatype"),
        (npy("(1,)", b"1234", order="True"), ONE, "Fortran order"),
        (npy("(-1,)", b""), ONE, "no header that could be read"),
        (npy("__import__('os')", b""), ONE, "no header that could be read"),
        (b"\x93NUMPY\x01\x00\xff\xff", ONE, "ends too early"),
    ],
)
def test_what_cannot_be_asked_is_told(
    content: bytes, inputs: list[dict[str, Any]], sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        question_of(content, inputs)
    assert caught.value.code == "request_invalid"
    assert sentence in caught.value.message


def test_an_array_of_another_type_is_told_how_to_save_it() -> None:
    with pytest.raises(ConfigError) as caught:
        question_of(npy("(1,)", b"12345678", "<f8"), ONE)
    assert "astype('float32')" in str(caught.value.hint)


def test_outputs_are_shown_by_their_first_values() -> None:
    outputs = [
        {"name": "y", "datatype": "FP32", "shape": [1, 10], "data": [0.123456789, *range(9)]},
        {"name": "z", "datatype": "BYTES", "shape": [1], "data": [["cat"]]},
        {"name": "n", "datatype": "FP32", "shape": [2]},
    ]
    assert output_rows({"outputs": outputs}) == [
        ("y", "FP32", "[1,10]", "0.123457 0 1 2 3 4 5 6 … (10 values)"),
        ("z", "BYTES", "[1]", "cat"),
        ("n", "FP32", "[2]", "-"),
    ]
    for odd in ({}, {"outputs": [1]}, {"outputs": [{"name": "y"}]}):
        with pytest.raises(ValueError, match="no answer of the protocol"):
            output_rows(odd)
