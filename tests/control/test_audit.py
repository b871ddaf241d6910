"""The auditor of a running node."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from tests.control.conftest import Running

from vedette.control import audit
from vedette.identity.notes import NoteKey
from vedette.observability.audit.heads import Head
from vedette.store.audit import AuditStore


def line(number: int) -> bytes:
    return b'{"time":"2026-01-01T00:00:00Z","n":%d}\n' % number


def test_what_is_written_is_signed_and_the_end_signs_once_more(running: Running) -> None:
    stopping = threading.Event()
    thread = threading.Thread(target=running.node.audit.run, args=(stopping,))
    (running.home.spool_requests / "w0.jsonl").write_bytes(line(1) + line(2))
    thread.start()
    while running.node.status().audit.records is None:  # type: ignore[union-attr]
        stopping.wait(0.01)
    (running.home.spool_requests / "w0.jsonl").write_bytes(line(1) + line(2) + line(3))
    stopping.set()
    thread.join()
    told = running.node.status().audit
    assert told is not None
    assert (told.records, told.error) == (3, None)
    head = AuditStore(running.home.audit_database, read_only=True).newest_head()
    assert head is not None
    assert head.size == 3


def test_the_public_key_lies_where_it_is_found_and_is_the_one_that_signs(running: Running) -> None:
    key = NoteKey.parse(running.home.audit_public.read_text())
    assert key.name == "test-node.vedette.local/audit"
    assert running.home.audit_key.stat().st_mode & 0o777 == 0o600
    running.node.audit._step()
    head = running.node.audit._head
    assert head is not None
    assert isinstance(head, Head)
    assert head.origin == key.name


def test_a_log_that_cannot_be_opened_is_told_stops_nothing_and_removes_nothing(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    segment = running.home.spool_requests / "w0.jsonl"
    segment.write_bytes(line(1))
    running.home.audit_database.mkdir()
    for _ in range(3):
        assert running.node.audit._step() is False
    told = running.node.status().audit
    assert told is not None
    assert told.error is not None
    assert len(caplog.records) == 1, "said once"
    monkeypatch.setattr(audit.spool, "REQUESTS_LIMIT", 0)
    with pytest.raises(Exception, match="audit"):
        running.node.audit.prune()
    assert segment.exists()
    running.home.audit_database.rmdir()
    running.node.audit._step()
    mended = running.node.status().audit
    assert mended is not None
    assert (mended.records, mended.error) == (1, None)


def test_the_limit_of_requests_takes_no_admin_record(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    (running.home.spool_requests / "w0.jsonl").write_bytes(line(1))
    running.node.record_start()
    running.node.admin.close()
    monkeypatch.setattr(audit.spool, "REQUESTS_LIMIT", 0)
    running.node.audit.prune()
    assert list(running.home.spool_requests.iterdir()) == []
    assert len(list(running.home.admin_records.iterdir())) == 1


def test_a_key_file_that_somebody_changed_is_written_again(running: Running) -> None:
    before = running.home.audit_public.read_text()
    running.home.audit_public.write_text("other")
    running.node.audit._step()
    assert running.home.audit_public.read_text() == before


def test_the_folders_of_the_log_are_not_the_engine_s_but_the_spool(running: Running) -> None:
    folders = audit.audit_folders(running.home)
    assert running.home.control in folders["admin"].parents
    assert folders["requests"] == running.home.spool_requests
    assert isinstance(folders["admin"], Path)
