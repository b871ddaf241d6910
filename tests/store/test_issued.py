"""Serials that are out, over the death of the process that made them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vedette.store import issued
from vedette.store.issued import IssuedSerial, IssuedSerials

NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
QUARTER = timedelta(minutes=15)


def one(
    serial: int, name: str = "shop", proof: str = "aa", ends: datetime | None = None
) -> IssuedSerial:
    return IssuedSerial(name, proof, serial, ends or NOON + QUARTER)


def test_another_process_knows_what_is_out_and_not_what_has_ended(tmp_path: Path) -> None:
    first = IssuedSerials(tmp_path / "issued", NOON)
    assert first.names() == []
    for serial in (1, 2):
        first.add(one(serial), NOON)
    first.add(one(3, ends=NOON + timedelta(minutes=1)), NOON)
    first.add(one(4, "billing"), NOON)
    assert first.names() == []  # this process knows them itself
    again = IssuedSerials(tmp_path / "issued", NOON + timedelta(minutes=2))
    assert again.names() == ["billing", "shop"]
    assert again.end("shop", "aa") == []
    assert again.end("shop", "bb") == [(1, NOON + QUARTER), (2, NOON + QUARTER)]
    assert again.end("shop", "bb") == []
    assert again.end("billing", None) == [(4, NOON + QUARTER)]
    assert IssuedSerials(tmp_path / "issued", NOON + QUARTER).names() == []


def test_a_torn_line_costs_itself_only(tmp_path: Path) -> None:
    first = IssuedSerials(tmp_path, NOON)
    first.add(one(1), NOON)
    (file,) = tmp_path.glob("*.log")
    assert file.stat().st_mode & 0o777 == 0o600
    with file.open("ab") as torn:
        torn.write(b"7f 99")
    again = IssuedSerials(tmp_path, NOON)
    again.add(one(2, "billing"), NOON)
    last = IssuedSerials(tmp_path, NOON)
    assert last.end("shop", None) == [(1, NOON + QUARTER)]
    assert last.end("billing", None) == [(2, NOON + QUARTER)]


def test_files_go_when_all_in_them_has_ended_and_there_is_a_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = IssuedSerials(tmp_path, NOON)
    for minute in range(0, 60, 5):
        at = NOON + timedelta(minutes=minute)
        kept.add(one(minute, ends=at + QUARTER), at)
    assert len(list(tmp_path.glob("*.log"))) <= 4
    monkeypatch.setattr(issued, "MAX_BYTES", 200)
    at = NOON + timedelta(hours=3)
    for serial in range(200):
        kept.add(one(serial, ends=at + QUARTER), at)
    assert len(list(tmp_path.glob("*.log"))) == issued.MAX_FILES
    assert 20 < len(IssuedSerials(tmp_path, at).end("shop", None)) < 200


def test_a_disk_that_fails_is_told_once_and_costs_no_certificate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "issued").write_text("no folder")
    kept = IssuedSerials(tmp_path / "issued", NOON)
    for serial in range(3):
        kept.add(one(serial), NOON)
    assert len(caplog.records) == 1
    kept.close()
