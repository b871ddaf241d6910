"""What the issuer must not forget: there after a restart, in order, and for its owner only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vedette.errors import UnavailableError
from vedette.store.identities import IdentityStore, KeptJoinToken, RevokedSerial

NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "identity.db"


def test_entries_and_bundles_are_there_after_a_restart(path: Path) -> None:
    store = IdentityStore(path)
    store.put_workload("shop", "{}")
    store.put_workload("shop", '{"a":1}')
    store.put_workload("billing", "{}")
    store.put_bundle("other.example", b"one")
    store.put_bundle("other.example", b"two")
    store.close()
    again = IdentityStore(path)
    assert again.workloads() == {"billing": "{}", "shop": '{"a":1}'}
    assert again.bundles() == {"other.example": b"two"}
    assert (again.remove_workload("shop"), again.remove_workload("shop")) == (True, False)
    assert (again.remove_bundle("other.example"), again.remove_bundle("x")) == (True, False)
    assert path.stat().st_mode & 0o777 == 0o600
    again.close()


def test_a_revoked_serial_keeps_its_first_time_and_goes_when_it_has_ended(path: Path) -> None:
    store = IdentityStore(path)
    first = RevokedSerial(2**158 + 5, NOON, NOON + timedelta(minutes=15))
    store.revoke([first])
    store.revoke([RevokedSerial(first.serial, NOON + timedelta(minutes=1), first.ends_at)])
    assert store.revoked() == [first]
    assert store.forget_revoked(first.ends_at) == 0
    assert store.forget_revoked(first.ends_at + timedelta(seconds=1)) == 1
    assert store.revoked() == []
    store.close()


def test_a_number_grows_with_each_other_content_and_never_goes_back(path: Path) -> None:
    store = IdentityStore(path)
    told = [store.number_of("bundle", content) for content in ("a", "a", "b", "a")]
    assert told == [1, 1, 2, 3]
    store.close()
    again = IdentityStore(path)
    assert (again.number_of("bundle", "a"), again.number_of("crl", "a")) == (3, 1)
    again.close()


def test_a_database_of_a_newer_version_is_left_alone(path: Path) -> None:
    store = IdentityStore(path)
    with store._transaction():
        store._connection.execute("PRAGMA user_version = 2")
    store.close()
    with pytest.raises(UnavailableError) as caught:
        IdentityStore(path)
    assert caught.value.code == "store_newer"


def test_a_join_token_is_used_once_with_the_entry_or_not_at_all(tmp_path: Path) -> None:
    store = IdentityStore(tmp_path / "identity.db")
    assert store.join_tokens() == []
    ends = NOON
    store.put_join_token(KeptJoinToken("aa", "{}", ends, None))
    store.put_workload("taken", "{}")
    with pytest.raises(UnavailableError):
        store.use_join_token("aa", ends, "taken", "{}")
    assert store.join_tokens()[0].used_at is None
    assert store.use_join_token("aa", ends, "a", "{}")
    assert not store.use_join_token("aa", ends, "b", "{}")
    assert not store.use_join_token("bb", ends, "b", "{}")
    assert sorted(store.workloads()) == ["a", "taken"]
    store.forget_join_tokens(ends)
    assert len(store.join_tokens()) == 1
    store.forget_join_tokens(ends + timedelta(seconds=1))
    assert store.join_tokens() == []
    store.close()
