"""Workload entries: what one may say, and that each is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vedette.control.workload import entries
from vedette.control.workload.entries import Workloads
from vedette.control.workload.messages import WorkloadWish
from vedette.errors import ConfigError
from vedette.store.identities import IdentityStore

DOMAIN = "edge-1.vedette.local"
UID = "unix:uid:1000"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[IdentityStore]:
    opened = IdentityStore(tmp_path / "identity.db")
    yield opened
    opened.close()


def wish(**changed: Any) -> WorkloadWish:
    return WorkloadWish(**{"path": "/shop", "selectors": (UID,), **changed})


def test_an_entry_is_kept_with_every_field(store: IdentityStore) -> None:
    told = Workloads(store, DOMAIN).put(
        "shop",
        wish(
            selectors=(f"unix:sha256:{'a' * 64}", UID, "unix:gid:0", "unix:path:/usr/bin/a b"),
            ttl_seconds=60,
            jwt_ttl_seconds=30,
            hint="a hint",
            dns_names=("Shop.Example.com", "shop.example.com"),
            federates_with=("b.example", "a.example"),
        ),
    )
    assert told.spiffe_id == f"spiffe://{DOMAIN}/shop"
    assert told.dns_names == ("shop.example.com",)
    assert told.federates_with == ("a.example", "b.example")
    again = Workloads(store, DOMAIN)
    assert again.list() == [told]
    entry = again.get("shop")
    assert entry is not None
    assert entry.anchor == f"unix:sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"path": "/shop/"}, "spiffe_id_invalid"),
        ({"path": ""}, "spiffe_id_invalid"),
        ({"path": "/gateway"}, "spiffe_id_reserved"),
        ({"path": "/fn/hello"}, "spiffe_id_reserved"),
        ({"path": "/" + "a" * 2_048}, "spiffe_id_invalid"),
        ({"selectors": ()}, "workload_invalid"),
        ({"selectors": tuple(f"unix:uid:{n}" for n in range(9))}, "workload_invalid"),
        ({"selectors": ("unix:uid:-1",)}, "workload_invalid"),
        ({"selectors": ("unix:uid:01",)}, "workload_invalid"),
        ({"selectors": ("unix:uid:4294967295",)}, "workload_invalid"),
        ({"selectors": ("unix:uid:root",)}, "workload_invalid"),
        ({"selectors": ("unix:path:bin/a",)}, "workload_invalid"),
        ({"selectors": ("unix:path:/a\n",)}, "workload_invalid"),
        ({"selectors": ("unix:sha256:abc",)}, "workload_invalid"),
        ({"selectors": (f"unix:sha256:{'A' * 64}",)}, "workload_invalid"),
        ({"selectors": ("docker:label:a",)}, "workload_invalid"),
        ({"selectors": (UID, "")}, "workload_invalid"),
        ({"ttl_seconds": 9}, "svid_invalid"),
        ({"ttl_seconds": 3_601}, "svid_invalid"),
        ({"ttl_seconds": 10**30}, "svid_invalid"),
        ({"jwt_ttl_seconds": 0}, "svid_invalid"),
        ({"hint": "x" * 1_025}, "workload_invalid"),
        ({"hint": "ä" * 513}, "workload_invalid"),
        ({"hint": "a\x1b[0m"}, "workload_invalid"),
        ({"dns_names": ("*.example.com",)}, "workload_invalid"),
        ({"dns_names": ("10.0.0.1",)}, "workload_invalid"),
        ({"dns_names": ("a b",)}, "invalid_host"),
        ({"dns_names": tuple(f"n{n}.org" for n in range(17))}, "workload_invalid"),
        ({"federates_with": (DOMAIN,)}, "workload_invalid"),
        ({"federates_with": ("Other.example",)}, "spiffe_id_invalid"),
        ({"federates_with": tuple(f"n{n}.org" for n in range(65))}, "workload_invalid"),
    ],
)
def test_an_entry_that_cannot_be_is_refused_and_nothing_is_kept(
    store: IdentityStore, changed: dict[str, Any], code: str
) -> None:
    workloads = Workloads(store, DOMAIN)
    with pytest.raises(ConfigError) as caught:
        workloads.put("shop", wish(**changed))
    assert caught.value.code == code
    assert store.workloads() == {}
    assert workloads.list() == []


def test_names_are_those_of_the_node(store: IdentityStore) -> None:
    workloads = Workloads(store, DOMAIN)
    for name in ("", "Shop", "a/b", "x" * 64):
        with pytest.raises(ConfigError) as caught:
            workloads.put(name, wish())
        assert caught.value.code == "invalid_name"


def test_there_is_a_most_of_entries_and_replacing_one_is_no_more(
    store: IdentityStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "MAX_ENTRIES", 1)
    workloads = Workloads(store, DOMAIN)
    workloads.put("a", wish())
    workloads.put("a", wish(hint="again"))
    with pytest.raises(ConfigError) as caught:
        workloads.put("b", wish())
    assert caught.value.code == "workload_invalid"


def test_one_entry_that_cannot_be_read_does_not_cost_the_others_theirs(
    store: IdentityStore, caplog: pytest.LogCaptureFixture
) -> None:
    Workloads(store, DOMAIN).put("good", wish())
    store.put_workload("damaged", "{")
    store.put_workload("later", '{"path":"/x","selectors":["unix:tpm:1"]}')
    assert [one.name for one in Workloads(store, DOMAIN).list()] == ["good"]
    assert {record.args[0] for record in caplog.records if record.args} == {"damaged", "later"}


def test_listeners_hear_of_what_is_durable(store: IdentityStore) -> None:
    workloads = Workloads(store, DOMAIN)
    heard: list[tuple[str, bool]] = []
    workloads.listen(lambda name: heard.append((name, name in store.workloads())))
    workloads.put("a", wish())
    workloads.remove("a")
    with pytest.raises(ConfigError):
        workloads.remove("a")
    assert heard == [("a", True), ("a", False)]


def test_of_a_program_in_a_box_only_its_name_counts(store: IdentityStore) -> None:
    workloads = Workloads(store, DOMAIN)
    kept = workloads.put("shop", wish(selectors=("vedette:run:shop",)))
    assert kept.selectors == ("vedette:run:shop",)
    for bad in (
        ("vedette:run:shop", "unix:uid:1"),
        ("vedette:run:",),
        ("vedette:run:Shop",),
        ("vedette:run:../shop",),
        ("vedette:uid:1",),
    ):
        with pytest.raises(ConfigError):
            workloads.put("other", wish(selectors=bad))
