"""What is wanted is read whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.models.conftest import served, worker_of

from vedette.models import keeper_wanted
from vedette.models.keeper_wanted import Wanted, WantedError, WantedFile, parse


def text(*models: Any) -> bytes:
    return json.dumps({"models": models}).encode()


def test_a_model_is_known_by_its_worker_and_passed_on_word_for_word() -> None:
    model = {**served("a", 3, 250), "somethingNew": [1]}
    found = parse(text(model))
    assert found == {
        worker_of("a", 3): Wanted(
            worker_of("a", 3), "a", 3, model["blob"], "onnx", 250, None, {**model}
        )
    }


@pytest.mark.parametrize(
    "change",
    [
        {"worker": "../../etc/x.sock"},
        {"worker": "0" * 15},
        {"worker": worker_of("a") + "\n"},
        {"worker": 16},
        {"name": "--home"},
        {"name": None},
        {"blob": "sha256:../../control/ca.key"},
        {"version": "1"},
        {"version": True},
        {"format": 7},
        {"limits": {}},
        {"limits": {"runMillis": 0}},
        {"limits": {"runMillis": 10**9}},
        {"limits": {"runMillis": 1.5}},
        {"limits": None},
    ],
)
def test_what_is_no_model_makes_the_whole_list_none(change: dict[str, Any]) -> None:
    with pytest.raises(WantedError):
        parse(text(served("b"), {**served("a"), **change}))
    assert len(parse(text(served("b"), served("a")))) == 2


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{", b'{"models": {}}', b'{"models": 1}', b'{"models": [1]}', b"[" * 100_000],
)
def test_what_is_no_list_is_refused(data: bytes) -> None:
    with pytest.raises(WantedError):
        parse(data)


def test_a_file_without_end_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_wanted, "LIMIT", 400)
    path = tmp_path / "wanted.json"
    path.write_bytes(text(served("a")))
    assert WantedFile(path).take()
    path.write_bytes(text(served("a")) + b" " * 400)
    with pytest.raises(WantedError, match="more than 400 bytes"):
        WantedFile(path).take()


def test_files_beside_a_models_own_are_told_by_role_and_bad_ones_count_for_none() -> None:
    row = served("a")
    digest = f"sha256:{'0' * 64}"
    row["files"] = [{"role": "tokenizer", "blob": digest, "size": 3}]
    (wanted,) = parse(text(row)).values()
    assert wanted.extras() == [("tokenizer", digest)]
    for files in (
        [{"role": "x"}],
        [{"role": "x", "blob": "../x"}],
        [{"role": 1, "blob": digest}],
        3,
    ):
        row["files"] = files
        with pytest.raises(WantedError):
            parse(text(row))
    row["files"] = [{"role": "x", "blob": digest}] * 9
    with pytest.raises(WantedError):
        parse(text(row))


def test_more_models_than_a_node_may_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_wanted, "MOST", 1)
    with pytest.raises(WantedError, match="at most 1 models"):
        parse(text(served("a"), served("b")))


def test_the_file_is_read_when_it_is_another_and_an_absent_one_changes_nothing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "wanted.json"
    file = WantedFile(path)
    assert file.take() is None
    path.write_bytes(text(served("a")))
    assert set(file.take() or ()) == {worker_of("a")}
    assert file.take() is None
    file.forget()
    assert set(file.take() or ()) == {worker_of("a")}
    other = tmp_path / "other"
    other.write_bytes(text(served("b")))
    status = path.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)  # as long, and of the same instant
    assert set(file.take() or ()) == {worker_of("b")}
    path.unlink()
    assert file.take() is None


def test_a_file_that_cannot_be_read_as_one_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "wanted.json"
    path.write_bytes(b"oops")
    file = WantedFile(path)
    with pytest.raises(WantedError):
        file.take()
    assert file.take() is None
