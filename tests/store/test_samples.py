"""Samples on the disk: how much there is, for how long, and that what goes is gone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from vedette.store.samples import KeptSample, SampleCount, SampleStores

MIB = 1 << 20


@pytest.fixture
def stores(tmp_path: Path) -> SampleStores:
    return SampleStores(tmp_path / "samples")


def sample(at: int, content: bytes = b"x" * 100, version: int = 1, ends: int = 10**9) -> KeptSample:
    return KeptSample(version, at, ends, '{"inputs":[]}', content)


def test_what_is_kept_comes_back_in_its_order(stores: SampleStores) -> None:
    store = stores.made("m")
    kept = [sample(at, bytes([at % 251]), version=1 + at % 2) for at in range(200)]
    store.add(kept[:150], MIB)
    store.add(kept[150:], MIB)
    assert list(store.read()) == kept
    assert list(store.read(since=190)) == kept[190:]
    assert list(store.read(version=2)) == kept[1::2]
    assert store.counts() == [SampleCount(1, 100, 1400, 0, 198), SampleCount(2, 100, 1400, 1, 199)]
    assert list(SampleStores(stores._folder).made("m").read()) == kept, "another process's"


def test_files_are_for_their_owner_alone(stores: SampleStores) -> None:
    stores.made("m").add([sample(1)], MIB)
    folder = stores._folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for each in folder.iterdir():
        assert stat.S_IMODE(each.stat().st_mode) == 0o600, each


def test_the_oldest_go_when_there_is_more_than_may_be(stores: SampleStores) -> None:
    store = stores.made("m")
    for at in range(0, 3000, 100):
        store.add([sample(each, b"y" * 5000) for each in range(at, at + 100)], MIB)
        size = sum(each.stat().st_size for each in stores._folder.iterdir() if each.suffix == ".db")
        assert size <= MIB
    left = [each.at for each in store.read()]
    assert left == list(range(left[0], 3000)), "only the oldest are gone"
    assert len(left) > 80


def test_one_that_is_larger_than_all_may_be_is_not_kept(stores: SampleStores) -> None:
    store = stores.made("m")
    store.add([sample(1), sample(2, b"z" * 2 * MIB)], MIB)
    assert list(store.read()) == []


def test_what_was_kept_as_long_as_it_was_to_be_is_nowhere_any_more(stores: SampleStores) -> None:
    store = stores.made("m")
    store.add([sample(1, b"SHORT-LIVED" * 9, ends=50), sample(2, b"LONG-LIVED" * 9, ends=60)], MIB)
    assert store.expire(49) == 0
    assert store.expire(50) == 1
    content = b"".join(each.read_bytes() for each in stores._folder.iterdir())
    assert b"SHORT-LIVED" not in content
    assert b"LONG-LIVED" in content


def test_a_version_or_a_model_is_forgotten_whole(stores: SampleStores) -> None:
    stores.made("m").add([sample(1), sample(2, version=2)], MIB)
    stores.made("other").add([sample(3)], MIB)
    assert stores.names() == ["m", "other"]
    assert stores.made("m").remove_version(1) == 1
    assert [each.version for each in stores.made("m").read()] == [2]
    assert stores.forget("m") == 1
    assert stores.forget("m") == 0
    assert [each.name for each in stores._folder.iterdir() if each.name.startswith("m")] == []
    assert stores.of("m") is None
    assert len(list(stores.made("other").read())) == 1
