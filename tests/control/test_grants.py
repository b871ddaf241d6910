"""Grants: in the snapshot with their end, out of it when that has come, and not brought back by going back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.control.conftest import ALICE, Clock, Running

from vedette.clock import now
from vedette.config.snapshot import PolicyRef, StaticBackend
from vedette.control import desired, grants
from vedette.control.grants import Grants
from vedette.control.messages import GrantWish, StaticRouteWish
from vedette.errors import ConfigError


@pytest.fixture(autouse=True)
def _route(running: Running) -> None:
    running.node.put_static_route(
        "page", StaticRouteWish(path="/page", backend=StaticBackend()), "t"
    )


def wish(name: str | None = "a", **changes: object) -> GrantWish:
    usual = GrantWish(principal="alice", target="page", seconds=60, name=name, reason="ticket 7")
    return usual.model_copy(update=changes)


def held(running: Running) -> dict[str, PolicyRef]:
    return {each.name: each for each in desired.grants(running.activator.active()[1])}


def test_a_grant_is_a_policy_of_the_snapshot_that_ends(running: Running) -> None:
    before = int(now().timestamp())
    made = running.node.grant(wish(methods=("get",)), "uid:1")
    (ref,) = held(running).values()
    assert (made.name, ref.name) == ("a", "grant-a.cedar")
    assert ref.expires_at is not None
    assert before + 60 <= ref.expires_at <= before + 65
    text = running.node.policy("grant-a.cedar").text
    assert f'principal == Subject::"{ALICE}"' in text
    assert 'resource == Route::"page"' in text
    (told,) = running.node.grants.list()
    assert (told.principal, told.target) == (ALICE, "route/page")
    assert (told.methods, told.actor, told.reason) == (("GET",), "uid:1", "ticket 7")
    assert told.expires_at == made.expires_at


def test_a_grant_is_ended_before_its_time(running: Running) -> None:
    running.node.grant(wish(), "t")
    running.node.end_grant("a", "t")
    assert (held(running), running.node.grants.list()) == ({}, [])
    assert "alice" not in running.home.grants_file.read_text()
    with pytest.raises(ConfigError) as caught:
        running.node.end_grant("a", "t")
    assert caught.value.code == "grant_unknown"


def test_one_that_has_ended_is_not_listed_and_leaves_the_snapshot_a_minute_later(
    running: Running, clock: Clock
) -> None:
    found = Grants(running.home, running.activator, clock)
    found.grant(wish(), "own", "t")
    found.grant(wish("b", seconds=600), "own", "t")
    clock.move(timedelta(seconds=61))
    found.prune()
    assert [one.name for one in found.list()] == ["b"]
    assert sorted(held(running)) == ["grant-a.cedar", "grant-b.cedar"]
    clock.move(timedelta(seconds=61))
    found.prune()
    assert sorted(held(running)) == ["grant-b.cedar"]
    generation = running.activator.active()[0].generation
    found.prune()
    assert running.activator.active()[0].generation == generation


def test_going_back_neither_brings_a_grant_back_nor_ends_one(running: Running) -> None:
    running.node.grant(wish(), "t")
    goal = running.activator.active()[0].digest
    running.node.end_grant("a", "t")
    running.node.grant(wish("b"), "t")
    running.node.roll_back(goal, "t")
    assert sorted(held(running)) == ["grant-b.cedar"]


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": 0},
        {"seconds": 31 * 86_400},
        {"target": "nothing"},
        {"target": "function/page"},
        {"target": "page/page"},
        {"methods": ("FETCH",)},
    ],
)
def test_what_cannot_be_granted_is_refused(running: Running, change: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        running.node.grant(wish(**change), "t")
    assert caught.value.code == "grant_invalid"
    assert held(running) == {}


def test_a_name_stands_for_one_grant_and_no_policy_has_it(running: Running) -> None:
    running.node.grant(wish(), "t")
    with pytest.raises(ConfigError) as caught:
        running.node.grant(wish(), "t")
    assert caught.value.code == "grant_invalid"
    with pytest.raises(ConfigError) as caught:
        running.node.put_policy("grant-a.cedar", "permit(principal, action, resource);", "t")
    assert caught.value.code == "invalid_name"
    made = running.node.grant(wish(None), "t")
    assert made.name.startswith("g-")


def test_there_is_room_for_so_many(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grants, "MAX_GRANTS", 1)
    running.node.grant(wish(), "t")
    with pytest.raises(ConfigError):
        running.node.grant(wish("b"), "t")


def test_one_that_has_ended_is_not_asked_about_when_somebody_explains(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.node.grant(wish(), "t")
    asked: list[set[str]] = []

    def explain(
        _native: object, _folder: str, _digest: str, policies: dict[str, str], _: object
    ) -> list[object]:
        asked.append(set(policies))
        return []

    monkeypatch.setattr("vedette.control.activate.explain", explain)
    running.activator.explain([])
    monkeypatch.setattr("vedette.control.activate.now", lambda: now() + timedelta(seconds=61))
    running.activator.explain([])
    assert asked[0] - asked[1] == {"grant-a.cedar"}
