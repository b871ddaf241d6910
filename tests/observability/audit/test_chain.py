"""Taking in: each finished record once, over crashes, odd segments, pruning, and disks that are full."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.observability.audit.logs import Log, kinds, places, record

from vedette.errors import UnavailableError
from vedette.identity.key_files import private_pem
from vedette.observability.audit import chain, segments
from vedette.observability.audit.entries import Batch
from vedette.observability.audit.verify import Report, Verifier
from vedette.store.audit import AuditStore

ROOT = Path(__file__).resolve().parents[3]


def records_of(log: Log) -> list[bytes]:
    """Every record of the log, in order."""
    with log.store.reading():
        entries = list(log.home_log().entries())
    return [line for entry in entries if isinstance(entry, Batch) for line in entry.records]


def lines(first: int, end: int) -> list[bytes]:
    return [record(number) for number in range(first, end)]


def bare(given: list[bytes]) -> list[bytes]:
    return [line[:-1] for line in given]


def test_a_line_is_taken_in_once_it_is_finished(tmp_path: Path) -> None:
    log = Log(tmp_path)
    whole = record(2)
    path = log.segment("w0")
    path.write_bytes(record(1) + b"\0" * 1000)
    assert log.step() == 1
    with path.open("r+b") as file:
        file.seek(len(record(1)))
        file.write(whole[:10])
        file.flush()
        assert log.step() == 0
        file.write(whole[10:])
    assert log.step() == 1
    assert records_of(log) == bare([record(1), whole])


def test_a_line_whose_end_was_copied_before_its_middle_waits(tmp_path: Path) -> None:
    """The processor may copy into mapped memory in any order: a NUL before the newline is a line under way."""
    log = Log(tmp_path)
    whole = record(1)
    path = log.segment("w0")
    path.write_bytes(whole[:5] + b"\0" * 5 + whole[10:] + b"\0" * 100)
    with path.open("rb") as engine:
        fcntl.flock(engine, fcntl.LOCK_EX)
        assert log.step() == 0
        path.write_bytes(whole + b"\0" * 100)
        assert log.step() == 1
    assert records_of(log) == [whole[:-1]]


def test_what_a_killed_engine_left_behind_a_hole_is_one_raw_record(tmp_path: Path) -> None:
    log = Log(tmp_path)
    left = b"half a li\0\0ne\n" + record(2)
    path = log.write("w0", [record(1), left, b'{"torn'])
    assert log.step() == 2
    assert records_of(log) == [record(1)[:-1], left]
    assert log.verify().is_good
    assert log.verify_export(log.exported()).is_good
    data = path.read_bytes()
    path.write_bytes(data.replace(b"half", b"hale"))
    assert places(log.verify()) == [("changed", 1, 1)]
    os.truncate(path, len(record(1)) + len(left))  # what a new engine does to the torn end
    path.write_bytes(data[: len(record(1)) + len(left)])
    assert log.verify().is_good


def test_lines_longer_than_a_chunk_and_longer_than_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "_CHUNK", 64)
    monkeypatch.setattr(segments, "LONGEST", 512)
    log = Log(tmp_path)
    long, endless = b"x" * 300 + b"\n", b"y" * 700 + b"\n"
    log.write("w0", [*lines(0, 3), long, endless, *lines(3, 5)])
    log.step()
    assert records_of(log) == [
        *bare(lines(0, 3)),
        long[:-1],
        b"y" * 512,
        b"y" * 188,
        *bare(lines(3, 5)),
    ]
    assert log.verify().is_good


def test_a_name_that_is_used_again_is_another_segment(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write("w0", lines(0, 5))
    log.step()
    log.chain.prune("requests", 0)
    log.write("w0", lines(5, 9))
    log.again()
    assert log.step() == 4
    report = log.verify()
    assert report.is_good, report.findings
    assert (report.removed, report.records) == (5, 4)


def test_a_replaced_segment_is_found_and_its_new_records_are_taken_in(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write("w0", lines(0, 5))
    log.step()
    (tmp_path / "other").write_bytes(b"".join(lines(100, 110)))
    (tmp_path / "other").replace(log.segment("w0"))
    assert log.step() == 10
    assert ("changed", 0, 4) in places(log.verify())


def test_a_segment_that_was_cut_is_damage_and_is_not_taken_in_again(tmp_path: Path) -> None:
    log = Log(tmp_path)
    path = log.write("w0", lines(0, 5))
    log.step()
    os.truncate(path, 2 * len(record(0)))
    assert log.step() == 0
    assert places(log.verify()) == [("removed", 2, 4)]


def test_a_shorter_file_in_the_place_of_a_segment_is_taken_in(tmp_path: Path) -> None:
    """It may even have the same inode."""
    log = Log(tmp_path)
    path = log.write("w0", lines(0, 5))
    log.step()
    path.write_bytes(record(77))
    assert log.step() == 1
    assert ("removed", 0, 4) in [(kind, first, last) for kind, first, last in places(log.verify())]


def test_records_are_on_the_disk_before_a_head_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(tmp_path)
    path = log.write("w0", lines(0, 5))
    seen = []

    def synced(descriptor: int) -> None:
        other = AuditStore(tmp_path / "audit.db", read_only=True)
        seen.append((Path(f"/proc/self/fd/{descriptor}").resolve(), other.newest_head()))
        other.close()

    monkeypatch.setattr(os, "fdatasync", synced)
    log.step()
    assert seen == [(path, None)]


def test_a_restart_goes_on_where_the_index_ends(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for at in range(6):
        log.write(f"w{at % 2}", lines(at * 10, at * 10 + 10))
        log.again()
        assert log.step() == 10
    assert sorted(records_of(log)) == sorted(bare(lines(0, 60)))
    assert log.verify().is_good


def test_what_is_too_much_for_one_step_is_taken_in_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "STEP_BYTES", 100)
    log = Log(tmp_path)
    for at in range(4):
        log.write(f"w{at}", lines(0, 5))
    steps = []
    while True:
        stepped = log.chain.step()
        steps.append(stepped.records)
        if not stepped.is_behind:
            break
    assert len(steps) == 4
    assert sum(steps) == 20
    assert log.verify().is_good


def test_a_head_is_signed_when_something_is_new_and_at_a_longer_beat(tmp_path: Path) -> None:
    log = Log(tmp_path)
    assert log.chain.step().head is not None, "after a start"
    assert log.chain.step().head is None
    log.write("w0", [record(1)])
    assert log.chain.step().head is not None
    log.ticks += chain.IDLE_BEAT - 1
    assert log.chain.step().head is None
    log.ticks += 1
    assert log.chain.step().head is not None
    assert log.chain.step(beat=True).head is not None
    assert log.head().sequence == 3
    assert log.verify().is_good


def test_pruning_takes_the_oldest_leaves_the_log_whole_and_says_so(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write("admin-0", [record(-1)], "admin")
    for worker in range(4):
        log.write(f"w{worker}", lines(worker * 10, worker * 10 + 10))
        log.age(f"w{worker}", worker)
        log.step()
    anchor = log.head()
    size = log.segment("w0").stat().st_blocks * 512
    assert log.chain.prune("requests", 2 * size) == 2
    assert not log.segment("w0").exists()
    assert not log.segment("w1").exists()
    report = log.verify([anchor])
    assert report.is_good, report.findings
    assert (report.removed, report.records, report.anchors) == (20, 21, 1)
    assert log.verify_export(log.exported(), [anchor]).is_good
    assert log.chain.prune("requests", 0) == 2
    report = log.verify([anchor])
    assert report.is_good, report.findings
    assert (report.removed, report.records) == (40, 1)
    assert log.home_log().gaps() == [(0, 10), (11, 41)], "the admin record is number 10"


def test_pruning_takes_in_what_is_new_before_it_removes(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write("w0", lines(0, 5))
    assert log.chain.prune("requests", 0) == 1
    assert log.head().size == 5
    assert log.verify().removed == 5


def test_pruning_keeps_what_cannot_be_taken_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(tmp_path)
    log.write("w0", lines(0, 5))
    monkeypatch.setattr(log.chain, "_take_segment", lambda *_: 0)
    assert log.chain.prune("requests", 0) == 0
    assert log.segment("w0").exists()


def test_pruning_leaves_what_an_engine_writes_to(tmp_path: Path) -> None:
    log = Log(tmp_path)
    path = log.write("w0", lines(0, 5))
    with path.open("rb") as engine:
        fcntl.flock(engine, fcntl.LOCK_EX)
        assert log.chain.prune("requests", 0) == 0
    assert log.chain.prune("requests", 0) == 1


def test_a_removal_that_a_crash_cut_off_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(tmp_path)
    log.write("w0", lines(0, 5))
    log.step()
    with monkeypatch.context() as patched:
        patched.setattr(log.chain, "_finish_removals", lambda: None)
        log.chain.prune("requests", 0)
    assert log.segment("w0").exists()
    log.again()
    assert log.step() == 0
    assert not log.segment("w0").exists()
    assert log.verify().is_good


def test_a_segment_that_somebody_took_stays_damage_until_its_time_is_over(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for worker in range(2):
        log.write(f"w{worker}", lines(worker * 10, worker * 10 + 10))
        log.age(f"w{worker}", worker)
        log.step()
    log.segment("w0").unlink()
    log.step()
    assert places(log.verify()) == [("removed", 0, 9)]
    log.chain.prune("requests", 0)
    assert log.verify().is_good


def test_heads_between_removed_records_are_forgotten_and_not_missed(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for at in range(10):
        log.write("w0", lines(at, at + 1))
        log.write("w1", lines(at + 50, at + 51))
        log.step()
    log.age("w0", 0)
    log.chain.prune("requests", log.segment("w1").stat().st_blocks * 512)
    assert len(log.home_log().gaps()) == 10
    report = log.verify()
    assert report.is_good, report.findings
    log.chain.prune("requests", 0)
    report = log.verify()
    assert report.is_good, report.findings
    assert report.heads == 3, "those of all twenty records"


def test_a_log_from_which_records_are_removed_while_it_is_read_is_read_again(
    tmp_path: Path,
) -> None:
    log = Log(tmp_path)
    for worker in range(9):
        log.write(f"w{worker}", lines(worker * 10, worker * 10 + 10))
        log.age(f"w{worker}", worker)
        log.step()
    reader = log.home_log()
    reader._store = AuditStore(tmp_path / "audit.db", read_only=True)
    size = log.segment("w0").stat().st_blocks * 512
    prunings = iter([8, 7])

    def judged() -> Report:
        entries = reader.entries()
        next(entries)
        if (left := next(prunings, None)) is not None:
            assert log.chain.prune("requests", left * size) == 1
        verifier = Verifier(log.signer.public.open, reader.gaps())
        verifier.take_all(reader.entries())
        return verifier.finish(log.moment)

    assert reader.read(judged).is_good
    prunings = iter([6, 5, 4])
    with pytest.raises(UnavailableError) as caught:
        reader.read(judged)
    assert caught.value.code == "store_busy"


def test_a_full_disk_changes_nothing_and_the_next_step_goes_on(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write("w0", lines(0, 5))
    log.step()
    (pages,) = log.store._connection.execute("PRAGMA page_count").fetchone()
    log.store._connection.execute(f"PRAGMA max_page_count = {pages}")
    log.write("w0", lines(5, 5000))
    with pytest.raises(UnavailableError) as caught:
        log.step()
    assert caught.value.code == "disk_full"
    assert log.head().size == 5
    log.store._connection.execute("PRAGMA max_page_count = 1000000")
    assert log.step() == 4995
    assert log.verify().is_good


_WRITER = """
import sys
from collections.abc import Sequence
from pathlib import Path
sys.path.insert(0, {root!r})
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from tests.observability.audit.logs import Log
log = Log(Path({folder!r}), load_pem_private_key(Path({key!r}).read_bytes(), None))
print("ready", flush=True)
number = 0
while True:
    log.step()
    number += 1
    if number % 5 == 0:
        log.chain.prune("requests", 400_000)
