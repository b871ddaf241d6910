"""The difference of two snapshots, object by object."""

from __future__ import annotations

from typing import Any

from tests.config.samples import DIGEST, snapshot, snapshot_data

from vedette.config.difference import difference
from vedette.config.model import build, wire_value
from vedette.config.served import served_model
from vedette.config.snapshot import Snapshot

_TENSOR = {"name": "x", "datatype": "FP32", "shape": [0]}
MODEL = served_model(
    {
        "name": "m",
        "version": 1,
        "blob": DIGEST,
        "size": 1,
        "format": "onnx",
        "inputs": [_TENSOR],
        "outputs": [_TENSOR],
    }
)


def _changed(**parts: Any) -> Snapshot:
    return build(Snapshot, {**snapshot_data(), **parts})


def test_the_same_differs_in_nothing() -> None:
    assert difference(snapshot(), snapshot()) == []


def test_a_field_shows_both_values() -> None:
    functions = snapshot_data()["functions"]
    functions[0]["env"] = {"GREETING": "Hi", "NEW": "1"}
    functions[0]["limits"] = {"cpuMillis": 7}
    (change,) = difference(snapshot(), _changed(functions=functions))
    assert (change.action, change.kind, change.name) == ("update", "Function", "hello")
    assert [(each.path, each.old, each.new) for each in change.fields] == [
        ("env.GREETING", "Grüße", "Hi"),
        ("env.NEW", None, "1"),
        ("limits.cpuMillis", 1_000, 7),
    ]


def test_what_comes_and_goes_is_created_and_deleted() -> None:
    routes = snapshot_data()["routes"]
    routes[0]["name"] = "alive"
    found = [(each.action, each.name) for each in difference(snapshot(), _changed(routes=routes))]
    assert found == [("create", "alive"), ("delete", "health")]


def test_another_kind_of_answer_is_a_replacement() -> None:
    routes = snapshot_data()["routes"]
    routes[0]["backend"] = {"type": "Function", "function": "hello"}
    (change,) = difference(snapshot(), _changed(routes=routes))
    assert change.action == "replace"


def test_a_host_belongs_to_the_route_that_names_it() -> None:
    data = snapshot_data()
    data["admit"]["hosts"] = sorted([*data["admit"]["hosts"], "new.example.org"])
    extra = build(Snapshot, data)
    data["routes"][0]["hosts"] = ["new.example.org"]
    routed = build(Snapshot, data)
    assert [each.kind for each in difference(snapshot(), extra)] == ["Node"]
    assert [each.kind for each in difference(snapshot(), routed)] == ["Route"]


def test_tls_without_settings_is_seen() -> None:
    plain = {"name": "u", "endpoints": [{"host": "10.0.0.1", "port": 80}]}
    before = _changed(upstreams=[plain])
    after = _changed(upstreams=[{**plain, "tls": {}}])
    (change,) = difference(before, after)
    assert [(each.path, each.old, each.new) for each in change.fields] == [("tls", None, {})]


def test_no_part_of_a_snapshot_can_change_unseen() -> None:
    """Every field that a snapshot has: a change of its bytes is a change somebody sees."""
    for part, value in {
        "node": {"trustDomain": "other.vedette.local"},
        "admit": {**snapshot_data()["admit"], "timers": {"idleMillis": 5_000}},
        "identity": {**snapshot_data()["identity"], "revokedTokens": ["i#t"]},
        "policy": {**snapshot_data()["policy"], "schema": "sha256:" + "c" * 64},
        "functions": [{**snapshot_data()["functions"][0], "size": 101}],
        "routes": [snapshot_data()["routes"][1]],
        "upstreams": [{"name": "u", "endpoints": [{"host": "10.0.0.1", "port": 80}]}],
        "limits": [{"name": "l", "per": [], "concurrency": 1}],
        "egress": [{"name": "e", "workloads": ["w"], "rules": [{"to": "https://a.example.com"}]}],
        "sidecars": [{"name": "shop"}],
        "waf": {"version": "4.25.0", "rules": "sha256:" + "d" * 64},
        "models": [dict(wire_value(MODEL))],
        "addresses": {
            "lists": [],
            "countries": {"blob": "sha256:" + "e" * 64, "size": 1},
        },
    }.items():
        assert len(difference(snapshot(), _changed(**{part: value}))) == 1, part
    assert set(Snapshot.model_fields) - {"api_version", "kind"} == {
        "node", "admit", "identity", "policy", "functions", "routes", "upstreams", "limits", "egress", "waf",
        "addresses", "sidecars", "models", "remote_models",
    }  # fmt: skip


def test_a_model_that_only_tiers_have_is_a_model_that_comes_with_its_route() -> None:
    tier = {"name": "t", "url": "https://t", "model": "M", "on": ["Missing"], "inputs": ["x"]}
    route = {
        "name": "zz",
        "path": {"type": "PathPrefix", "value": "/far"},
        "backend": {"type": "Model", "model": "far"},
        "tiers": [tier],
    }
    remote = {"name": "far", "inputs": [_TENSOR], "outputs": [_TENSOR]}
    routes = [*snapshot_data()["routes"], route]
    after = _changed(remoteModels=[remote], routes=routes)
    found = [(each.action, each.kind, each.name) for each in difference(snapshot(), after)]
    assert found == [("create", "Model", "far"), ("create", "Route", "zz")]
    (change,) = difference(
        after, _changed(remoteModels=[{**remote, "requestBytes": 2048}], routes=routes)
    )
    assert [each.path for each in change.fields] == ["requestBytes"]


def test_a_list_of_addresses_is_an_object_of_its_own() -> None:
    one = {"name": "drop", "action": "Block", "blob": "sha256:" + "e" * 64, "size": 1}
    (change,) = difference(snapshot(), _changed(addresses={"lists": [one]}))
    assert (change.action, change.kind, change.name) == ("create", "AddressList", "drop")
