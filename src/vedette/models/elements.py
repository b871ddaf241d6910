"""Elements of tensors as JSON values and as bytes.

Owns: both directions of the binary tensor data extension of the Open Inference Protocol (KServe, "Binary Tensor Data
Extension"), and which JSON values stand for elements that JSON has no number for. Must not: know a model.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

DEEPEST: Final = 16
# Codes of `struct`, little-endian, by datatype.
_CODES: Final = {
    "BOOL": "?",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
_FLOATS: Final = ("FP16", "FP32", "FP64")
_NO_NUMBERS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def is_float(datatype: str) -> bool:
    """Whether its elements are floating-point numbers."""
    return datatype in _FLOATS


def elements(datatype: str, shape: Sequence[int], data: Any) -> list[Any]:
    """The elements of JSON `data`, flat or nested as `shape` says, in row-major order; `"NaN"`, `"Infinity"` and
    `"-Infinity"` are what they say. Raises `ValueError` with a sentence.
    """
    if not isinstance(data, list):
        raise ValueError("data is no list")
    flat = list(_leaves(data, 0))
    count = math.prod(shape)
    if len(flat) != count:
        raise ValueError(f"data has {len(flat)} elements, and its shape says {count}")
    return [_element(datatype, each) for each in flat]


def _leaves(data: list[Any], depth: int) -> Iterator[Any]:
    if depth >= DEEPEST:
        raise ValueError(f"data is nested more than {DEEPEST} deep")
    for each in data:
        if isinstance(each, list):
            yield from _leaves(each, depth + 1)
        else:
            yield each


def _element(datatype: str, value: Any) -> Any:
    if datatype == "BYTES":
        if isinstance(value, str):
            return value.encode()
    elif datatype == "BOOL":
        if isinstance(value, bool):
            return value
    elif is_float(datatype):
        if isinstance(value, str) and value in _NO_NUMBERS:
            return _NO_NUMBERS[value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _as_float(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"{str(value)[:40]!r} is no {datatype}")


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{str(value)[:40]} is too large") from None


def packed(datatype: str, values: Sequence[Any]) -> bytes:
    """The elements as bytes. Raises `ValueError` for one that its datatype does not have."""
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(each)) + each for each in values)
    try:
        return struct.pack(f"<{len(values)}{_CODES[datatype]}", *values)
    except (struct.error, OverflowError) as error:
        raise ValueError(f"one of the elements is no {datatype}: {error}") from None


def unpacked(datatype: str, shape: Sequence[int], data: bytes) -> list[Any]:
    """The elements in row-major order. Raises `ValueError` when the bytes are not what the shape says."""
    count = math.prod(shape)
    if datatype == "BYTES":
        return _texts(count, data)
    form = struct.Struct(f"<{count}{_CODES[datatype]}")
    if form.size != len(data):
        raise ValueError(f"{len(data)} bytes are not {count} elements of {datatype}")
    return list(form.unpack(data))


def _texts(count: int, data: bytes) -> list[bytes]:
    found, at = [], 0
    for _ in range(count):
        (length,) = struct.unpack_from("<I", data, at) if at + 4 <= len(data) else (len(data),)
        at += 4 + length
        if at > len(data):
            raise ValueError("a text ends too early")
        found.append(data[at - length : at])
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes are left over")
    return found


def as_json(datatype: str, values: Sequence[Any]) -> list[Any]:
    """The elements as JSON values, to the last bit. Raises `ValueError` for a text that is no UTF-8."""
    if datatype == "BYTES":
        return [each.decode() for each in values]
    if not is_float(datatype):
        return list(values)
    return [each if math.isfinite(each) else _name(each) for each in values]


def _name(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
