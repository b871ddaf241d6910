"""SVIDs that the engine shows: who has one, until when, and that the engine hears of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from tests.config.samples import snapshot

from vedette.config.snapshot import Snapshot
from vedette.control.bootstrap import NodeFacts, open_keys
from vedette.control.engine_svids import EngineSvids, wanted_of
from vedette.control.function_tokens import FunctionTokens
from vedette.control.workload.identities import Identities
from vedette.errors import UnavailableError
from vedette.store.home import Home

PEER = "spiffe://edge-2.vedette.local/shop"


def with_peers(**more: Any) -> Snapshot:
    """The sample, with a function that shows its SVID."""
    name = snapshot().functions[0].name
    rule = {"to": "https://api.example.com", "peers": [PEER]}
    policy = {"name": "p", "functions": [name], "rules": [rule]}
    data = json.loads(snapshot().canonical_bytes())
    return Snapshot.model_validate({**data, "egress": [policy], **more})


def test_only_who_is_to_show_one_has_one() -> None:
    assert wanted_of(snapshot()) == {}
    function = snapshot().functions[0]
    assert wanted_of(with_peers()) == {f"fn/{function.name}": function.component}
    upstream = {
        "name": "u",
        "endpoints": [{"host": "10.0.0.1", "port": 443}],
        "tls": {"peers": [PEER]},
    }
    assert "gateway" in wanted_of(with_peers(upstreams=[upstream]))


def test_a_sidecar_has_one_unless_its_identity_is_revoked() -> None:
    data = json.loads(snapshot().canonical_bytes())
    meshed = {**data, "sidecars": [{"name": "billing"}, {"name": "shop"}]}
    assert wanted_of(Snapshot.model_validate(meshed)) == {"billing": None, "shop": None}
    domain = snapshot().node.trust_domain
    meshed["identity"] = {**data["identity"], "revokedSpiffeIds": [f"spiffe://{domain}/shop"]}
    assert wanted_of(Snapshot.model_validate(meshed)) == {"billing": None}


def test_who_answers_a_route_with_peers_shows_its_own() -> None:
    rule = {"to": "https://api.example.com", "peers": [PEER]}
    (route,) = [each for each in snapshot().routes if each.backend.type == "Function"]
    policy = {"name": "p", "routes": [route.name], "rules": [rule]}
    function = snapshot().functions[0]
    assert wanted_of(with_peers(egress=[policy])) == {f"fn/{function.name}": function.component}
    assert wanted_of(with_peers(egress=[{**policy, "routes": ["gone"]}])) == {}


Served = tuple[EngineSvids, "Engine", "Clock", list[Snapshot]]


class Engine:
    """Counts what it is told; away when it is said to be."""

    def __init__(self) -> None:
        self.told = 0
        self.is_away = False

    def reload_svids(self) -> None:
        if self.is_away:
            raise UnavailableError("engine_away", "away")
        self.told += 1


class Clock:
    def __init__(self) -> None:
        self.at = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.create()
    return made


@pytest.fixture
def served(home: Home) -> Iterator[Served]:
    keys = open_keys(home, NodeFacts(snapshot().node.trust_domain, "local", None, None))
    clock, engine, active = Clock(), Engine(), [with_peers()]
    identities = Identities(home, keys, clock)
    tokens = FunctionTokens(identities, lambda function, component: 7)
    yield EngineSvids(home, identities, lambda: active[0], engine, tokens), engine, clock, active  # type: ignore[arg-type]
    identities.close()


def held(home: Home) -> dict[str, Any]:
    return dict(json.loads(home.engine_svids.read_bytes()))


def serial(home: Home) -> int:
    (one,) = held(home)["svids"].values()
    return x509.load_der_x509_certificate(base64.b64decode(one["chain"][0])).serial_number


def test_an_svid_is_renewed_at_half_of_its_life(home: Home, served: Served) -> None:
    svids, engine, clock, _ = served
    svids.step()
    svids.step()
    first = serial(home)
    assert engine.told == 1
    assert home.engine_svids.stat().st_mode & 0o777 == 0o600
    clock.at += timedelta(minutes=29)
    svids.step()
    assert serial(home) == first
    clock.at += timedelta(minutes=2)
    svids.step()
    assert serial(home) != first
    assert engine.told == 2


def test_a_clock_that_goes_back_gets_one_that_is_valid(home: Home, served: Served) -> None:
    svids, _, clock, _ = served
    svids.step()
    first = serial(home)
    clock.at -= timedelta(hours=2)
    svids.step()
    assert serial(home) != first


def test_an_engine_that_was_away_is_told_again(home: Home, served: Served) -> None:
    svids, engine, _, _ = served
    engine.is_away = True
    with pytest.raises(UnavailableError):
        svids.step()
    assert svids.shown == {}, "what the engine was not told it does not show"
    engine.is_away = False
    svids.step()
    assert engine.told == 1
    assert list(svids.shown) == [f"fn/{snapshot().functions[0].name}"]


def test_who_is_not_to_show_one_any_more_loses_it(home: Home, served: Served) -> None:
    svids, _, _, active = served
    svids.step()
    before = serial(home)
    active[0] = snapshot()
    svids.step()
    assert held(home) == {"svids": {}, "bundles": {}, "revoked": []}
    active[0] = with_peers()
    svids.step()
    assert f"{before:x}" in held(home)["revoked"]


def with_tokens() -> Snapshot:
    """The sample, with a function whose calls carry its JWT-SVID."""
    asked = {"jwtSvid": {"audience": ["billing"]}}
    rule = {"to": "https://api.example.com", "credential": asked}
    policy = {"name": "p", "functions": ["hello"], "rules": [rule]}
    data = json.loads(snapshot().canonical_bytes())
    return Snapshot.model_validate({**data, "egress": [policy]})


def test_the_engine_has_the_tokens_that_rules_add_and_nobody_else(
    home: Home, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    svids, engine, clock, active = served
    active[0] = with_tokens()
    svids.step()
    svids.step()
    assert engine.told == 1
    (written,) = held(home)["tokens"]
    assert (written["name"], written["audience"]) == ("fn/hello", ["billing"])
    assert held(home)["svids"] == {}
    assert home.engine_svids.stat().st_mode & 0o777 == 0o600
    clock.at += timedelta(minutes=3)
    svids.step()
    (renewed,) = held(home)["tokens"]
    assert renewed["token"] != written["token"]
    assert engine.told == 2
    active[0] = snapshot()
    svids.step()
    assert held(home) == {"svids": {}, "bundles": {}, "revoked": []}
    assert written["token"] not in caplog.text
