"""Alarms found in the log of models, among everything that processes write there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vedette.models.alarms import LONGEST_LINE, Alarm, follow_alarms, parse, read_alarms

SAID = {
    "kind": "alarm",
    "unixMillis": 1_790_000_000_123,
    "model": "pump",
    "version": 3,
    "stream": "line-3",
    "n": 17,
    "score": 0.98,
    "suppressed": 0,
}
ALARM = Alarm(1_790_000_000_123, "pump", 3, "line-3", 17, 0.98, 0)


def line(**more: object) -> bytes:
    return json.dumps({**SAID, **more}).encode() + b"\n"


def test_a_line_of_a_detector_is_an_alarm() -> None:
    assert parse(line()) == ALARM
    unnamed = parse(line(stream=None, score=1))
    assert unnamed is not None
    assert (unnamed.stream, unnamed.score) == (None, 1.0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"2026-11-22T00:00:00Z keeper: going on\n",
        b'{"kind": "alarm"',
        b'{"kind": "alarm"}\n',
        b"[" * 4_000,
        line(kind="other"),
        line(n=-1),
        line(n=True),
        line(n="17"),
        line(unixMillis=10**18),
        line(model=None),
        line(stream=7),
        line(score=float("nan")),
        line(score="1"),
        line(stream="x" * LONGEST_LINE),
    ],
)
def test_any_other_line_is_none(data: bytes) -> None:
    assert parse(data) is None


def test_the_last_ones_of_one_model_are_found_in_both_logs(tmp_path: Path) -> None:
    log = tmp_path / "models.log"
    assert read_alarms(log, "pump", 5) == []
    log.with_suffix(".log.1").write_bytes(line(n=1) + b"noise\n" + line(n=2))
    log.write_bytes(line(n=3, model="other") + b"x" * 10_000 + b"\n" + line(n=4) + b'{"kind"')
    assert [each.n for each in read_alarms(log, "pump", 5)] == [1, 2, 4]
    assert [each.n for each in read_alarms(log, "pump", 2)] == [2, 4]


def test_alarms_are_followed_from_now_on_and_into_a_new_log(tmp_path: Path) -> None:
    log = tmp_path / "models.log"
    log.write_bytes(line(n=1))
    following = follow_alarms(log, "pump", interval=0)
    with log.open("ab") as file:
        file.write(line(n=2) + line(n=3, model="other") + line(n=4)[:20])
        file.flush()
        assert next(following).n == 2
        file.write(line(n=4)[20:])
    assert next(following).n == 4
    log.rename(tmp_path / "models.log.1")
    log.write_bytes(line(n=5))
    assert next(following).n == 5
