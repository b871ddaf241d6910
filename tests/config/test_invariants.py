"""What must hold between the parts of a snapshot: each broken once, each told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.config.samples import snapshot_data

from vedette.config.model import build
from vedette.config.snapshot import Snapshot
from vedette.errors import ConfigError

Change = Callable[[dict[str, Any]], Any]


def _route(data: dict[str, Any]) -> dict[str, Any]:
    route: dict[str, Any] = data["routes"][1]
    return route


def _key(data: dict[str, Any]) -> dict[str, Any]:
    key: dict[str, Any] = data["identity"]["issuers"][0]["keys"][0]
    return key


def _copy_route(data: dict[str, Any], **changes: Any) -> None:
    data["routes"].append({**_route(data), "name": "zz", **changes})


_LIST = {"name": "drop", "action": "Block", "blob": "sha256:" + "a" * 64, "size": 1}
_SWISS = {"action": "Allow", "codes": ["CH"]}


def _leave(data: dict[str, Any], audience: list[str], **policy: Any) -> None:
    """An egress policy that adds a JWT-SVID."""
    asked = {"jwtSvid": {"audience": audience}}
    rule = {"to": "https://a.example.com", "credential": asked}
    data["egress"] = [{"name": "e", "functions": ["hello"], "rules": [rule], **policy}]


BROKEN: list[tuple[Change, str]] = [
    (lambda d: _leave(d, ["b", "a"]), "audience is not sorted"),
    (lambda d: _leave(d, ["a", "a"]), "audience: a is there more than once"),
    (lambda d: _leave(d, []), "audience"),
    (lambda d: _leave(d, ["a"], routes=["b", "a"]), "egress.e.routes is not sorted"),
    (lambda d: _leave(d, ["a"], routes=[]), "routes"),
    (lambda d: _leave(d, ["a"], workloads=["w"]), "a jwtSvid, which is for functions alone"),
    (
        lambda d: (
            _leave(d, ["a"]),
            d["egress"][0]["rules"][0]["credential"].update(credential="k"),
        ),
        "a credential or a JWT-SVID: exactly one",
    ),
    (
        lambda d: (
            _leave(d, ["a"], functions=[f"f{n:05}" for n in range(10_000)]),
            d["egress"].append({**d["egress"][0], "name": "f", "functions": ["g"]}),
        ),
        "JWT-SVIDs of more than 10,000",
    ),
    (lambda d: d["routes"].reverse(), "routes is not sorted"),
    (lambda d: d["functions"].append(d["functions"][0]), "hello is there more than once"),
    (lambda d: d["admit"]["hosts"].reverse(), "admit.hosts is not sorted"),
    (lambda d: d["admit"]["hosts"].append("LOCALHOST"), "must be written 'localhost'"),
    (lambda d: d["admit"]["hosts"].append("a b"), "'a b' is not a host name"),
    (lambda d: _route(d).update(hosts=["other.org"]), "other.org is not in admit.hosts"),
    (lambda d: _route(d).update(hosts=["example.com"]), "example.com is not in admit.hosts"),
    (
        lambda d: (
            _route(d).update(hosts=["a.mesh", "api.example.com"]),
            d["admit"]["hosts"].append("a.mesh"),
            d["admit"]["hosts"].sort(),
        ),
        "hosts of the mesh and others need routes of their own",
    ),
    (lambda d: d.update(sidecars=[{"name": "fn"}]), "the SPIFFE ID /fn is the node's own"),
    (lambda d: d.update(sidecars=[{"name": "b"}, {"name": "a"}]), "sidecars is not sorted"),
    (lambda d: _route(d)["backend"].update(function="gone"), "there is no function 'gone'"),
    (lambda d: _route(d)["path"].update(value="/hello/"), "no slash at the end"),
    (lambda d: _route(d)["path"].update(value="/a/../b"), "not a path in normal form"),
    (lambda d: _copy_route(d), "route hello already takes api.example.com /hello"),
    (lambda d: _route(d)["backend"].update(type="Other"), "backend"),
    (lambda d: d["functions"][0]["env"].update({"A=B": "x"}), "'A=B' is not a valid name"),
    (lambda d: d["functions"][0]["env"].update(A="x\0"), "env.A holds a NUL"),
    (lambda d: d["functions"][0]["env"].update(A="x" * 200_000), "env is larger than"),
    (lambda d: d["functions"][0].update(limits={"memoryBytes": 1}), "limits.memoryBytes"),
    (lambda d: d["functions"][0].update(size=67_108_865), "size"),
    (lambda d: d["functions"][0].update(component="sha256:00"), "component"),
    (lambda d: d["functions"][0].update(name="Hello"), "name"),
    (lambda d: _key(d).update(alg="HS256"), "alg"),
    (lambda d: _key(d).update(alg="none"), "alg"),
    (lambda d: _key(d).update(alg="RS256"), "RS256 needs a key of type RSA"),
    (lambda d: _key(d).update(alg="ES384"), "ES384 needs a key of type EC on P-384"),
    (lambda d: _key(d)["jwk"].update(d="c2VjcmV0"), "exactly the members crv, kty, x, y"),
    (lambda d: _key(d)["jwk"].update(key_ops=["verify"]), "jwk"),
    (
        lambda d: d["identity"]["issuers"].append({**d["identity"]["issuers"][0], "name": "zz"}),
        "two issuers have the iss spiffe://edge-1.vedette.local",
    ),
    (lambda d: d["identity"]["issuers"][0].update(audiences=[]), "audiences"),
    (lambda d: d["routes"][0]["backend"].update(contentType="a\r\nb: c"), "contentType"),
    (lambda d: d.update(addresses={"lists": []}), "addresses says nothing"),
    (lambda d: d.update(addresses={"lists": [_LIST, _LIST]}), "drop is there more than once"),
    (lambda d: _route(d).update(countries=_SWISS), "the node has no database of countries"),
    (
        lambda d: _route(d).update(countries={"action": "Allow", "codes": ["DE", "CH"]}),
        "countries.codes is not sorted",
    ),
    (lambda d: _route(d).update(countries={"action": "Allow", "codes": ["ch"]}), "codes"),
    (lambda d: d.update(generation=3), "unknown field 'generation'"),
    (lambda d: d.pop("policy"), "policy is missing"),
]


@pytest.mark.parametrize(("change", "sentence"), BROKEN)
def test_a_broken_snapshot_is_refused_with_a_sentence(change: Change, sentence: str) -> None:
    data = snapshot_data()
    change(data)
    with pytest.raises(ConfigError) as caught:
        build(Snapshot, data)
    assert caught.value.code == "snapshot_invalid"
    assert sentence in caught.value.message


def test_every_problem_is_told_at_once() -> None:
    data = snapshot_data()
    data["routes"].reverse()
    data["admit"]["hosts"].reverse()
    with pytest.raises(ConfigError, match=r"routes is not sorted.*admit.hosts is not sorted"):
        build(Snapshot, data)


def test_a_host_of_its_own_and_every_host_may_share_a_path() -> None:
    data = snapshot_data()
    _copy_route(data, hosts=[])
    assert len(build(Snapshot, data).routes) == 3
