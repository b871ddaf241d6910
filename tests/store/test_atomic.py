"""A write that fails leaves what was there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from vedette.errors import UnavailableError
from vedette.store.atomic import create_private, read_json, write_atomic, write_json


def _fail_on(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    def failing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, name, failing)


def test_content_and_mode_are_as_asked(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"one")
    assert path.stat().st_mode & 0o777 == 0o600
    write_atomic(path, b"two", 0o644)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("call", "number", "code"),
    [
        ("write", errno.ENOSPC, "disk_full"),
        ("write", errno.EDQUOT, "disk_full"),
        ("fsync", errno.ENOSPC, "disk_full"),
        ("fsync", errno.EIO, "disk_failed"),
        ("replace", errno.EROFS, "disk_failed"),
    ],
)
def test_a_failing_disk_keeps_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, code: str
) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with monkeypatch.context() as patch:
        _fail_on(patch, call, number)
        with pytest.raises(UnavailableError) as caught:
            write_atomic(path, b"new")
    assert caught.value.code == code
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_fills_halfway_keeps_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    real, calls = os.write, []

    def short(descriptor: int, data: bytes) -> int:
        calls.append(descriptor)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "full")
        return real(descriptor, bytes(data)[:5])

    monkeypatch.setattr(os, "write", short)
    with pytest.raises(UnavailableError):
        write_atomic(path, b"x" * 100)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:3]))
    write_atomic(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_a_private_file_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "key"
    create_private(path, b"first")
    with pytest.raises(FileExistsError):
        create_private(path, b"second")
    assert path.read_bytes() == b"first"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_symlink_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("untouched")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_atomic(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_text() == "untouched"
    assert not (tmp_path / "link").is_symlink()


def test_json_comes_back_and_damage_reads_as_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    assert read_json(path) is None
    write_json(path, {"b": 1, "a": "ä"})
    assert path.read_text() == '{"a":"ä","b":1}\n'
    assert read_json(path) == {"a": "ä", "b": 1}
    path.write_bytes(b'{"a":')
    assert read_json(path) is None
