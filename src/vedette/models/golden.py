"""Golden answers: questions stored with a model, and what it has to answer before it serves.

Owns: the form of the file, what a question is as a request of the Open Inference Protocol, and when an answer is near
enough. Must not: ask anybody (`control.golden_check` does), or know where the file is kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import Field, model_validator

from vedette.config.model import Count, Model, build, wire_value
from vedette.config.served import Datatype
from vedette.errors import ConfigError
from vedette.models.elements import as_json, elements, is_float, packed, unpacked

MAX_GOLDEN_BYTES: Final = 16 << 20
MAX_ANSWER_BYTES: Final = 64 << 20
_LENGTH: Final = "inference-header-content-length"


class Tolerance(Model):
    """How far an element may be off: `absolute + relative * |expected|`."""

    absolute: float = Field(default=1e-5, ge=0, allow_inf_nan=False, description="Of any element.")
    relative: float = Field(
        default=1e-3, ge=0, allow_inf_nan=False, description="As a share of what is expected."
    )


class GoldenTensor(Model):
    """A tensor with its elements."""

    name: str = Field(min_length=1, max_length=256, description="Its name.")
    datatype: Datatype = Field(description="Type of its elements.")
    shape: tuple[Annotated[Count, Field(ge=0, le=2**40)], ...] = Field(
        max_length=16, description="Its dimensions."
    )
    data: list[Any] = Field(
        description='Its elements, flat or nested; of real numbers "NaN", "Infinity", "-Infinity" are three.'
    )

    def values(self) -> list[Any]:
        """Its elements, row by row. Raises `ValueError`."""
        return elements(self.datatype, self.shape, self.data)


class GoldenRequest(Model):
    """A request of the Open Inference Protocol."""

    id: str | None = Field(default=None, max_length=256, description="Means nothing here.")
    inputs: tuple[GoldenTensor, ...] = Field(min_length=1, max_length=256, description="Inputs.")


class GoldenCase(Model):
    """One question, and its answer."""

    request: GoldenRequest = Field(description="What is asked.")
    outputs: tuple[GoldenTensor, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="What has to be answered; other outputs may be anything. Absent: what the model answers first.",
    )
    tolerance: Tolerance | None = Field(
        default=None,
        description="How near is near enough; absent: that of the file, or for whole numbers exactly.",
    )


class GoldenFile(Model):
    """What `vedette model add --golden FILE` takes."""

    cases: tuple[GoldenCase, ...] = Field(
        min_length=1, max_length=100, description="Questions, in order."
    )
    tolerance: Tolerance | None = Field(
        default=None, description="How near is near enough, of every case that does not say."
    )

    @model_validator(mode="before")
    @classmethod
    def _one_case_alone(cls, data: Any) -> Any:
        """A file may be one case."""
        if isinstance(data, Mapping) and "request" in data and "cases" not in data:
            return {"cases": [data]}
        return data

    def is_whole(self) -> bool:
        """Whether every case says what has to be answered."""
        return all(case.outputs is not None for case in self.cases)


@dataclass(frozen=True, slots=True)
class Answered:
    """One output as the model gave it; `values` row by row."""

    datatype: str
    shape: tuple[int, ...]
    values: list[Any]


def parse_golden(data: bytes) -> GoldenFile:
    """The golden answers in a file. Raises `ConfigError` golden_invalid, which names the case and the tensor."""
    if len(data) > MAX_GOLDEN_BYTES:
        message = f"golden answers of {len(data):,} bytes; {MAX_GOLDEN_BYTES:,} are allowed"
        raise ConfigError("golden_invalid", message)
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        raise ConfigError("golden_invalid", "golden answers are JSON, and this is not") from None
    golden = build(GoldenFile, said, code="golden_invalid")
    for number, case in enumerate(golden.cases, 1):
        for tensor in (*case.request.inputs, *(case.outputs or ())):
            try:
                packed(tensor.datatype, tensor.values())
            except ValueError as error:
                message = f"case {number}, {tensor.name!r}: {error}"
                raise ConfigError("golden_invalid", message) from None
    return golden


def golden_bytes(golden: GoldenFile) -> bytes:
    """The file that says `golden`."""
    return json.dumps(wire_value(golden), separators=(",", ":"), ensure_ascii=False).encode()


def question(case: GoldenCase) -> tuple[bytes, dict[str, str]]:
    """Body and headers of an infer request that asks it, with elements as bytes in both directions."""
    inputs, parts = [], []
    for tensor in case.request.inputs:
        part = packed(tensor.datatype, tensor.values())
        parts.append(part)
        said = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        inputs.append({**said, "parameters": {"binary_data_size": len(part)}})
    asked: dict[str, Any] = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    if case.outputs is not None:
        wanted = {"binary_data": True}
        asked["outputs"] = [{"name": each.name, "parameters": wanted} for each in case.outputs]
    head = json.dumps(asked).encode()
    headers = {"content-type": "application/octet-stream", _LENGTH: str(len(head))}
    return b"".join([head, *parts]), headers


def request_of(body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    """The request of a case that asks what an infer request asks: JSON, or with elements as bytes. Raises `ConfigError`
    golden_invalid.
    """
    try:
        length = int(headers.get(_LENGTH, len(body)))
        inputs, at = [], length
        for each in json.loads(body[:length])["inputs"]:
            said = {name: each[name] for name in ("name", "datatype", "shape")}
            if "data" in each:
                inputs.append({**said, "data": each["data"]})
                continue
            size = int(each["parameters"]["binary_data_size"])
            values = unpacked(said["datatype"], said["shape"], body[at : at + size])
            inputs.append({**said, "data": as_json(said["datatype"], values)})
            at += size
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError("golden_invalid", f"this cannot be asked again: {error!r}") from None
    return {"inputs": inputs}


def answered(headers: Mapping[str, str], body: bytes) -> dict[str, Answered]:
    """The outputs in the answer to a question; `headers` in lower case. Raises `ValueError`."""
    length = int(headers.get(_LENGTH, len(body)))
    try:
        outputs = json.loads(body[:length])["outputs"]
        found, at = {}, length
        for each in outputs:
            size = int(each["parameters"]["binary_data_size"])
            shape = tuple(int(one) for one in each["shape"])
            if size < 0 or at + size > len(body):
                raise ValueError("the answer ends too early")
            values = unpacked(each["datatype"], shape, body[at : at + size])
            found[str(each["name"])] = Answered(each["datatype"], shape, values)
            at += size
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"no answer of the protocol: {error!r}") from None
    return found


def difference(
    case: GoldenCase, given: Mapping[str, Answered], usual: Tolerance | None
) -> str | None:
    """Which output is not what it has to be, and by how much, as a sentence; None: all are near enough. `usual`: the
    tolerance of the file.
    """
    for expected in case.outputs or ():
        got = given.get(expected.name)
        if got is None:
            return f"output {expected.name!r} is not answered"
        if (got.datatype, got.shape) != (expected.datatype, expected.shape):
            has = f"{got.datatype}{list(got.shape)}"
            return f"output {expected.name!r} is {has} instead of {expected.datatype}{list(expected.shape)}"
        told = _off(expected, got.values, _tolerance(expected.datatype, case.tolerance or usual))
        if told is not None:
            return f"output {expected.name!r} {told}"
    return None


def _tolerance(datatype: str, said: Tolerance | None) -> Tolerance:
    return said or (Tolerance() if is_float(datatype) else Tolerance(absolute=0, relative=0))


def _off(expected: GoldenTensor, got: Sequence[Any], tolerance: Tolerance) -> str | None:
    wanted = expected.values()
    if expected.datatype in ("BYTES", "BOOL"):
        wrong = [index for index, one in enumerate(wanted) if one != got[index]]
        how = ""
    else:
        far = [
            (_distance(one, got[index]), index)
            for index, one in enumerate(wanted)
            if not _is_near(one, got[index], tolerance)
        ]
        far.sort(key=lambda each: (-each[0], each[1]))
        wrong = [index for _, index in far]
        how = _how_far(far[0][0], wanted[wrong[0]], tolerance) if wrong else ""
    if not wrong:
        return None
    first = wrong[0]
    place = ",".join(map(str, _place(first, expected.shape)))
    got_, want = _shown(got[first]), _shown(wanted[first])
    worst = f"at [{place}]: {got_} instead of {want}{how}"
    return f"differs in {len(wrong):,} of {len(wanted):,} elements, most {worst}"


def _how_far(distance: float, wanted: float, tolerance: Tolerance) -> str:
    """By how much, where that is a number: NaN and infinity are off by none, and allow none."""
    if not math.isfinite(distance):
        return ""
    allowed = tolerance.absolute + tolerance.relative * abs(wanted)
    return f" (off by {distance:.4g}, {allowed:.4g} is allowed)"


def _is_near(wanted: float, got: float, tolerance: Tolerance) -> bool:
    if math.isnan(wanted) or math.isnan(got):
        return math.isnan(wanted) and math.isnan(got)
    if math.isinf(wanted) or math.isinf(got):
        return wanted == got
    return abs(got - wanted) <= tolerance.absolute + tolerance.relative * abs(wanted)


def _distance(wanted: float, got: float) -> float:
    off = abs(got - wanted)
    return math.inf if math.isnan(off) else off


def _place(index: int, shape: Sequence[int]) -> list[int]:
    """The indices of an element by its number in row-major order."""
    found = []
    for size in reversed(shape):
        index, one = divmod(index, size)
        found.append(one)
    return found[::-1]


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else str(as_json("FP64", [value])[0])
    return repr(value.decode(errors="replace")[:40]) if isinstance(value, bytes) else str(value)


def recorded(case: GoldenCase, given: Mapping[str, Answered]) -> GoldenCase:
    """The case with what was answered as what has to be. Raises `ConfigError` golden_invalid for what JSON cannot
    say.
    """
    outputs = []
    for name, each in given.items():
        try:
            data = as_json(each.datatype, each.values)
        except ValueError:
            message = (
                f"output {name!r} has texts that are no UTF-8, which golden answers cannot say"
            )
            hint = "Give golden answers that leave this output out."
            raise ConfigError("golden_invalid", message, hint) from None
        said = {"name": name, "datatype": each.datatype, "shape": each.shape, "data": data}
        outputs.append(GoldenTensor.model_validate(said))
    return case.model_copy(update={"outputs": tuple(outputs)})
