"""JWT-SVIDs of functions: what they say, whom they are for, until when, and who has none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from tests.config.samples import snapshot

from vedette.config.snapshot import Snapshot
from vedette.control.bootstrap import Keys, NodeFacts, open_keys
from vedette.control.function_tokens import FunctionTokens, asked_of
from vedette.control.workload.identities import Identities
from vedette.errors import TrustError
from vedette.identity.domain import spiffe_id
from vedette.identity.jwt_svid import verify_jwt_svid
from vedette.store.home import Home

DOMAIN = snapshot().node.trust_domain
AUDIENCES = ["billing", "stock"]


def wanting(*audience: str, **more: Any) -> Snapshot:
    """The sample; calls of its function carry a JWT-SVID for these audiences."""
    asked = {"jwtSvid": {"audience": list(audience)}}
    rule = {"to": "https://api.example.com", "credential": asked}
    policy = {"name": "p", "functions": ["gone", "hello"], "rules": [rule]}
    data = json.loads(snapshot().canonical_bytes())
    return Snapshot.model_validate({**data, "egress": [policy], **more})


class Clock:
    def __init__(self) -> None:
        self.at = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.at


class Minting:
    """A node's keys and tokens, on a clock that is moved by hand."""

    def __init__(self, home: Home, keys: Keys) -> None:
        self.clock = Clock()
        self.keys = keys
        self.identities = Identities(home, keys, self.clock)
        self.versions = {"hello": 7}
        self.tokens = FunctionTokens(self.identities, lambda name, component: self.versions[name])

    def step(self, wanted: Snapshot) -> list[dict[str, Any]]:
        return self.tokens.step(wanted, self.clock())

    def token(self, wanted: Snapshot) -> str:
        (one,) = self.step(wanted)
        return str(one["token"])


@pytest.fixture
def minting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minting]:
    home = Home(tmp_path_factory.mktemp("n") / "home")
    home.create()
    made = Minting(home, open_keys(home, NodeFacts(DOMAIN, "local", None, None)))
    yield made
    made.identities.close()


def test_a_token_says_who_which_component_and_which_version_of_it(minting: Minting) -> None:
    wanted = wanting(*AUDIENCES)
    component = wanted.functions[0].component
    (written,) = minting.step(wanted)
    bundles = {DOMAIN: minting.identities.own_bundle()}
    for audience in AUDIENCES:
        proved = verify_jwt_svid(written["token"], audience, bundles, minting.clock())
        assert str(proved.spiffe_id) == f"spiffe://{DOMAIN}/fn/hello"
    with pytest.raises(TrustError, match="another audience"):
        verify_jwt_svid(written["token"], "other", bundles, minting.clock())
    claims = proved.claims
    assert claims["vedette.dev/component"] == component
    assert claims["vedette.dev/version"] == 7
    assert claims["exp"] - claims["iat"] == 300
    assert written == {
        "name": "fn/hello",
        "component": component,
        "audience": AUDIENCES,
        "token": written["token"],
        "ends": claims["exp"],
    }
    assert "iss" not in claims


def test_a_token_is_kept_for_half_of_its_life_and_no_longer(minting: Minting) -> None:
    wanted = wanting("a")
    first = minting.token(wanted)
    minting.clock.at += timedelta(seconds=149)
    assert minting.token(wanted) == first
    minting.clock.at += timedelta(seconds=1)
    second = minting.token(wanted)
    assert second != first
    minting.clock.at -= timedelta(minutes=10)
    assert minting.token(wanted) not in (first, second), "it would not be valid yet"


def test_another_component_has_another_token(minting: Minting) -> None:
    wanted = wanting("a")
    first = minting.token(wanted)
    other = {**json.loads(wanted.canonical_bytes())["functions"][0]}
    other["component"] = "sha256:" + "9" * 64
    minting.versions["hello"] = 9
    (second,) = minting.step(wanting("a", functions=[other]))
    assert second["component"] == other["component"]
    claims = jwt.decode(second["token"], options={"verify_signature": False})
    assert claims["vedette.dev/component"] == other["component"]
    assert claims["vedette.dev/version"] == 9
    assert minting.token(wanted) != first, "what was taken back does not return"


def test_who_is_revoked_gone_or_not_asked_for_has_none(minting: Minting) -> None:
    assert [one.function for one in asked_of(wanting("a"))] == ["hello"]
    identity = json.loads(wanting("a").canonical_bytes())["identity"]
    revoked = {**identity, "revokedSpiffeIds": [spiffe_id(DOMAIN, "/fn/hello")]}
    assert minting.step(wanting("a", identity=revoked)) == []
    assert minting.step(wanting("a", functions=[], routes=[])) == []
    assert minting.step(snapshot()) == []


def test_a_key_that_signs_now_signs_all_tokens_and_others_are_told_of_it(minting: Minting) -> None:
    wanted = wanting("a")
    first = minting.token(wanted)
    keys = minting.keys.jwt_svids
    before = keys.active.key_id
    keys.rotate(minting.clock(), timedelta(seconds=40))
    minting.identities.keys_changed()
    assert minting.token(wanted) == first, "one that is prepared signs nothing"
    minting.clock.at += timedelta(seconds=41)
    assert keys.step(minting.clock())
    minting.identities.keys_changed()
    second = minting.token(wanted)
    assert jwt.get_unverified_header(second)["kid"] == keys.active.key_id != before
    bundles = {DOMAIN: minting.identities.own_bundle()}
    for token in (first, second):
        verify_jwt_svid(token, "a", bundles, minting.clock())


def test_a_token_names_the_oidc_issuer_once_there_is_one(minting: Minting) -> None:
    wanted = wanting("a")
    minting.token(wanted)
    minting.identities.oidc_issuer = "https://edge-1.example.org"
    claims = jwt.decode(minting.token(wanted), options={"verify_signature": False})
    assert claims["iss"] == "https://edge-1.example.org"


def test_no_token_is_in_what_is_printed_of_these(minting: Minting) -> None:
    token = minting.token(wanting("a"))
    assert token not in repr(minting.tokens) + repr(vars(minting.tokens))
