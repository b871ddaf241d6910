"""What is done to an audit log is found: which records, where, and never somewhere else."""

from __future__ import annotations

import random
import shutil
import sqlite3
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.observability.audit.logs import Log, kinds, places, record

from vedette.errors import ConfigError
from vedette.identity.notes import NoteKey
from vedette.observability.audit import locate
from vedette.observability.audit.entries import Removed, SignedHead
from vedette.observability.audit.heads import Head
from vedette.observability.audit.verify import Verifier


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Two segments of ten records each, taken in by turns: w0 has 0-4 and 10-14, w1 the others."""
    log = Log(tmp_path)
    log.step()
    for begin in (0, 5):
        for worker in (0, 1):
            log.write(f"w{worker}", [record(worker * 100 + n) for n in range(begin, begin + 5)])
            log.age(f"w{worker}", worker)
        log.step()
    assert log.head().size == 20
    return log


def change(path: Path, edit: Callable[[list[bytes]], list[bytes]]) -> None:
    """Rewrites the lines of a file."""
    path.write_bytes(b"".join(edit(path.read_bytes().splitlines(keepends=True))))


def sql(log: Log, statement: str) -> None:
    """Changes the index, as somebody who may write there can."""
    with sqlite3.connect(log.root / "audit.db") as connection:
        connection.execute(statement)


def test_an_untouched_log_is_good(log: Log) -> None:
    report = log.verify([log.head()], timedelta(seconds=5))
    assert report.is_good, report.findings
    assert (report.records, report.heads, report.anchors) == (20, 3, 1)
    assert log.verify_export(log.exported(), [log.head()]).is_good


def test_an_edited_byte_is_found_in_its_record(log: Log) -> None:
    change(
        log.segment("w1"), lambda lines: [*lines[:6], lines[6].replace(b"106", b"107"), *lines[7:]]
    )
    assert places(log.verify()) == [("changed", 16, 16)]


def test_a_newline_that_becomes_a_nul_is_found(log: Log) -> None:
    path = log.segment("w0")
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"\0")
    assert places(log.verify()) == [("changed", 14, 14)]


def test_a_removed_line_is_found(log: Log) -> None:
    change(log.segment("w0"), lambda lines: lines[:3] + lines[4:])
    assert places(log.verify()) == [("removed", 3, 3)]


def test_an_added_line_is_found(log: Log) -> None:
    change(log.segment("w0"), lambda lines: [*lines[:3], record(666), *lines[3:]])
    assert places(log.verify()) == [("added", 3, 3)]


def test_two_swapped_lines_are_found(log: Log) -> None:
    change(log.segment("w0"), lambda lines: [lines[1], lines[0], *lines[2:]])
    assert places(log.verify()) == [("reordered", 0, 1)]


def test_a_removed_segment_is_found(log: Log) -> None:
    log.segment("w1").unlink()
    assert places(log.verify()) == [("removed", 5, 19)]


def test_two_swapped_segments_are_found(log: Log) -> None:
    first, second = log.segment("w0"), log.segment("w1")
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    report = log.verify()
    moved = [("reordered", 0, 4), ("reordered", 10, 14), ("reordered", 5, 9), ("reordered", 15, 19)]
    assert places(report) == moved
    assert report.findings[0].what == (
        f"{first}: records 0 to 4 were moved: in that place is records 5 to 9"
    )


def test_records_that_changed_places_with_others_are_told_apart_from_changed_ones(log: Log) -> None:
    lines = log.exported().splitlines(keepends=True)
    at = [number for number, line in enumerate(lines) if line.startswith(b"record ")]
    lines[at[2]], lines[at[12]] = lines[at[12]], lines[at[2]]
    lines[at[3]] = lines[at[3]].replace(b'"n": 3', b'"n": 4')
    report = log.verify_export(b"".join(lines))
    assert places(report) == [("reordered", 2, 2), ("changed", 3, 3), ("reordered", 12, 12)]
    assert "record 2 was moved: in that place is record 12" in report.findings[0].what


def test_so_many_changed_records_are_looked_for_and_no_more(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locate, "MAX_COMPARED", 5)
    first, second = log.segment("w0"), log.segment("w1")
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    assert kinds(log.verify()) == {"changed", "reordered"}


def test_a_cut_tail_of_a_segment_is_found(log: Log) -> None:
    change(log.segment("w1"), lambda lines: lines[:-2])
    assert places(log.verify()) == [("removed", 18, 19)]


def test_a_log_that_was_cut_with_its_heads_is_found_by_an_anchored_head(log: Log) -> None:
    anchor = log.head()
    sql(log, "DELETE FROM heads WHERE sequence = 2")
    sql(log, "DELETE FROM batches WHERE first >= 10")
    assert log.verify().is_good, "nothing inside says what was cut: an anchor does"
    assert places(log.verify([anchor])) == [("truncated", 10, 19)]
    log.moment += timedelta(hours=1)
    assert kinds(log.verify(oldest=timedelta(minutes=15))) == {"too_old"}


def test_a_dropped_last_head_is_found(log: Log) -> None:
    sql(log, "DELETE FROM heads WHERE sequence = 2")
    assert places(log.verify()) == [("truncated", 10, 19)]


def test_a_dropped_head_in_the_middle_is_found(log: Log) -> None:
    sql(log, "DELETE FROM heads WHERE sequence = 1")
    assert kinds(log.verify()) == {"heads_missing"}


def test_records_declared_removed_by_somebody_else_are_found(log: Log) -> None:
    """The hashes of a gap prove the rest; that it is one, only a head can say."""
    log.segment("w0").unlink()
    sql(log, "UPDATE batches SET segment = NULL, checks = x'' WHERE segment = 1")
    report = log.verify()
    assert kinds(report) == {"gaps_altered"}


def test_an_older_whole_log_put_in_the_place_of_a_newer_is_found(log: Log, tmp_path: Path) -> None:
    earlier = log.exported()
    log.write("w0", [record(50)])
    log.step()
    assert log.verify_export(earlier).is_good
    assert kinds(log.verify_export(earlier, [log.head()])) == {"truncated"}


def test_a_rewritten_log_is_found_by_an_anchored_head_though_the_key_signed_it(
    tmp_path: Path,
) -> None:
    key = Ed25519PrivateKey.generate()
    logs = [Log(tmp_path / name, key) for name in ("true", "false")]
    for at, each in enumerate(logs):
        each.write("w0", [record(at), record(7)])
        each.step()
        each.write("w0", [record(8)])
        each.step()
    assert logs[1].verify().is_good
    assert kinds(logs[1].verify([logs[0].head()])) == {"forked"}


def test_another_key_proves_nothing(log: Log, tmp_path: Path) -> None:
    other = Log(tmp_path / "other")
    verifier = Verifier(other.signer.public.open, [])
    verifier.take_all(log.home_log().entries())
    [finding] = verifier.finish(log.moment).findings
    assert finding.kind == "unsigned"
    assert f"the key {other.signer.public.name} did not sign it" in finding.what
    assert finding.what.endswith(", and 2 more"), "told once, not for each head"


def test_a_head_of_another_node_is_not_believed(log: Log, tmp_path: Path) -> None:
    foreign = Log(tmp_path / "other", origin="other.test/audit")
    foreign.write("w0", [record(1)])
    foreign.step()
    head = foreign.store.newest_head()
    assert head is not None
    with log.store.transaction():
        log.store.add_head(replace(head, sequence=3, size=20))
    assert "head_forged" in kinds(log.verify())


@pytest.mark.parametrize("column", ["size", "root", "time", "previous", "signature"])
def test_a_forged_head_is_found(log: Log, column: str) -> None:
    values = {
        "size": "15",
        "root": f"x'{'ab' * 32}'",
        "time": "'2026-01-01T00:00:09.000000Z'",
        "previous": f"x'{'ab' * 32}'",
        "signature": f"x'{'ab' * 64}'",
    }
    sql(log, f"UPDATE heads SET {column} = {values[column]} WHERE sequence = 2")
    assert "head_forged" in kinds(log.verify())


def test_lines_and_index_changed_together_are_found_between_two_heads(
    log: Log, tmp_path: Path
) -> None:
    """Who can write both makes them agree; the signed head then says between which heads it is."""
    forged = Log(tmp_path / "forged", Ed25519PrivateKey.generate())
    forged.write("w0", [record(n) for n in range(5)])
    forged.write("w1", [record(999), *[record(100 + n) for n in range(1, 5)]])
    forged.step()
    [_, batch] = list(forged.store.batches())
    change(log.segment("w1"), lambda lines: [record(999), *lines[1:]])
    with log.store.transaction():
        log.store.remove_batches([5])
        log.store.add_batch(batch)
    assert places(log.verify()) == [("altered", 0, 9)]


def test_a_clock_that_went_back_is_noted_and_is_no_damage(log: Log) -> None:
    log.moment -= timedelta(hours=1)
    log.write("w0", [record(1)])
    log.step()
    report = log.verify()
    assert report.is_good
    assert report.notes == ["the clock went back by 59m59s between head 2 and 3"]


def test_a_torn_export_is_not_good_wherever_it_was_cut(log: Log) -> None:
    data = log.exported()
    for cut in range(len(b"vedette-audit 1\ngaps\n"), len(data) - 1, 7):
        report = log.verify_export(data[:cut], [log.head()])
        assert not report.is_good, cut


def test_any_changed_byte_of_an_export_is_found(log: Log) -> None:
    data = log.exported()
    draw = random.Random(7)
    for at in range(len(b"vedette-audit 1\n"), len(data)):
        other = draw.choice(
            [byte for byte in (0, 10, 32, 48, 65, 97, 255, data[at] ^ 1) if byte != data[at]]
        )
        forged = data[:at] + bytes([other]) + data[at + 1 :]
        try:
            report = log.verify_export(forged)
        except ConfigError as error:
            if error.code != "audit_unreadable":
                raise
        else:
            assert not report.is_good, (at, data[at], other, data[at - 20 : at + 20])


def test_an_export_since_a_record_says_what_it_leaves_out(log: Log) -> None:
    data = log.exported(first=10)
    report = log.verify_export(data, [log.head()])
    assert report.is_good, report.findings
    assert (report.omitted, report.records) == (10, 10)


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_to_random_logs_is_found_in_its_place(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    log = Log(tmp_path / "log")
    names = [f"w{n}" for n in range(draw.randrange(1, 4))]
    origin: dict[bytes, int] = {}
    for round_ in range(draw.randrange(2, 6)):
        for name in names:
            lines = [
                record(draw.randrange(10**9), worker=name, text="x" * draw.randrange(300))
                for _ in range(draw.randrange(0, 12) + (round_ == 0))
            ]
            log.write(name, lines)
            log.age(name, names.index(name))
        log.step()
    for batch in log.home_log().entries():
        if hasattr(batch, "records"):
            origin |= {line: batch.first + at for at, line in enumerate(batch.records)}
    assert log.verify().is_good
    name = draw.choice(names)
    path = log.segment(name)
    lines = path.read_bytes().splitlines(keepends=True)
    numbers = [origin[line[:-1]] for line in lines]
    at = draw.randrange(len(lines))
    what = draw.choice(["edit", "remove", "add", "swap", "empty"])
    if what == "edit":
        byte = draw.randrange(len(lines[at]) - 1)
        line = bytearray(lines[at])
        line[byte] = draw.choice([b for b in (1, 34, 48, 255) if b != line[byte]])
        lines[at] = bytes(line)
        expected = [("changed", numbers[at], numbers[at])]
    elif what == "remove" and len(lines) > 1:
        del lines[at]
        expected = [("removed", numbers[at], numbers[at])]
    elif what == "swap" and len(lines) > 1:
        other = draw.choice([n for n in range(len(lines)) if n != at])
        lines[at], lines[other] = lines[other], lines[at]
        low, high = sorted((at, other))
        expected = [("reordered", numbers[low], numbers[high])]
    elif what == "add":
        lines.insert(at, record(-1))
        expected = [("added", numbers[at], numbers[at])]
    else:
        lines = []
        expected = [("removed", numbers[0], numbers[-1])]
    path.write_bytes(b"".join(lines))
    assert places(log.verify()) == expected, (what, at)


def test_what_is_found_says_how_to_mend(log: Log) -> None:
    change(log.segment("w0"), lambda lines: lines[1:])
    [finding] = log.verify().findings
    assert str(log.segment("w0")) in finding.what
    assert finding.mend


def test_a_copy_of_a_home_verifies_elsewhere(log: Log, tmp_path: Path) -> None:
    """Its files have other inodes there."""
    log.store.close()
    shutil.copytree(log.root, tmp_path / "copy", ignore=shutil.ignore_patterns("copy"))
    copy = Log(tmp_path / "copy")
    copy.signer = log.signer
    assert copy.verify([log_head(copy)]).is_good
    copy.open()
    assert copy.step() == 0, "and goes on there without taking anything in twice"


def log_head(log: Log) -> Head:
    """The newest head."""
    return log.head()


def blocks_of(data: bytes) -> list[bytes]:
    """An export in its parts: the two first lines, then each batch with its records, and each head."""
    parts: list[bytes] = []
    for line in data.splitlines(keepends=True):
        if line.startswith(b"record "):
            parts[-1] += line
        else:
            parts.append(line)
    return parts


def test_an_export_is_made_of_batches_and_heads(log: Log) -> None:
    words = [part.split(b" ")[0].strip() for part in blocks_of(log.exported())]
    assert words == [
        b"vedette-audit",
        b"gaps",
        b"head",
        b"batch",
        b"batch",
        b"head",
        b"batch",
        b"batch",
        b"head",
    ]


@pytest.mark.parametrize(
    ("order", "found"),
    [
        ([0, 1, 2, 3, 5, 6, 7, 8], {"altered", "disordered"}),
        ([0, 1, 2, 4, 3, 5, 6, 7, 8], {"disordered"}),
        ([0, 1, 2, 3, 3, 4, 5, 6, 7, 8], {"disordered"}),
        ([0, 1, 2, 3, 4, 5, 6, 7], {"truncated"}),
        ([0, 1, 2, 3, 4, 6, 7, 8], {"heads_missing"}),
        ([0, 1, 3, 4, 2, 5, 6, 7, 8], {"altered"}),
        ([0, 1, 2, 3, 4, 5, 5, 6, 7, 8], {"heads_missing"}),
    ],
)
def test_parts_of_an_export_that_are_missing_moved_or_doubled_are_found(
    log: Log, order: list[int], found: set[str]
) -> None:
    parts = blocks_of(log.exported())
    report = log.verify_export(b"".join(parts[at] for at in order))
    assert kinds(report) & found, report.findings


def test_a_gap_in_an_export_that_no_head_signs_is_found(log: Log) -> None:
    parts = blocks_of(log.exported())
    first, count, _, *nodes = parts[4].splitlines()[0].split(b" ")[1:]
    parts[4] = b" ".join([b"gap", first, count, *nodes]) + b"\n"
    assert places(log.verify_export(b"".join(parts))) == [("removed", 5, 9)]
    parts[1] = b"gaps 5-10\n"
    assert kinds(log.verify_export(b"".join(parts))) == {"gaps_altered"}


def test_a_gap_that_reaches_beyond_what_a_head_signs_is_found(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for at in range(4):
        log.write(f"w{at % 2}", [record(at)])
        log.step()
    log.age("w0", 0)
    log.chain.prune("requests", log.segment("w1").stat().st_blocks * 512)
    data = log.exported()
    assert data.splitlines()[1] == b"gaps 0-1 2-3"
    assert log.verify_export(data).is_good
    for gaps in (b"gaps 2-3", b"gaps 0-1", b"gaps 1-2 2-3", b"gaps"):
        report = log.verify_export(data.replace(b"gaps 0-1 2-3", gaps))
        assert kinds(report) == {"removed", "gaps_altered"}, gaps


def test_an_anchor_of_records_that_are_not_here_is_not_called_proved(log: Log) -> None:
    middle = Head.parse(log.signer.public.open(notes(log)[1]))
    assert log.verify([middle]).anchors == 1
    assert kinds(log.verify_export(log.exported(first=20), [middle])) == {"anchor_unproved"}


def notes(log: Log) -> list[str]:
    """Every head, oldest first."""
    return [entry.note for entry in log.home_log().entries() if isinstance(entry, SignedHead)]


def test_a_key_without_a_name_does_not_mix_two_logs_of_its_own(log: Log, tmp_path: Path) -> None:
    """One key under two names: the first head says which log it is."""
    other = Log(tmp_path / "other", log.signer._key, origin="other.test/audit")
    other.write("w0", [record(1)])
    other.step()
    key = NoteKey("", log.signer.public.key)
    verifier = Verifier(key.open, ())
    entries = list(log.home_log().entries())
    verifier.take_all([*entries, SignedHead(notes(other)[0])])
    assert kinds(verifier.finish(log.moment)) == {"head_foreign"}


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("size", 19, "altered"),
        ("size", 21, "altered"),
        ("root", bytes(32), "altered"),
        ("previous", bytes(32), "head_disordered"),
        ("sequence", 1, "heads_missing"),
        ("sequence", 9, "heads_missing"),
        ("gaps", bytes(32), "gaps_altered"),
    ],
)
def test_a_head_that_the_key_signed_and_that_is_not_true_is_found(
    log: Log, field: str, value: object, found: str
) -> None:
    """The key alone does not make a head true: the records and the other heads speak against it."""
    entries = list(log.home_log().entries())
    false = replace(log.head(), **{field: value})
    entries[-1] = SignedHead(log.signer.sign(false.text()))
    verifier = Verifier(log.signer.public.open, ())
    verifier.take_all(entries)
    assert found in kinds(verifier.finish(log.moment))


def test_a_head_from_before_is_found_behind_a_gap_too(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.step()
    log.write("w0", [record(1)])
    log.step()
    log.chain.prune("requests", 0)
    entries = list(log.home_log().entries())
    verifier = Verifier(log.signer.public.open, log.home_log().gaps())
    until = next(at for at, entry in enumerate(entries) if isinstance(entry, Removed)) + 1
    again = SignedHead(log.signer.sign(replace(log.head(), sequence=0).text()))
    verifier.take_all([*entries[:until], again])
    assert "heads_missing" in kinds(verifier.finish(log.moment))


def test_an_export_in_another_spelling_of_base64_is_not_good(log: Log) -> None:
    """Bits that no byte has part in could be changed unseen."""
    data = log.exported()
    at = data.index(b"=\n", data.index(b"batch "))
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = alphabet[alphabet.index(data[at - 1]) | 1]
    forged = data[: at - 1] + bytes([other]) + data[at:]
    assert forged != data
    assert kinds(log.verify_export(forged)) >= {"malformed"}


def test_only_so_many_findings_are_told(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for at in range(150):
        log.write(f"w{at:03}", [record(at)])
    log.step()
    for path in log.folders["requests"].iterdir():
        path.write_bytes(b"x" * 40 + b"\n")
    findings = log.verify().findings
    assert len(findings) == 101
    assert findings[-1].kind == "more"


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    """One batch at a time: a log eight times as long takes no more."""
    peaks = []
    for name, rounds in (("short", 4), ("long", 32)):
        log = Log(tmp_path / name)
        for at in range(rounds):
            log.write(f"w{at}", [record(number, text="x" * 500) for number in range(2000)])
            log.step()
        data = log.exported()
        tracemalloc.start()
        assert log.verify_export(data).is_good
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.5, peaks