"""


def write_locked(new: Path, segment: Path, records: Sequence[bytes]) -> None:
    """Writes a segment as the engine does: it is locked before it is there, and never written to again."""
    with new.open("wb", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        new.rename(segment)
        half = len(records) // 2
        for part in (records[:half], records[half:]):
            file.write(b"".join(part))


def test_killed_at_any_moment_it_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """The process that takes in and prunes is killed again and again while records are written."""
    log = Log(tmp_path / "log")
    key = tmp_path / "key.pem"
    key.write_bytes(private_pem(log.signer._key))
    log.store.close()
    program = _WRITER.format(root=str(ROOT), folder=str(tmp_path / "log"), key=str(key))
    draw = random.Random(3)
    written = 0
    for _ in range(25):
        child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        for _ in range(draw.randrange(1, 12)):
            segment = log.segment(f"w{draw.randrange(3)}-{written:06}")
            write_locked(tmp_path / "new", segment, lines(written, written + 200))
            written += 200
            time.sleep(draw.random() / 100)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    log.open()
    log.step()
    report = log.verify()
    assert report.is_good, report.findings
    assert report.records + report.removed == written
    kept = records_of(log)
    assert len(set(kept)) == len(kept)


def test_an_index_that_holds_nonsense_is_told_and_does_not_fail(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write("w0", lines(0, 5))
    log.step()
    store = log.store._connection
    for table, column in [
        ("batches", "count"),
        ("batches", "nodes"),
        ("batches", "checks"),
        ("batches", "start"),
        ("batches", "stop"),
        ("heads", "time"),
        ("heads", "signature"),
        ("heads", "root"),
        ("heads", "previous"),
    ]:
        for value in ("'text'", "x'00'", "-5", "9223372036854775807", "1.5"):
            store.execute(f"UPDATE {table} SET {column} = {value}")
            report = log.verify()
            assert kinds(report) or column == "stop", (
                "a range that only reads on holds the same records"
            )
            for each in ("batches", "heads", "segments", "tree"):
                store.execute(f"DELETE FROM {each}")
            assert log.step() == 5
            assert log.verify().is_good
