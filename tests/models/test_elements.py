"""Elements of tensors, from JSON to bytes and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from vedette.models.elements import as_json, elements, packed, unpacked

NUMPY = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}


@pytest.mark.parametrize("datatype", NUMPY)
def test_bytes_are_those_of_numpy(datatype: str) -> None:
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(NUMPY[datatype])
    if datatype not in ("BOOL", "UINT8", "INT8"):
        array[1, 2] = 300
    values = elements(datatype, array.shape, array.tolist())
    assert packed(datatype, values) == array.tobytes()
    assert unpacked(datatype, array.shape, array.tobytes()) == array.reshape(-1).tolist()
    assert as_json(datatype, values) == array.reshape(-1).tolist()


def test_what_is_no_number_has_a_name() -> None:
    names = ["NaN", "Infinity", "-Infinity"]
    values = elements("FP32", [3], names)
    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf]
    assert as_json("FP32", unpacked("FP32", [3], packed("FP32", values))) == names


def test_texts_have_their_length_before_them() -> None:
    values = elements("BYTES", [2], ["é", ""])
    data = packed("BYTES", values)
    assert data == b"\x02\0\0\0\xc3\xa9\0\0\0\0"
    assert unpacked("BYTES", [2], data) == values
    assert as_json("BYTES", values) == ["é", ""]
    with pytest.raises(ValueError, match="codec"):
        as_json("BYTES", [b"\xff"])


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "why"),
    [
        ("FP32", [2], [1], "has 1 elements, and its shape says 2"),
        ("FP32", [1], {"a": 1}, "no list"),
        ("FP32", [1], ["x"], "'x' is no FP32"),
        ("FP32", [1], [None], "'None' is no FP32"),
        ("FP32", [1], [True], "'True' is no FP32"),
        ("FP64", [1], [10**400], "is too large"),
        ("INT8", [1], [1.5], "'1.5' is no INT8"),
        ("BOOL", [1], [1], "'1' is no BOOL"),
        ("BYTES", [1], [1], "'1' is no BYTES"),
    ],
)
def test_what_is_no_element_is_told(datatype: str, shape: list[int], data: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        elements(datatype, shape, data)


def test_lists_are_not_followed_for_ever() -> None:
    nested: list[Any] = [1]
    for _ in range(20):
        nested = [nested]
    with pytest.raises(ValueError, match="nested more than 16 deep"):
        elements("FP32", [1], nested)


@pytest.mark.parametrize(("datatype", "value"), [("INT8", 128), ("UINT8", -1), ("FP16", 1e6)])
def test_a_number_that_its_datatype_has_not_is_told(datatype: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"one of the elements is no {datatype}"):
        packed(datatype, [value])


@pytest.mark.parametrize(
    ("datatype", "shape", "data"),
    [
        ("FP32", [2], b"\0" * 7),
        ("BYTES", [1], b"\x05\0\0\0ab"),
        ("BYTES", [1], b"\x05\0"),
        ("BYTES", [1], b"\x01\0\0\0ab"),
        ("BYTES", [2], b"\x01\0\0\0a"),
    ],
)
def test_bytes_that_are_not_what_the_shape_says_are_told(
    datatype: str, shape: list[int], data: bytes
) -> None:
    with pytest.raises(ValueError, match=r"ends too early|left over|are not 2 elements"):
        unpacked(datatype, shape, data)
