"""The history: what was recorded is there, in order, whoever writes at the same time."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from tests.store.places import envelope

from vedette.errors import ConfigError, UnavailableError
from vedette.store import database
from vedette.store.history import Applied, History


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "node.db")


def _record(history: History, number: int) -> int:
    digest, data = envelope(number)
    return history.record(digest, "deploy", "uid:0", data)


def test_a_new_node_has_no_active_snapshot(history: History) -> None:
    assert history.active() is None
    assert history.previous() is None
    assert history.entries() == []


def test_generations_count_up_and_survive_a_restart(tmp_path: Path) -> None:
    history = History(tmp_path / "node.db")
    assert [_record(history, number) for number in (1, 2, 1)] == [1, 2, 3]
    history.close()
    again = History(tmp_path / "node.db")
    active = again.active()
    assert active is not None
    assert (active.generation, active.digest, active.actor) == (3, envelope(1)[0], "uid:0")
    assert active.activated_at.utcoffset() is not None
    assert [entry.generation for entry in again.entries()] == [3, 2, 1]
    assert _record(again, 4) == 4


def test_the_envelope_comes_back(history: History) -> None:
    _record(history, 1)
    assert history.envelope(envelope(1)[0]) == envelope(1)[1]
    with pytest.raises(ConfigError) as caught:
        history.envelope(envelope(2)[0])
    assert caught.value.code == "snapshot_unknown"


def test_previous_is_the_last_other_snapshot_that_can_be_activated(history: History) -> None:
    for number in (1, 2, 3, 3):
        _record(history, number)
    previous = history.previous()
    assert previous is not None
    assert previous.digest == envelope(2)[0]
    history.forget_envelopes(frozenset({envelope(1)[0], envelope(3)[0]}))
    previous = history.previous()
    assert previous is not None
    assert previous.digest == envelope(1)[0]
    assert len(history.entries()) == 4


def _brought(history: History, number: int) -> int:
    digest, data = envelope(number)
    return history.record(digest, "feed crowd", "control", data)


def test_what_a_feed_brought_takes_the_place_of_what_one_brought_before(history: History) -> None:
    _record(history, 1)
    assert [_brought(history, number) for number in (2, 3, 4)] == [2, 3, 4]
    _record(history, 5)
    _brought(history, 6)
    assert [entry.generation for entry in history.entries()] == [6, 5, 4, 1]


def test_previous_passes_over_what_feeds_brought(history: History) -> None:
    _record(history, 1)
    _brought(history, 2)
    assert history.previous() is None, "there was one decision only"
    _record(history, 3)
    _brought(history, 4)
    previous = history.previous()
    assert previous is not None
    assert previous.digest == envelope(1)[0]


def test_what_feeds_brought_does_not_count_among_what_is_kept(history: History) -> None:
    for number in range(1, 9):
        _record(history, number * 2)
        _brought(history, number * 2 + 1)
    kept = history.recent_digests(3)
    assert kept == {envelope(number)[0] for number in (12, 13, 14, 15, 16, 17)}


def test_it_is_durable_and_private(tmp_path: Path, history: History) -> None:
    pragma = history._connection.execute
    assert pragma("PRAGMA journal_mode").fetchone() == ("wal",)
    assert pragma("PRAGMA synchronous").fetchone() == (2,)
    assert (tmp_path / "node.db").stat().st_mode & 0o777 == 0o600


def test_threads_get_distinct_generations(history: History) -> None:
    made: list[int] = []
    threads = [
        threading.Thread(target=lambda: made.extend(_record(history, n) for n in range(20)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == list(range(1, 81))


def test_a_newer_database_is_not_touched(tmp_path: Path, history: History) -> None:
    history._connection.execute("UPDATE schema_version SET version = 99")
    history.close()
    with pytest.raises(UnavailableError) as caught:
        History(tmp_path / "node.db")
    assert caught.value.code == "store_newer"


def test_a_locked_database_says_try_again(
    tmp_path: Path, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_SECONDS", 0.01)
    other = sqlite3.connect(tmp_path / "node.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError) as caught:
        History(tmp_path / "node.db")
    assert caught.value.code == "store_busy"
    other.close()


def test_a_full_disk_leaves_the_history_as_it_was(history: History) -> None:
    _record(history, 1)
    (pages,) = history._connection.execute("PRAGMA page_count").fetchone()
    history._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(UnavailableError) as caught:
        history.record(envelope(2)[0], "deploy", "uid:0", b"x" * 100_000)
    assert caught.value.code == "disk_full"
    active = history.active()
    assert active is not None
    assert active.digest == envelope(1)[0]
    history._connection.execute("PRAGMA max_page_count = 1000000")
    assert _record(history, 2) == 2


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "node.db").write_bytes(b"not a database" * 100)
    with pytest.raises(UnavailableError) as caught:
        History(tmp_path / "node.db")
    assert caught.value.code == "disk_failed"


def test_what_belongs_to_manifests_is_kept_and_replaced_whole(tmp_path: Path) -> None:
    history = History(tmp_path / "node.db")
    assert history.applied() == []
    rows = [Applied("Route", "a", "Route/a", "x.yaml"), Applied("Limit", "b", "Limit/b", "x.yaml")]
    history.set_applied(rows)
    history.close()
    again = History(tmp_path / "node.db")
    assert again.applied() == sorted(rows, key=lambda row: row.kind)
    again.set_applied(rows[:1])
    assert again.applied() == rows[:1]
    again.close()


def test_a_database_of_the_first_version_gets_the_new_table(tmp_path: Path) -> None:
    history = History(tmp_path / "node.db")
    history.close()
    with sqlite3.connect(tmp_path / "node.db") as connection:
        connection.execute("DROP TABLE applied")
    assert History(tmp_path / "node.db").applied() == []


def test_what_brought_a_component_is_known_until_another_comes(tmp_path: Path) -> None:
    history = History(tmp_path / "node.db")
    assert history.brought_by("a", "one") is None
    history.note_components(3, {"a": "one", "b": "one"})
    history.note_components(5, {"a": "one", "b": "two"})
    assert [history.brought_by(*each) for each in (("a", "one"), ("b", "two"))] == [3, 5]
    assert history.brought_by("b", "one") is None
    history.note_components(2, {"a": "three", "b": "two"})
    assert history.brought_by("a", "one") == 3, "what comes late does not count"
    history.note_components(9, {"b": "one"})
    assert (history.brought_by("a", "one"), history.brought_by("b", "one")) == (None, 9)
    history.close()
    assert History(tmp_path / "node.db").brought_by("b", "one") == 9
