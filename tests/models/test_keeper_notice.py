"""A file that is replaced is noticed, and where nothing can be noticed that is said."""

from __future__ import annotations

import os
import select
from pathlib import Path

from vedette.models.keeper_notice import drain, watch
from vedette.store.atomic import write_atomic


def test_a_file_that_was_replaced_or_written_is_noticed_once(tmp_path: Path) -> None:
    descriptor = watch(tmp_path)
    assert descriptor is not None
    try:
        assert select.select([descriptor], [], [], 0)[0] == []
        for write in (write_atomic, Path.write_bytes):
            write(tmp_path / "wanted.json", b"{}")
            assert select.select([descriptor], [], [], 10)[0] == [descriptor]
            drain(descriptor)
            assert select.select([descriptor], [], [], 0)[0] == []
    finally:
        os.close(descriptor)


def test_a_folder_that_is_not_there_cannot_be_watched(tmp_path: Path) -> None:
    assert watch(tmp_path / "none") is None
