"""Times and durations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from vedette import clock
from vedette.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("500ms", 0.5),
        ("1h", 3_600),
        ("7d", 604_800),
        ("1h30m", 5_400),
        ("5m10ms", 300.01),
    ],
)
def test_a_duration_is_read_and_written_back(text: str, seconds: float) -> None:
    duration = clock.parse_duration(text)
    assert duration == timedelta(seconds=seconds)
    assert clock.format_duration(duration) == text


@pytest.mark.parametrize(
    "text", ["", "30", "s", "-1s", "1.5h", "1s1h", "1 s", "٣s", "9" * 40 + "s", "99999999d"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        clock.parse_duration(text)
    assert caught.value.code == "invalid_duration"


def test_a_time_is_written_in_utc_and_read_back() -> None:
    moment = datetime(2026, 11, 20, 12, 0, 0, 5, timezone(timedelta(hours=2)))
    assert clock.to_rfc3339(moment) == "2026-11-20T10:00:00Z"
    assert clock.to_rfc3339(moment, microseconds=True) == "2026-11-20T10:00:00.000005Z"
    assert clock.from_rfc3339("2026-11-20T10:00:00.000005Z") == moment


@pytest.mark.parametrize(
    "text", ["", "today", "2026-11-20", "2026-11-20T10:00:00", "2026-13-01T00:00:00Z"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        clock.from_rfc3339(text)


def test_a_naive_time_is_a_programming_error() -> None:
    with pytest.raises(ValueError):
        clock.to_rfc3339(datetime(2026, 1, 1))


def test_now_is_in_utc() -> None:
    assert clock.now().tzinfo is UTC
