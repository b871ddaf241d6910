"""Answers with and without binary data, and what a person sees of them."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import pytest

from vedette.cli.answers import boxes, decoded, sayable, table

HEADER = "inference-header-content-length"


def binary(*outputs: tuple[str, str, list[int], bytes]) -> tuple[bytes, dict[str, str]]:
    said = [
        {
            "name": name,
            "datatype": datatype,
            "shape": shape,
            "parameters": {"binary_data_size": len(data)},
        }
        for name, datatype, shape, data in outputs
    ]
    head = json.dumps({"outputs": said}).encode()
    return head + b"".join(each[3] for each in outputs), {HEADER: str(len(head))}


def texts(*each: str) -> bytes:
    return b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in each)


@pytest.mark.parametrize(
    ("datatype", "kind", "values"),
    [
        ("UINT8", "u1", [0, 255]),
        ("UINT16", "<u2", [65535]),
        ("UINT32", "<u4", [2**32 - 1]),
        ("UINT64", "<u8", [2**64 - 1]),
        ("INT8", "i1", [-128]),
        ("INT16", "<i2", [-32768]),
        ("INT32", "<i4", [-(2**31)]),
        ("INT64", "<i8", [-(2**63)]),
        ("FP16", "<f2", [0.5, -2.0]),
        ("FP32", "<f4", [0.5]),
        ("FP64", "<f8", [0.1]),
        ("BOOL", "?", [True, False]),
    ],
)
def test_elements_of_every_type_are_read_from_bytes(
    datatype: str, kind: str, values: list[Any]
) -> None:
    body, headers = binary(("y", datatype, [len(values)], np.array(values, kind).tobytes()))
    (output,) = decoded(body, headers)["outputs"]
    assert output["data"] == values
    assert "parameters" not in output


def test_outputs_follow_each_other_and_texts_have_their_lengths() -> None:
    body, headers = binary(
        ("label", "BYTES", [2], texts("é", "")), ("score", "FP32", [1], struct.pack("<f", 1))
    )
    told = decoded(body, headers)
    assert [each["data"] for each in told["outputs"]] == [["é", ""], [1.0]]
    assert decoded(b'{"outputs": []}', {}) == {"outputs": []}


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"[]", {}),
        (b"{}", {HEADER: "9"}),
        (b"{}", {HEADER: "-1"}),
        (b"{}", {HEADER: "2"}),
        binary(("y", "COMPLEX", [1], b"1")),
        binary(("y", "FP16", [1], b"1")),
        binary(("y", "FP32", [1], b"123")),
        binary(("y", "BYTES", [1], b"\xff\xff\xff\xff")),
        binary(("y", "BYTES", [1], b"\0\0")),
        (lambda it: (it[0][:-1], it[1]))(binary(("y", "UINT8", [2], b"12"))),
    ],
)
def test_what_is_no_answer_is_told(body: bytes, headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decoded(body, headers)


def output(name: str, shape: list[int], data: list[Any], datatype: str = "FP32") -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def test_labels_and_boxes_are_tables_and_the_rest_is_as_it_is() -> None:
    label = output("label", [1, 2], ["cat", "dog"], "BYTES")
    told = {"outputs": [label, output("score", [1, 2], [0.75, math.nan])]}
    assert table(told) == (("label", "score"), [("cat", "0.7500"), ("dog", "nan")])
    two = {"outputs": [{**label, "shape": [2, 1]}, output("score", [2, 1], [1.0, 0.5])]}
    assert table(two)[1] == [("0", "cat", "1.0000"), ("1", "dog", "0.5000")]
    found = {
        "outputs": [
            output("box", [1, 4], [1.2, 2.0, 3.0, 4.9]),
            output("label", [1], ["cat"], "BYTES"),
            output("score", [1], [0.5]),
        ]
    }
    columns, rows = table(found)
    assert columns == ("label", "score", "x1", "y1", "x2", "y2")
    assert rows == [("cat", "0.5000", "1", "2", "3", "5")]
    assert boxes(found) == [((1.2, 2.0, 3.0, 4.9), "cat", 0.5)]
    assert table({"outputs": [output("y", [1], [2.0])]})[1] == [("y", "FP32", "[1]", "2")]
    assert boxes({"outputs": []}) == []


@pytest.mark.parametrize(
    "outputs",
    [
        [output("label", [1], ["a"]), output("score", [2], [1.0, 2.0])],
        [output("box", [1, 4], [1]), output("label", [1], ["a"]), output("score", [1], [1.0])],
        [output("label", [1], ["a"]), {"name": "score"}],
        ["x"],
    ],
)
def test_outputs_that_contradict_each_other_are_no_table(outputs: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        table({"outputs": outputs})


def test_what_json_has_no_form_for_is_null() -> None:
    said = sayable({"a": [1.5, math.nan, [-math.inf]], "b": "x"})
    assert said == {"a": [1.5, None, [None]], "b": "x"}
