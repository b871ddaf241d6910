"""What proves identities here, over restarts."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.control.workload.conftest import Clock

from vedette.clock import now
from vedette.control.bootstrap import Keys, Wish, bootstrap, open_keys, read_facts
from vedette.control.workload.identities import Identities
from vedette.store.home import Home


@pytest.fixture
def keys(home: Home) -> Keys:
    bootstrap(home, Wish(name="test-node"))
    facts = read_facts(home)
    assert facts is not None
    return open_keys(home, facts)


def test_the_sequence_of_the_bundle_grows_when_its_keys_change_and_only_then(
    home: Home, keys: Keys
) -> None:
    def sequence() -> int | None:
        facts = read_facts(home)
        assert facts is not None
        opened = Identities(home, open_keys(home, facts))
        opened.close()
        return opened.own_bundle().sequence

    assert [sequence(), sequence()] == [1, 1]
    keys.jwt_svids.rotate(now(), timedelta())
    assert [sequence(), sequence()] == [2, 2]
    keys.ca.rotate(now(), timedelta())
    assert sequence() == 3


def test_a_start_writes_nothing_that_is_there(home: Home, keys: Keys) -> None:
    Identities(home, keys).close()
    opened = Identities(home, keys)
    assert opened.crls()
    log = home.identity_database.with_name("identity.db-wal")
    assert not log.exists() or log.stat().st_size == 0
    assert opened.store._connection.total_changes == 0
    opened.close()


def test_the_crl_is_signed_anew_in_time_and_everybody_is_told_once(home: Home, keys: Keys) -> None:
    clock = Clock()
    opened = Identities(home, keys, clock)
    told: list[object] = []
    opened.listen(lambda: told.append(opened.crls()))
    opened.refresh()
    assert told == []
    clock.ahead = timedelta(hours=13)
    opened.refresh()
    opened.refresh()
    assert len(told) == 1
    opened.close()
