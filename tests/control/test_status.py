"""The status: what is declared beside what the engine says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

from tests.config.samples import DIGEST, snapshot

from vedette.config.addresses import Addresses, AddressList
from vedette.control.messages import FeedStatus
from vedette.control.status import list_statuses
from vedette.engine.client import EngineStatus

NOW = datetime(2026, 11, 21, 18, 0, 0, tzinfo=UTC)
ROW = {"name": "drop", "networks": 2, "leftOut": 1, "badLines": ["line 2: no address"]}


def _list(**more: Any) -> AddressList:
    return AddressList(name="drop", action="Block", blob=DIGEST, size=9, **more)


def _status(one: AddressList, *rows: dict[str, Any], feed: FeedStatus | None = None) -> Any:
    engine = cast(EngineStatus, {"addressLists": list(rows)})
    known = snapshot().with_(addresses=Addresses(lists=(one,)))
    (found,) = list_statuses(known, engine if rows else None, NOW, {"drop": feed} if feed else {})
    return found


def test_a_list_is_told_with_its_age_and_what_was_left_out() -> None:
    one = _status(_list(updated_at="2026-11-21T17:59:00Z", max_age_seconds=60), ROW)
    assert (one.networks, one.left_out, one.age_seconds) == (2, 1, 60)
    assert one.bad_lines == ("line 2: no address",)
    assert not one.expired


def test_a_list_older_than_it_may_be_is_expired() -> None:
    assert _status(_list(updated_at="2026-11-21T17:58:59Z", max_age_seconds=60), ROW).expired
    assert not _status(_list(updated_at="2020-01-01T00:00:00Z"), ROW).expired, "no age was set"


def test_a_list_is_known_by_name_while_the_engine_is_away() -> None:
    one = _status(_list())
    assert (one.name, one.networks, one.age_seconds, one.expired) == ("drop", None, None, False)


def test_a_list_that_is_fetched_is_as_old_as_its_feeds_last_answer() -> None:
    feed = FeedStatus(
        url="https://a",
        polled_at="2026-11-21T17:59:50Z",
        age_seconds=10,
        next_at=None,
        failures=0,
        failing_since=None,
        error=None,
        left_out={},
    )
    old = _list(updated_at="2020-01-01T00:00:00Z", max_age_seconds=60)
    one = _status(old, ROW, feed=feed)
    assert (one.age_seconds, one.expired, one.feed) == (10, False, feed)
    late = feed.model_copy(update={"age_seconds": 61})
    assert _status(old, ROW, feed=late).expired
    never = feed.model_copy(update={"age_seconds": None})
    assert not _status(old, ROW, feed=never).expired
