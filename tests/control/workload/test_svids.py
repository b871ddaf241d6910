"""SVIDs that are out: one for an entry, none for one that is gone, and tables that do not grow."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.control.workload.conftest import Clock

from vedette.control.bootstrap import Wish, bootstrap, open_keys, read_facts
from vedette.control.workload.entries import Entry
from vedette.control.workload.identities import Identities
from vedette.control.workload.svids import Svids
from vedette.identity.domain import SpiffeId
from vedette.store.home import Home
from vedette.store.issued import IssuedSerials

DOMAIN = "test-node.vedette.local"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept() -> dict[str, Entry]:
    """What is kept, as `Workloads` would."""
    return {}


@pytest.fixture
def svids(home: Home, clock: Clock, kept: dict[str, Entry]) -> Iterator[Svids]:
    bootstrap(home, Wish(name="test-node"))
    facts = read_facts(home)
    assert facts is not None
    identities = Identities(home, open_keys(home, facts), clock)
    yield Svids(identities, lambda entry: kept.get(entry.name) == entry, random.Random(1))
    identities.close()


def entry(kept: dict[str, Entry], name: str = "a", path: str = "/a", **more: object) -> Entry:
    """An entry that is kept."""
    made = Entry(name, SpiffeId(DOMAIN, path), frozenset({"unix:uid:1"}), **more)  # type: ignore[arg-type]
    kept[name] = made
    return made


def test_an_entry_has_one_svid_until_it_is_due(
    svids: Svids, kept: dict[str, Entry], clock: Clock
) -> None:
    made = entry(kept)
    first = svids.current(made)
    assert svids.current(made) is first
    clock.ahead = timedelta(seconds=404)
    assert (svids.current(made), svids.due()) == (first, [])
    clock.ahead = timedelta(seconds=450)
    assert svids.due() == ["a"]
    assert svids.due() == []  # told once
    second = svids.current(made)
    assert second is not None
    assert second is not first


def test_an_entry_that_is_gone_or_another_by_now_gets_none(
    svids: Svids, kept: dict[str, Entry]
) -> None:
    old = entry(kept)
    assert svids.current(old) is not None
    new = entry(kept, path="/b")
    assert svids.current(old) is None
    assert svids.current(new) is not None
    del kept["a"]
    assert svids.current(new) is None


def test_what_must_be_revoked_is_all_that_is_out_and_only_if_it_proves_something_else(
    svids: Svids, kept: dict[str, Entry], clock: Clock
) -> None:
    made = entry(kept)
    first = svids.current(made)
    clock.ahead = timedelta(seconds=450)
    second = svids.current(made)
    assert first is not None
    assert second is not None
    assert svids.end("a", entry(kept, hint="other", ttl=timedelta(seconds=60))) == []
    serials = [(one.serial, one.not_after) for one in (first, second)]
    assert svids.end("a", entry(kept, path="/b")) == serials
    assert svids.end("a", None) == []


def test_renewals_are_spread(svids: Svids, kept: dict[str, Entry], clock: Clock) -> None:
    for number in range(200):
        svids.current(entry(kept, f"n{number}", f"/n{number}"))
    seen = []
    for second in range(404, 456, 4):
        clock.ahead = timedelta(seconds=second)
        seen.append(len(svids.due()))
    assert sum(seen) == 200
    assert max(seen) < 60


def test_an_svid_that_nobody_watches_is_dropped_when_it_has_ended(
    svids: Svids, kept: dict[str, Entry], clock: Clock
) -> None:
    svids.current(entry(kept))
    for seconds in (450, 901):
        clock.ahead = timedelta(seconds=seconds)
        for name in svids.due():
            svids.forget(name)
    assert (svids._out, svids._due) == ({}, [])


def test_an_entry_that_changes_without_end_fills_no_table(
    svids: Svids, kept: dict[str, Entry]
) -> None:
    for number in range(3_000):
        svids.current(entry(kept, ttl=timedelta(seconds=600 + number % 2)))
        svids.current(entry(kept, "b", f"/b{number}"))
    assert len(svids._out["a"].earlier) <= 64
    assert len(svids._due) <= 1_100


def test_serials_of_an_earlier_process_end_with_what_they_prove(
    home: Home, svids: Svids, kept: dict[str, Entry], clock: Clock, tmp_path: Path
) -> None:
    def process() -> Svids:
        issued = IssuedSerials(tmp_path / "issued", clock())
        return Svids(
            svids._identities, lambda one: kept.get(one.name) == one, random.Random(1), issued
        )

    first = process()
    same, other, gone = (first.current(entry(kept, name, f"/{name}")) for name in "abc")
    assert same is not None
    assert other is not None
    assert gone is not None
    entry(kept, "b", "/changed")  # who changed these two died before it could revoke
    del kept["c"]
    again = process()
    ended = {serial for serial, _ in again.ended_while_away(kept)}
    assert ended == {other.serial, gone.serial}
    assert again.ended_while_away(kept) == []
    fresh = again.current(kept["a"])
    assert fresh is not None
    assert {serial for serial, _ in again.end("a", None)} == {same.serial, fresh.serial}
