"""Only what is written after the suite began is read, and nothing behind the first NUL."""

from __future__ import annotations

import json
from pathlib import Path

from vedette.verification.records import Records


def line(request: str, kind: str = "request") -> bytes:
    return json.dumps({"kind": kind, "requestId": request}).encode() + b"\n"


def test_lines_of_before_are_left_out_and_new_ones_read_once(tmp_path: Path) -> None:
    segment = tmp_path / "a.jsonl"
    segment.write_bytes(line("old") + b"\0" * 64)
    records = Records(tmp_path)
    segment.write_bytes(line("old") + line("new") + b'{"half"' + b"\0" * 64)
    assert [one["requestId"] for one in records.lines()] == ["new"]
    (tmp_path / "b.jsonl").write_bytes(line("other", "egress"))
    assert [one["requestId"] for one in records.lines()] == ["new", "other"]


def test_a_record_is_found_by_request_and_kind(tmp_path: Path) -> None:
    records = Records(tmp_path)
    (tmp_path / "a.jsonl").write_bytes(line("one") + line("one", "egress"))
    assert records.of("one", "egress")["kind"] == "egress"
    assert records.of("one")["kind"] == "request"
    assert records.of(None) == {}
    assert records.find(lambda one: one["requestId"] == "two", patience=0.0) is None
