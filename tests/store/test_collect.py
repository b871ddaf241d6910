"""Garbage goes; what a recent generation or a running deploy needs stays."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from tests.store.places import home_in

from vedette.ids import digest_of
from vedette.store.activation import activate
from vedette.store.blobs import BlobStore
from vedette.store.collect import Collected, collect_garbage
from vedette.store.history import History
from vedette.store.home import Home
from vedette.store.snapshots import SnapshotStore


def _blobs_of(envelope: bytes) -> Iterable[str]:
    return [envelope.decode().rsplit(" ", 1)[1]]


def _deploy(home: Home, history: History, number: int) -> tuple[str, str]:
    """A snapshot with one blob and its machine code; returns both digests."""
    blob = BlobStore(home.blobs).put(b"blob %d" % number)
    compiled = home.compiled_file("key", blob)
    compiled.parent.mkdir(exist_ok=True)
    compiled.write_bytes(b"code")
    envelope = f"snapshot {number} {blob}".encode()
    digest = digest_of(envelope)
    activate(home, history, digest=digest, envelope=envelope, action="deploy", actor="uid:0")
    return digest, blob


def test_only_the_last_generations_are_kept(tmp_path: Path) -> None:
    home = home_in(tmp_path)
    history = History(home.database)
    made = [_deploy(home, history, number) for number in range(5)]
    removed = collect_garbage(home, history, _blobs_of, engine_key="key", keep=2, grace_seconds=-1)
    assert removed == Collected(snapshots=3, blobs=3, compiled=3)
    snapshots, blobs = {each for each, _ in made[3:]}, {each for _, each in made[3:]}
    assert set(SnapshotStore(home.snapshots).digests()) == snapshots
    assert set(BlobStore(home.blobs).digests()) == blobs
    assert len(list((home.compiled / "key").iterdir())) == 2
    assert len(history.entries()) == 5
    assert collect_garbage(home, history, _blobs_of, keep=2, grace_seconds=-1) == Collected(0, 0, 0)


def test_what_is_active_again_is_kept_with_all_it_needs(tmp_path: Path) -> None:
    home = home_in(tmp_path)
    history = History(home.database)
    first, blob = _deploy(home, history, 1)
    _deploy(home, history, 2)
    history.record(first, "rollback", "uid:0", history.envelope(first))
    collect_garbage(home, history, _blobs_of, engine_key="key", keep=0, grace_seconds=-1)
    assert set(SnapshotStore(home.snapshots).digests()) == {first}
    assert BlobStore(home.blobs).has(blob)
    assert home.compiled_file("key", blob).is_file()


def test_what_a_running_deploy_just_wrote_stays(tmp_path: Path) -> None:
    home = home_in(tmp_path)
    history = History(home.database)
    _deploy(home, history, 1)
    fresh = BlobStore(home.blobs).put(b"not yet in a snapshot")
    SnapshotStore(home.snapshots).put(digest_of(b"next"), b"not yet in the history")
    home.compiled_file("key", fresh).write_bytes(b"code")
    assert collect_garbage(home, history, _blobs_of, keep=1) == Collected(0, 0, 0)
    assert BlobStore(home.blobs).has(fresh)


def test_what_is_known_of_rules_goes_with_them(tmp_path: Path) -> None:
    home = home_in(tmp_path)
    history = History(home.database)
    old, new = (_deploy(home, history, number)[1] for number in range(2))
    for blob in (old, new):
        home.analysis_file("key", "1.2.3", blob).write_bytes(b"analysis")
    collect_garbage(home, history, _blobs_of, engine_key="key", keep=1, grace_seconds=-1)
    assert not home.analysis_file("key", "1.2.3", old).exists()
    assert home.analysis_file("key", "1.2.3", new).is_file()


def test_code_for_another_engine_goes(tmp_path: Path) -> None:
    home = home_in(tmp_path)
    history = History(home.database)
    _, blob = _deploy(home, history, 1)
    removed = collect_garbage(home, history, _blobs_of, engine_key="newer", keep=1)
    assert removed.compiled == 1
    assert not home.compiled_file("key", blob).exists()


def test_nothing_goes_when_an_envelope_cannot_be_read(tmp_path: Path) -> None:
    home = home_in(tmp_path)
    history = History(home.database)
    for number in range(3):
        _deploy(home, history, number)

    def unreadable(_: bytes) -> Iterable[str]:
        raise ValueError("unreadable")

    with pytest.raises(ValueError, match="unreadable"):
        collect_garbage(home, history, unreadable, keep=1, grace_seconds=-1)
    assert len(list(BlobStore(home.blobs).digests())) == 3
    assert len(list(SnapshotStore(home.snapshots).digests())) == 3


def test_what_something_else_needs_is_kept(tmp_path: Path) -> None:
    home = home_in(tmp_path)
    history = History(home.database)
    _, blob = _deploy(home, history, 1)
    kept, gone = (BlobStore(home.blobs).put(text) for text in (b"kept", b"gone"))
    collect_garbage(home, history, _blobs_of, grace_seconds=-1, besides=[kept])
    assert set(BlobStore(home.blobs).digests()) == {blob, kept}
    assert gone not in BlobStore(home.blobs).digests()
