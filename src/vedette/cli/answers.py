"""Answers of the Open Inference Protocol (KServe V2), with and without binary data, as people read them.

Owns: elements from bytes, and tables: outputs as they are, labels with scores, boxes. Must not: ask anybody, or need
numpy.
"""

from __future__ import annotations

import array
import json
import math
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from vedette.cli.tensors import HEADER_LENGTH, output_rows

# Element types by datatype, as `array` calls them.
_CODES: Final = {
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP32": "f",
    "FP64": "d",
}
Row = tuple[str, ...]


def decoded(body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """The answer with all data in it, as lists. Raises `ValueError` for what is no answer of the protocol."""
    length = headers.get(HEADER_LENGTH)
    if length is None:
        return _object(json.loads(body))
    if not length.isdecimal() or int(length) > len(body):
        raise ValueError("the header that says how long the JSON is lies")
    told, at = _object(json.loads(body[: int(length)])), int(length)
    for each in _outputs(told):
        parameters = each.get("parameters")
        if not isinstance(parameters, dict) or "binary_data_size" not in parameters:
            continue
        size = parameters.pop("binary_data_size")
        if type(size) is not int or not 0 <= size <= len(body) - at:
            raise ValueError("an output is longer than the body")
        each["data"] = _elements(each.get("datatype"), body[at : at + size])
        at += size
        if not parameters:
            del each["parameters"]
    return told


def _object(told: Any) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise ValueError("the answer is no object")
    return told


def _outputs(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    outputs = told.get("outputs")
    if not isinstance(outputs, list) or not all(isinstance(each, dict) for each in outputs):
        raise ValueError("the answer has no outputs")
    return outputs


def _elements(datatype: Any, data: bytes) -> list[Any]:
    """Little-endian elements; texts have their length before them, in four bytes."""
    if datatype == "BYTES":
        return list(_texts(data))
    if datatype == "BOOL":
        return [byte != 0 for byte in data]
    if datatype == "FP16":
        if len(data) % 2:
            raise ValueError("half an element")
        return [value for (value,) in struct.iter_unpack("<e", data)]
    if datatype not in _CODES:
        raise ValueError(f"no datatype: {str(datatype)[:40]}")
    values = array.array(_CODES[datatype])
    values.frombytes(data)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()


def _texts(data: bytes) -> Iterator[str]:
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        text = data[at + 4 : at + 4 + length]
        if len(text) != length or at + 4 > len(data):
            raise ValueError("a text ends early")
        yield text.decode(errors="replace")
        at += 4 + length


def sayable(value: Any) -> Any:
    """The same with null in place of NaN and infinity, which JSON does not have (RFC 8259)."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [sayable(each) for each in value]
    if isinstance(value, dict):
        return {key: sayable(each) for key, each in value.items()}
    return value


def table(told: Mapping[str, Any]) -> tuple[Row, list[Row]]:
    """Columns and rows: labels with scores, boxes, or the outputs as they are. Raises `ValueError`."""
    by_name = {str(each.get("name")): each for each in _outputs(told)}
    if set(by_name) == {"label", "score"}:
        return _labels(by_name)
    if set(by_name) == {"box", "label", "score"}:
        columns = ("label", "score", "x1", "y1", "x2", "y2")
        rows = [
            (label, _score(score), *(f"{edge:.0f}" for edge in box))
            for box, label, score in boxes(told)
        ]
        return columns, rows
    return ("output", "datatype", "shape", "values"), list(output_rows(told))


def _labels(by_name: Mapping[str, Mapping[str, Any]]) -> tuple[Row, list[Row]]:
    names, scores = _data(by_name["label"]), _data(by_name["score"])
    shape = by_name["label"].get("shape")
    if len(names) != len(scores) or not isinstance(shape, list):
        raise ValueError("labels and scores are not as many")
    rows: list[Row] = [
        (str(name), _score(score)) for name, score in zip(names, scores, strict=True)
    ]
    if len(shape) < 2 or shape[0] <= 1 or shape[1] < 1:
        return ("label", "score"), rows
    numbered: list[Row] = [(str(at // shape[1]), *row) for at, row in enumerate(rows)]
    return ("row", "label", "score"), numbered


def boxes(told: Mapping[str, Any]) -> list[tuple[tuple[float, float, float, float], str, float]]:
    """Edges (x1, y1, x2, y2 in pixels of the picture), label and score. Raises `ValueError`."""
    by_name = {str(each.get("name")): each for each in _outputs(told)}
    if not {"box", "label", "score"} <= set(by_name):
        return []
    edges, names, scores = (_data(by_name[name]) for name in ("box", "label", "score"))
    if not len(edges) == 4 * len(names) == 4 * len(scores):
        raise ValueError("boxes, labels and scores are not as many")
    numbers = [float(each) for each in edges]
    found = []
    for at, (name, score) in enumerate(zip(names, scores, strict=True)):
        x1, y1, x2, y2 = numbers[4 * at : 4 * at + 4]
        found.append(((x1, y1, x2, y2), str(name), float(score)))
    return found


def _data(output: Mapping[str, Any]) -> Sequence[Any]:
    data = output.get("data")
    if not isinstance(data, list):
        raise ValueError("an output has no data")
    return data


def _score(score: Any) -> str:
    return f"{score:.4f}" if isinstance(score, float) else str(score)
