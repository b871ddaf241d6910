"""Reading the spool: NUL tails, torn lines, rotation, limits."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest

from vedette.observability import spool


def line(number: int, **fields: object) -> bytes:
    return (
        json.dumps({"time": f"2026-01-01T00:00:{number:02}Z", "n": number, **fields}).encode()
        + b"\n"
    )


def numbers(lines: list[spool.Line]) -> list[int]:
    return [one["n"] for one in lines]


def everything(_line: spool.Line) -> bool:
    return True


def write(path: Path, data: bytes, written_at: int) -> Path:
    path.write_bytes(data)
    os.utime(path, ns=(written_at * 10**9, written_at * 10**9))
    return path


@pytest.mark.parametrize("size", [0, 1, 2, 7, 4096])
@pytest.mark.parametrize("padding", [0, 1, 5, 4096])
def test_data_ends_at_the_first_nul(tmp_path: Path, size: int, padding: int) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"x" * size + b"\0" * padding)
    descriptor = os.open(file, os.O_RDONLY)
    try:
        assert spool.data_end(descriptor) == size
    finally:
        os.close(descriptor)


def test_lines_come_backwards_and_an_unfinished_one_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.jsonl"
    expected = [line(number).strip() for number in range(9, 0, -1)]
    file.write_bytes(b"".join(line(number) for number in range(1, 10)) + b'{"torn' + b"\0" * 99)
    for chunk in (1, 7, 64, 10_000):
        monkeypatch.setattr(spool, "_CHUNK", chunk)
        assert list(spool.lines_backwards(file)) == expected


def test_a_file_with_no_finished_line_has_none(tmp_path: Path) -> None:
    for data in (b"", b"\0\0", b'{"torn'):
        (tmp_path / "a.jsonl").write_bytes(data)
        assert list(spool.lines_backwards(tmp_path / "a.jsonl")) == []
    assert list(spool.lines_backwards(tmp_path / "absent.jsonl")) == []


def test_the_last_lines_are_by_time_over_all_workers(tmp_path: Path) -> None:
    write(tmp_path / "w0.jsonl", line(1) + line(3) + line(5), 2_000_000_000)
    write(tmp_path / "w1.jsonl", line(2) + line(4) + b"\0" * 10, 2_000_000_000)
    assert numbers(spool.last_lines(tmp_path, 3, everything)) == [3, 4, 5]
    assert numbers(spool.last_lines(tmp_path, 100, everything)) == [1, 2, 3, 4, 5]
    assert spool.last_lines(tmp_path, 0, everything) == []
    assert spool.last_lines(tmp_path / "absent", 5, everything) == []


def test_the_last_lines_of_one_function_are_found_behind_others(tmp_path: Path) -> None:
    wanted = line(1, function="a") + b"".join(line(n, function="b") for n in range(2, 50))
    write(tmp_path / "w0.jsonl", wanted, 2_000_000_000)
    found = spool.last_lines(tmp_path, 1, lambda one: one["function"] == "a")
    assert numbers(found) == [1]


def test_lines_are_kept_by_request_kind_and_failure() -> None:
    event = {"kind": "security", "requestId": "r1", "action": "blocked"}
    record = {"kind": "request", "requestId": "r1", "cause": "waf_blocked"}
    served = {"kind": "request", "requestId": "r2"}

    def kept(*words: object) -> list[object]:
        keep = spool.records_like(*words)  # type: ignore[arg-type]
        return [line for line in (event, record, served) if keep(line)]

    assert kept(None, False) == [event, record, served]
    assert kept("r1", False) == [event, record]
    assert kept("r1", True) == [record]
    assert kept(None, False, "security") == [event]
    assert kept(None, True, "security") == [event]
    assert kept("r2", False, "security") == []


def test_a_torn_line_in_the_middle_hides_nothing(tmp_path: Path) -> None:
    write(tmp_path / "w0.jsonl", line(1) + b"{torn\n\xff\n[1]\n" + line(2), 2_000_000_000)
    assert numbers(spool.last_lines(tmp_path, 10, everything)) == [1, 2]


def test_a_follower_gives_each_new_line_once_whole(tmp_path: Path) -> None:
    file = tmp_path / "w0.jsonl"
    file.write_bytes(line(1) + b"\0" * 1000)
    follower = spool.Follower(tmp_path, everything)
    assert follower.poll() == []
    whole = line(2)
    with file.open("r+b") as segment:
        segment.seek(len(line(1)))
        segment.write(whole[:10])
        segment.flush()
        assert follower.poll() == []
        segment.write(whole[10:])
        segment.flush()
        assert numbers(follower.poll()) == [2]
    assert follower.poll() == []


def test_a_follower_goes_on_in_new_and_replaced_segments(tmp_path: Path) -> None:
    (tmp_path / "w0.jsonl").write_bytes(line(1))
    follower = spool.Follower(tmp_path, everything)
    (tmp_path / "w1.jsonl").write_bytes(line(2))
    (tmp_path / "new").write_bytes(line(3))
    (tmp_path / "new").replace(tmp_path / "w0.jsonl")
    assert numbers(follower.poll()) == [2, 3]
    (tmp_path / "w0.jsonl").unlink()
    assert follower.poll() == []


def test_a_follower_reads_lines_over_many_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "_CHUNK", 128)
    follower = spool.Follower(tmp_path, everything)
    data = b"".join(line(number) for number in range(1, 50))
    (tmp_path / "w0.jsonl").write_bytes(data + b"\0" * 500)
    assert numbers(follower.poll()) == list(range(1, 50))


def test_prune_removes_the_oldest_and_never_one_that_is_being_written(tmp_path: Path) -> None:
    for number, data in enumerate((b"x", b"x\0", b"x\0", b"x", b"x")):
        write(tmp_path / f"{number}.jsonl", data * 10_000, 1_000_000_000 + number)
    # 1 was left by a killed engine, 2 is being written by a living one.
    limit = sum((tmp_path / name).stat().st_blocks * 512 for name in ("2.jsonl", "4.jsonl"))
    with (tmp_path / "2.jsonl").open("rb") as written:
        fcntl.flock(written, fcntl.LOCK_EX)
        assert spool.prune(tmp_path, limit) == 3
        assert [path.name for path in spool.segments(tmp_path)] == ["2.jsonl", "4.jsonl"]
        assert spool.prune(tmp_path, 0) == 1
        assert [path.name for path in spool.segments(tmp_path)] == ["2.jsonl"]
    assert spool.prune(tmp_path, 0) == 1


def test_prune_leaves_a_folder_below_its_limit_alone(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", b"x", 1_000_000_000)
    assert spool.prune(tmp_path, 10**9) == 0


def test_a_mapped_segment_with_an_old_time_still_has_the_newest_lines(tmp_path: Path) -> None:
    write(tmp_path / "w0.jsonl", line(1) + line(2), 2_000_000_000)
    write(tmp_path / "w1.jsonl", line(3) + b"\0" * 9, 1_000_000_000)
    assert numbers(spool.last_lines(tmp_path, 1, everything)) == [3]


def test_records_are_found_by_id_and_by_having_failed(tmp_path: Path) -> None:
    write(
        tmp_path / "a.jsonl",
        line(1, requestId="a") + line(2, requestId="b", cause="no_route") + line(3, requestId="c"),
        1,
    )

    def found(request_id: str | None, failed: bool) -> list[int]:
        keep = spool.records_like(request_id, failed)
        return numbers(spool.last_lines(tmp_path, 10, keep))

    assert found(None, False) == [1, 2, 3]
    assert found("b", False) == [2]
    assert found(None, True) == [2]
    assert found("a", True) == []
