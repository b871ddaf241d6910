"""Refreshing the keys of issuers: when, what changes, and what stays when the URL fails."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.control.conftest import Running

from vedette.clock import from_rfc3339, now
from vedette.config.snapshot import IssuerKey
from vedette.control.jwks import CEILING, FLOOR, LONGEST_WAIT, JwksRefresher
from vedette.control.messages import IssuerWish, Jwks
from vedette.errors import UnavailableError
from vedette.identity.jwks import Fetched
from vedette.identity.keys import public_jwk

SOURCE = Jwks(url="https://id.example.com/jwks")


def key(kid: str) -> IssuerKey:
    jwk = public_jwk(ec.generate_private_key(ec.SECP256R1()).public_key())
    return IssuerKey(kid=kid, alg="ES256", jwk=jwk)


class Source:
    """The URL and the clock, in the test's hand."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.answer = Fetched((key("a"),), '"1"', None)
        self.error: UnavailableError | None = None
        self.time = now().replace(microsecond=0)
        self.asked: list[str | None] = []
        self.refresher = JwksRefresher(running.home, running.activator, self.fetch, self.clock)
        running.node.jwks = self.refresher
        wish = IssuerWish(issuer="https://id.example.com", audiences=("edge",), jwks=SOURCE)
        running.node.put_issuer("corp", wish, "test")

    def fetch(self, url: str, **options: str | None) -> Fetched:
        assert url == SOURCE.url
        self.asked.append(options.get("etag"))
        if self.error is not None:
            raise self.error
        return self.answer

    def clock(self) -> datetime:
        return self.time

    def kids(self) -> list[str | None]:
        (issuer,) = [one for one in self.running.node.issuers() if one.name == "corp"]
        return [one.kid for one in issuer.keys]

    def wait(self) -> timedelta:
        return from_rfc3339(self.refresher.status()["corp"].next_at) - self.time

    def pass_to_next(self) -> None:
        self.time += self.wait()
        self.refresher.step()


@pytest.fixture
def source(running: Running) -> Source:
    """An issuer with keys from a URL."""
    return Source(running)


def generation(source: Source) -> int:
    return source.running.activator.active()[0].generation


def test_changed_keys_are_a_new_snapshot_and_unchanged_ones_are_none(source: Source) -> None:
    before = generation(source)
    source.pass_to_next()
    assert generation(source) == before
    source.answer = Fetched((key("b"),), '"2"', None)
    source.pass_to_next()
    assert generation(source) == before + 1
    assert source.kids() == ["b"]
    assert source.running.activator.history.entries(1)[0].action == "jwks-refresh"
    source.answer = Fetched(None, '"2"', None)
    source.pass_to_next()
    assert generation(source) == before + 1
    assert source.asked == [None, '"1"', '"1"', '"2"']


def test_nothing_is_fetched_before_it_is_due(source: Source) -> None:
    source.time += source.wait() - timedelta(seconds=1)
    source.refresher.step()
    assert len(source.asked) == 1


@pytest.mark.parametrize(
    ("max_age", "least", "most"),
    [(0, FLOOR, FLOOR), (600, FLOOR * 9, FLOOR * 10), (10**9, CEILING * 0.9, CEILING)],
)
def test_the_age_of_the_answer_counts_within_bounds(
    source: Source, max_age: int, least: timedelta, most: timedelta
) -> None:
    source.answer = Fetched(source.answer.keys, None, max_age)
    source.pass_to_next()
    assert least <= source.wait() <= most


def test_a_failing_url_keeps_the_keys_and_is_tried_ever_more_rarely(source: Source) -> None:
    source.error = UnavailableError("jwks_unavailable", "it answered 500")
    waits = []
    for _ in range(9):
        source.pass_to_next()
        waits.append(source.wait())
    assert source.kids() == ["a"]
    assert all(FLOOR <= wait <= LONGEST_WAIT for wait in waits)
    assert waits[-1] > waits[0]
    status = source.refresher.status()["corp"]
    assert (status.failures, status.error) == (9, "it answered 500")
    assert status.age_seconds > 3_600
    source.error = None
    source.pass_to_next()
    assert source.refresher.status()["corp"].failures == 0


def test_a_restart_remembers_the_url(source: Source) -> None:
    again = JwksRefresher(source.running.home, source.running.activator, source.fetch, source.clock)
    assert again.status()["corp"].url == SOURCE.url


def test_after_a_rollback_the_tag_is_not_sent_and_the_keys_come_back(source: Source) -> None:
    source.answer = Fetched((key("b"),), '"2"', None)
    source.pass_to_next()
    source.running.node.roll_back(None, "test")
    assert source.kids() == ["a"]
    source.pass_to_next()
    assert source.asked[-1] is None
    assert source.kids() == ["b"]


def test_an_issuer_that_is_gone_is_asked_no_more(source: Source) -> None:
    source.running.node.remove_issuer("corp", "test")
    source.time += CEILING
    source.refresher.step()
    assert len(source.asked) == 1
