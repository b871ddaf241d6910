"""The registry on disk: what is kept of models besides what serves."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from vedette.errors import UnavailableError
from vedette.store.models import Attached, KeptVersion, Marks, ModelStore, TrustedSigner

AT = datetime(2026, 1, 1, tzinfo=UTC)


def kept(version: int, name: str = "m", definition: str = "{}") -> KeptVersion:
    return KeptVersion(name, version, f"sha256:{version}", definition, AT, "uid:1")


def test_a_version_is_there_after_it_was_opened_again(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models.db")
    store.put(kept(2))
    store.put(kept(1))
    store.close()
    again = ModelStore(tmp_path / "models.db")
    assert again.versions() == [kept(1), kept(2)]
    assert again.marks() == {"m": Marks(highest=2, serving=None, previous=None)}
    assert again.blobs() == {"sha256:1", "sha256:2"}
    assert (tmp_path / "models.db").stat().st_mode & 0o777 == 0o600


def test_what_belongs_to_a_file_goes_with_the_file(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models.db")
    store.put(kept(1))
    store.attach("sha256:1", "golden", Attached("sha256:a", "2"))
    store.attach("sha256:1", "golden", Attached("sha256:b", "3"))
    store.attach("sha256:1", "other", Attached("sha256:c", ""))
    store.attach("sha256:2", "golden", Attached("sha256:d", "1"))
    assert store.attached("golden") == {
        "sha256:1": Attached("sha256:b", "3"),
        "sha256:2": Attached("sha256:d", "1"),
    }
    assert store.blobs() == {f"sha256:{each}" for each in "1bcd"}
    store.forget_inspections(frozenset({"sha256:1"}))
    assert store.blobs() == {f"sha256:{each}" for each in "1bc"}
    store.attach("sha256:1", "golden", None)
    assert store.attached("golden") == {}


def test_a_registry_of_the_version_before_gets_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "models.db"
    ModelStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE attached")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    assert ModelStore(path).attached("golden") == {}


def test_signers_are_kept_once(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models.db")
    one, two = (TrustedSigner(each * 64, b"PEM", AT, "uid:1") for each in "ab")
    store.trust(two)
    store.trust(one)
    store.trust(TrustedSigner("a" * 64, b"other", AT, "uid:2"))
    assert store.signers() == [one, two]
    store.distrust("a" * 64)
    assert store.signers() == [two]


def test_what_serves_and_what_served_before_follow_each_other(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models.db")
    store.note_serving([kept(1), kept(5, "n")])
    store.note_serving([kept(2), kept(5, "n")])
    assert store.marks() == {"m": Marks(2, 2, 1), "n": Marks(5, 5, None)}
    store.note_serving([kept(2, definition='{"a":1}'), kept(5, "n")])
    assert store.marks()["m"] == Marks(2, 2, 1), "another setting is no other version"
    assert store.versions()[1].definition == '{"a":1}'
    store.note_serving([kept(1)])
    assert store.marks() == {"m": Marks(2, 1, 2), "n": Marks(5, None, 5)}


def test_the_highest_version_stays_known_when_all_are_gone(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models.db")
    store.note_serving([kept(1)])
    store.note_serving([kept(2)])
    store.note_serving([])
    store.remove("m", [1, 2])
    assert store.versions() == []
    assert store.marks() == {"m": Marks(highest=2, serving=None, previous=None)}


def test_findings_are_kept_by_file_and_forgotten_with_it(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models.db")
    store.put_inspection("sha256:1", "one")
    store.put_inspection("sha256:2", "two")
    store.put_inspection("sha256:2", "three")
    store.forget_inspections({"sha256:2"})
    assert (store.inspection("sha256:1"), store.inspection("sha256:2")) == (None, "three")


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "models.db"
    with sqlite3.connect(file) as newer:
        newer.execute("PRAGMA user_version = 3")
    with pytest.raises(UnavailableError) as caught:
        ModelStore(file)
    assert caught.value.code == "store_newer"
