"""Faults: percentages are exact, and what cannot be meant is told."""

from __future__ import annotations

from typing import Any

import pytest

from vedette.config.faults_manifest import FaultSpec, per_million
from vedette.config.model import build
from vedette.errors import ConfigError


@pytest.mark.parametrize(
    ("percentage", "share"),
    [
        (0, 0),
        (0.0001, 1),
        (0.1, 1_000),
        (0.3, 3_000),
        (12.3456, 123_456),
        (99.9999, 999_999),
        (100, 1_000_000),
    ],
)
def test_a_percentage_is_a_number_of_a_million_exactly(percentage: float, share: int) -> None:
    assert per_million(percentage) == share


def test_a_fault_becomes_what_the_engine_wants() -> None:
    data = {
        "delay": {"percentage": 10, "fixedDelay": "1s500ms"},
        "abort": {"percentage": 0.25, "httpStatus": 503},
    }
    assert build(FaultSpec, data).resolve() == {
        "delay": {"perMillion": 100_000, "fixedMillis": 1_500},
        "abort": {"perMillion": 2_500, "status": 503},
    }


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "nothing goes wrong"),
        ({"abort": {"percentage": 0.00001, "httpStatus": 503}}, "four digits"),
        ({"abort": {"percentage": 100.1, "httpStatus": 503}}, "less than or equal to 100"),
        ({"abort": {"percentage": -1, "httpStatus": 503}}, "greater than or equal to 0"),
        ({"abort": {"percentage": float("nan"), "httpStatus": 503}}, "abort.percentage"),
        ({"abort": {"percentage": "1", "httpStatus": 503}}, "abort.percentage"),
        ({"abort": {"percentage": True, "httpStatus": 503}}, "abort.percentage"),
        ({"abort": {"httpStatus": 503}}, "abort.percentage is missing"),
        ({"delay": {"percentage": 1, "fixedDelay": "soon"}}, "delay.fixedDelay"),
        ({"delay": {"percentage": 1}}, "delay.fixedDelay is missing"),
    ],
)
def test_mistakes_are_told(data: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(FaultSpec, data)
