"""Golden answers: the file, the question, and what is near enough."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from vedette.errors import ConfigError
from vedette.models import golden
from vedette.models.golden import (
    Answered,
    GoldenFile,
    answered,
    difference,
    golden_bytes,
    parse_golden,
    question,
    recorded,
    request_of,
)

X = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [[1, 2]]}


def y(data: list[Any], datatype: str = "FP32") -> dict[str, Any]:
    return {"name": "y", "datatype": datatype, "shape": [1, len(data)], "data": data}


def parsed(*outputs: dict[str, Any], **more: Any) -> GoldenFile:
    case = {"request": {"inputs": [X]}, **({"outputs": outputs} if outputs else {}), **more}
    return parse_golden(json.dumps(case).encode())


def told(
    wanted: list[Any], got: list[Any], datatype: str = "FP32", tolerance: Any = None
) -> str | None:
    (case,) = parsed(y(wanted, datatype), tolerance=tolerance).cases
    return difference(case, {"y": Answered(datatype, (1, len(got)), got)}, None)


def test_a_file_is_one_case_or_many() -> None:
    assert len(parsed(y([1])).cases) == 1
    one = json.loads(golden_bytes(parsed(y([1]))))["cases"][0]
    many = parse_golden(json.dumps({"cases": [one, one], "tolerance": {"absolute": 1}}).encode())
    assert len(many.cases) == 2
    assert parse_golden(golden_bytes(many)) == many


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x93NUMPY", "golden answers are JSON"),
        (b"[" * 100_000, "golden answers are JSON"),
        (b"{}", "cases"),
        (b'{"cases": []}', "cases"),
        (json.dumps({"request": {"inputs": []}}).encode(), "inputs"),
        (json.dumps({"request": {"inputs": [{**X, "data": [1]}]}}).encode(), "case 1, 'x': data has 1"),
        (json.dumps({"request": {"inputs": [X]}, "outputs": [{**y([1]), "data": ["a"]}]}).encode(), "'y': 'a' is no"),
        (json.dumps({"request": {"inputs": [X]}, "tolerance": {"absolute": -1}}).encode(), "absolute"),
        (json.dumps({"request": {"inputs": [X]}, "tolerance": {"absolute": math.nan}}).encode(), "absolute"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_told(data: bytes, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_golden(data)
    assert caught.value.code == "golden_invalid"
    assert why in caught.value.message


def test_a_file_that_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "MAX_GOLDEN_BYTES", 10)
    with pytest.raises(ConfigError, match="10 are allowed"):
        parsed(y([1]))


def test_a_question_goes_and_comes_as_bytes() -> None:
    (case,) = parsed(y([1])).cases
    body, headers = question(case)
    length = int(headers["inference-header-content-length"])
    head = json.loads(body[:length])
    assert head["outputs"] == [{"name": "y", "parameters": {"binary_data": True}}]
    assert head["inputs"][0]["parameters"] == {"binary_data_size": 8}
    assert body[length:] == b"\0\0\x80\x3f\0\0\0\x40"
    again = request_of(body, headers)
    assert again == {"inputs": [{**X, "data": [1.0, 2.0]}]}
    plain = json.dumps({"inputs": [X], "id": "7"}).encode()
    assert request_of(plain, {}) == {"inputs": [X]}
    for wrong in (b"{}", b"{", b'{"inputs": [{"name": "x"}]}'):
        with pytest.raises(ConfigError):
            request_of(wrong, {})


def test_an_answer_is_read_from_bytes() -> None:
    outputs = [
        {"name": "a", "datatype": "INT64", "shape": [1], "parameters": {"binary_data_size": 8}},
        {"name": "b", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 6}},
    ]
    head = json.dumps({"outputs": outputs}).encode()
    body = head + b"\x07" + b"\0" * 7 + b"\x02\0\0\0hi"
    headers = {"inference-header-content-length": str(len(head))}
    assert answered(headers, body) == {
        "a": Answered("INT64", (1,), [7]),
        "b": Answered("BYTES", (1,), [b"hi"]),
    }
    for wrong, fields in (
        (body[:-1], headers),
        (body, {}),
        (b"[]", {}),
        (b'{"outputs": [{"name": "a"}]}', {}),
    ):
        with pytest.raises(ValueError):
            answered(fields, wrong)


def test_what_is_near_enough_is_no_difference() -> None:
    assert told([1.0, 0.0], [1.0009, 9e-6]) is None
    assert told(["NaN", "Infinity"], [math.nan, math.inf]) is None
    assert told([5], [5], "INT64") is None
    assert told([200], [201], "UINT8", {"absolute": 1, "relative": 0}) is None
    assert told(["a"], [b"a"], "BYTES") is None


@pytest.mark.parametrize(
    ("wanted", "got", "datatype", "why"),
    [
        (
            [1.0, 2.0, 3.0],
            [1.0, 2.5, 3.1],
            "FP32",
            "output 'y' differs in 2 of 3 elements, most at [0,1]: 2.5 instead of 2 (off by 0.5, 0.00201 is allowed)",
        ),
        ([1.0], [math.nan], "FP32", "most at [0,0]: NaN instead of 1"),
        (["NaN"], [1.0], "FP32", "most at [0,0]: 1 instead of NaN"),
        ([3.0], [-math.inf], "FP32", "most at [0,0]: -Infinity instead of 3"),
        (["Infinity"], [3.0], "FP32", "most at [0,0]: 3 instead of Infinity"),
        (["NaN"], [b"nan"], "BYTES", "most at [0,0]: 'nan' instead of 'NaN'"),
        (["Infinity"], [-math.inf], "FP32", "-Infinity instead of Infinity"),
        ([2**53 + 1], [2**53], "INT64", "9007199254740992 instead of 9007199254740993"),
        (["a"], [b"\xffb"], "BYTES", "instead of 'a'"),
        ([True], [False], "BOOL", "False instead of True"),
    ],
)
def test_the_worst_difference_is_told(
    wanted: list[Any], got: list[Any], datatype: str, why: str
) -> None:
    assert why in str(told(wanted, got, datatype))


def test_another_shape_datatype_or_no_output_at_all_is_a_difference() -> None:
    (case,) = parsed(y([1.0])).cases
    assert difference(case, {}, None) == "output 'y' is not answered"
    assert "FP64[1, 1] instead of FP32[1, 1]" in str(
        difference(case, {"y": Answered("FP64", (1, 1), [1.0])}, None)
    )
    assert "FP32[1] instead" in str(difference(case, {"y": Answered("FP32", (1,), [1.0])}, None))


def test_the_tolerance_of_the_case_goes_before_that_of_the_file() -> None:
    wide, narrow = {"absolute": 1, "relative": 0}, {"absolute": 0, "relative": 0}
    both = parsed(y([1.0]), tolerance=narrow)
    of_file = parse_golden(
        json.dumps({"cases": [json.loads(golden_bytes(parsed(y([1.0]))))["cases"][0]], "tolerance": wide}).encode()
    )  # fmt: skip
    given = {"y": Answered("FP32", (1, 1), [1.5])}
    assert difference(of_file.cases[0], given, of_file.tolerance) is None
    assert difference(both.cases[0], given, of_file.tolerance) is not None


def test_what_is_no_number_is_off_by_none() -> None:
    for wanted, got in ((1.0, math.nan), ("NaN", 1.0), ("Infinity", -math.inf), (3.0, math.inf)):
        sentence = told([wanted, 2.0], [got, 2.5])
        assert sentence is not None
        assert "differs in 2 of 2 elements" in sentence
        assert "off by" not in sentence


def test_texts_that_look_like_numbers_stay_texts() -> None:
    said = ["NaN", "Infinity", "1"]
    assert told(said, [b"NaN", b"Infinity", b"1"], "BYTES") is None
    (case,) = parsed(y(said, "BYTES")).cases
    given = {"y": Answered("BYTES", (1, 3), [b"NaN", b"Infinity", b"1"])}
    assert recorded(case, given).outputs == case.outputs
    text = {"name": "x", "datatype": "BYTES", "shape": [3], "data": said}
    (asked,) = parse_golden(json.dumps({"request": {"inputs": [text]}}).encode()).cases
    body, headers = question(asked)
    assert request_of(body, headers)["inputs"][0]["data"] == said


def test_what_is_answered_first_is_what_has_to_be_answered() -> None:
    (case,) = parsed().cases
    given = {"y": Answered("FP32", (1, 2), [math.nan, 0.1])}
    assert difference(case, given, None) is None
    whole = parse_golden(golden_bytes(GoldenFile(cases=(recorded(case, given),))))
    assert whole.is_whole()
    assert difference(whole.cases[0], given, None) is None
    with pytest.raises(ConfigError, match=r"no UTF-8"):
        recorded(case, {"y": Answered("BYTES", (1,), [b"\xff"])})
