"""Envelopes on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.store.places import envelope

from vedette.errors import ConfigError
from vedette.store.snapshots import SnapshotStore


def test_an_envelope_comes_back(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    digest, data = envelope(1)
    store.put(digest, data)
    assert store.has(digest)
    assert store.get(digest) == data
    assert list(store.digests()) == [digest]
    assert store.path(digest).name == f"{digest[7:]}.json"
    store.remove(digest)
    with pytest.raises(ConfigError) as caught:
        store.get(digest)
    assert caught.value.code == "snapshot_unknown"


def test_the_same_envelope_is_not_written_twice(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    digest, data = envelope(1)
    store.put(digest, data)
    before = store.path(digest).stat().st_ino
    store.put(digest, data)
    assert store.path(digest).stat().st_ino == before
    store.path(digest).write_bytes(b"damaged")
    store.put(digest, data)
    assert store.get(digest) == data
