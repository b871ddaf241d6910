"""Tensors between people and the Open Inference Protocol (KServe V2): questions made, answers shown.

Owns: what JSON, `.npy` files and plain lists mean for the inputs of a model, and how outputs look in a table. Must not:
ask anybody, or need numpy.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from vedette.errors import ConfigError

HEADER_LENGTH: Final = "inference-header-content-length"
_NPY: Final = b"\x93NUMPY"
_MOST_HEADER: Final = 65_536
_SHOWN: Final = 8
_DEEPEST: Final = 16
# numpy's `descr` of little-endian elements, by datatype of the protocol.
_DESCRIPTIONS: Final = {
    "|b1": "BOOL",
    "|u1": "UINT8",
    "<u2": "UINT16",
    "<u4": "UINT32",
    "<u8": "UINT64",
    "|i1": "INT8",
    "<i2": "INT16",
    "<i4": "INT32",
    "<i8": "INT64",
    "<f2": "FP16",
    "<f4": "FP32",
    "<f8": "FP64",
}
_NUMPY_NAMES: Final = {"FP16": "float16", "FP32": "float32", "FP64": "float64", "BOOL": "bool"}
_HINT: Final = (
    'Give {"NAME": [[1, 2]]}, a list for a model of one input, a request of the Open Inference '
    "Protocol, or a .npy file."
)


@dataclass(frozen=True, slots=True)
class Question:
    """The body of an infer request and its headers."""

    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


BINARY_ANSWER: Final = {"parameters": {"binary_data_output": True}}
"""Asks for outputs as bytes, which NaN and FP16 have a form in."""
_MEDIA: Final = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"))


def medium_of(content: bytes) -> str | None:
    """What bytes are that are no tensors, by how they begin; None: nothing that is known here."""
    if content[:4] == b"RIFF" and content[8:12] == b"WAVE":
        return "audio/wav"
    return next((medium for start, medium in _MEDIA if content.startswith(start)), None)


def question_beside(content: bytes, medium: str) -> Question:
    """Bytes that are no tensors, for whoever answers to read; before them what is wished of the answer."""
    head = json.dumps(BINARY_ANSWER).encode()
    return Question(head + content, {"content-type": medium, HEADER_LENGTH: str(len(head))})


def question_of(content: bytes, inputs: Sequence[Mapping[str, Any]]) -> Question:
    """What `content` asks a model with those inputs (`name`, `datatype`). Raises `ConfigError` request_invalid."""
    if content.startswith(_NPY):
        return _of_npy(content, inputs)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        message = "the input is neither JSON nor .npy, nor a JPEG, PNG or WAV"
        raise _wrong(message) from None
    if isinstance(value, dict) and isinstance(value.get("inputs"), list):
        return Question(content, {"content-type": "application/json"})
    if isinstance(value, list):
        value = {_only(inputs)["name"]: value}
    if not isinstance(value, dict):
        raise _wrong("the input is a single value")
    known = {each["name"]: each for each in inputs}
    for name in value:
        if name not in known:
            raise _wrong(f"the model has no input {name[:80]!r}; it has {', '.join(known)}")
    missing = [name for name in known if name not in value]
    if missing:
        raise _wrong(f"there is nothing for the input {missing[0]!r}")
    asked = [_tensor(each, value[name]) for name, each in known.items()]
    body = json.dumps({"inputs": asked, **BINARY_ANSWER}).encode()
    return Question(body, {"content-type": "application/json"})


def _tensor(wanted: Mapping[str, Any], value: Any) -> dict[str, Any]:
    name = wanted["name"]
    shape = _shape(value, name)
    data = list(_flat(value, shape, name))
    return {"name": name, "datatype": wanted["datatype"], "shape": shape, "data": data}


def _shape(value: Any, name: str) -> list[int]:
    shape: list[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        if len(shape) > _DEEPEST:
            raise _wrong(f"the lists for {name!r} are nested more than {_DEEPEST} deep")
        if not value:
            break
        value = value[0]
    return shape


def _flat(value: Any, shape: Sequence[int], name: str) -> Iterator[Any]:
    """The elements in row-major order."""
    if not shape:
        if isinstance(value, list | dict) or value is None:
            raise _wrong(f"the lists for {name!r} are not all of one length")
        yield value
        return
    if not isinstance(value, list) or len(value) != shape[0]:
        raise _wrong(f"the lists for {name!r} are not all of one length")
    for each in value:
        yield from _flat(each, shape[1:], name)


def _of_npy(content: bytes, inputs: Sequence[Mapping[str, Any]]) -> Question:
    """An array as numpy saves it (NEP 1), sent as it is by the binary extension of the protocol."""
    wanted = _only(inputs)
    header, data = _npy_parts(content)
    datatype = _DESCRIPTIONS.get(str(header["descr"]))
    if datatype is None:
        raise _wrong(f"elements of {str(header['descr'])[:20]!r} have no datatype in the protocol")
    if datatype != wanted["datatype"]:
        numpy_name = _NUMPY_NAMES.get(wanted["datatype"], str(wanted["datatype"]).lower())
        message = f"{wanted['name']!r} takes {wanted['datatype']}, and the array is {datatype}"
        raise _wrong(message, f"Save array.astype('{numpy_name}').")
    if header["fortran_order"]:
        raise _wrong("the array is in Fortran order", "Save numpy.ascontiguousarray(array).")
    size = math.prod(header["shape"]) * int(str(header["descr"])[2:])
    if size != len(data):
        raise _wrong(f"the array has {len(data)} bytes and should have {size}")
    asked = {
        "name": wanted["name"],
        "datatype": datatype,
        "shape": list(header["shape"]),
        "parameters": {"binary_data_size": size},
    }
    head = json.dumps({"inputs": [asked], **BINARY_ANSWER}).encode()
    headers = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return Question(head + data, headers)


def _npy_parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    wide = content[6:7] > b"\x01"
    begins = 12 if wide else 10
    length = int.from_bytes(content[8:begins], "little")
    if length > _MOST_HEADER or begins + length > len(content):
        raise _wrong("the .npy file ends too early")
    try:
        header = ast.literal_eval(content[begins : begins + length].decode("latin-1").strip())
        shape = tuple(header["shape"])
        is_so = all(isinstance(one, int) and one >= 0 for one in shape)
        known = {name: header[name] for name in ("descr", "fortran_order", "shape")}
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError):
        is_so, known = False, {}
    if not is_so:
        raise _wrong("the .npy file has no header that could be read")
    return known, content[begins + length :]


def _only(inputs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    if len(inputs) != 1:
        names = ", ".join(each["name"] for each in inputs)
        raise _wrong(f"the model has {len(inputs)} inputs ({names}); name each")
    return inputs[0]


def output_rows(answer: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Name, datatype, shape and first values of each output. Raises `ValueError` for what is no answer of the
    protocol.
    """
    try:
        return [
            (
                str(each["name"]),
                str(each["datatype"]),
                f"[{','.join(str(one) for one in each['shape'])}]",
                _values(each.get("data")),
            )
            for each in answer["outputs"]
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"no answer of the protocol: {error}") from None


def _values(data: Any) -> str:
    if not isinstance(data, list):
        return "-"
    first: list[Any] = []
    count = 0
    for each in _leaves(data):
        count += 1
        if len(first) < _SHOWN:
            first.append(each)
    shown = " ".join(f"{each:.6g}" if isinstance(each, float) else str(each)[:80] for each in first)
    return shown + (f" … ({count:,} values)" if count > len(first) else "")


def _leaves(data: list[Any]) -> Iterator[Any]:
    """The elements of a flat or nested list; the protocol allows both."""
    for each in data:
        if isinstance(each, list):
            yield from _leaves(each)
        else:
            yield each


def _wrong(message: str, hint: str = _HINT) -> ConfigError:
    return ConfigError("request_invalid", message, hint)
