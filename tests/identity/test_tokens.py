"""The node's own tokens, checked by an independent verifier."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest

from vedette.clock import now
from vedette.errors import ConfigError
from vedette.identity.tokens import TokenIssuer

DOMAIN = "edge-1.vedette.local"


@pytest.fixture
def issuer(tmp_path: Path) -> TokenIssuer:
    return TokenIssuer.ensure(tmp_path / "token.key", DOMAIN)


def _claims(issuer: TokenIssuer, token: str, audience: str | None = None) -> dict[str, Any]:
    public = issuer.public_issuer()
    key = jwt.PyJWK(public.keys[0].jwk, algorithm=public.keys[0].alg)
    return jwt.decode(
        token,
        key,
        algorithms=["ES256"],
        audience=audience or public.audiences[0],
        issuer=public.issuer,
        options={"require": ["exp", "nbf", "iat", "jti", "sub"]},
    )


def test_a_token_verifies_under_the_published_key(issuer: TokenIssuer) -> None:
    minted = issuer.mint("alice", timedelta(hours=1), scopes=["read", "write"])
    claims = _claims(issuer, minted.token)
    assert claims["sub"] == "alice"
    assert claims["iss"] == f"spiffe://{DOMAIN}"
    assert claims["aud"] == f"spiffe://{DOMAIN}/gateway"
    assert claims["scope"] == "read write"
    assert claims["exp"] - claims["iat"] == 3_600
    assert claims["exp"] == minted.expires_at.timestamp()
    assert abs(claims["iat"] - now().timestamp()) < 5


def test_the_header_names_the_published_key(issuer: TokenIssuer) -> None:
    header = jwt.get_unverified_header(issuer.mint("alice").token)
    assert header == {"alg": "ES256", "kid": issuer.public_issuer().keys[0].kid, "typ": "JWT"}


def test_the_key_survives_a_restart(tmp_path: Path, issuer: TokenIssuer) -> None:
    again = TokenIssuer.load(tmp_path / "token.key", DOMAIN)
    assert again.public_issuer() == issuer.public_issuer()
    assert _claims(again, issuer.mint("alice").token)["sub"] == "alice"


def test_no_two_tokens_have_one_id(issuer: TokenIssuer) -> None:
    ids = {_claims(issuer, issuer.mint("a").token)["jti"] for _ in range(5)}
    assert len(ids) == 5


def test_another_audience_is_only_for_that_audience(issuer: TokenIssuer) -> None:
    token = issuer.mint("alice", audience="https://other").token
    assert _claims(issuer, token, "https://other")["aud"] == "https://other"
    with pytest.raises(jwt.InvalidAudienceError):
        _claims(issuer, token)


@pytest.mark.parametrize(
    ("ttl", "long", "allowed"),
    [
        (timedelta(hours=24), False, True),
        (timedelta(hours=24, seconds=1), False, False),
        (timedelta(days=30), True, True),
        (timedelta(days=31), True, False),
        (timedelta(0), False, False),
        (timedelta(seconds=-5), True, False),
    ],
)
def test_a_lifetime_has_bounds(
    issuer: TokenIssuer, ttl: timedelta, long: bool, allowed: bool
) -> None:
    if allowed:
        assert issuer.mint("alice", ttl, long=long).token
        return
    with pytest.raises(ConfigError) as caught:
        issuer.mint("alice", ttl, long=long)
    assert caught.value.code == "token_ttl"


@pytest.mark.parametrize("subject", ["", "a\n", "a\0", "x" * 256])
def test_an_odd_subject_is_refused(issuer: TokenIssuer, subject: str) -> None:
    with pytest.raises(ConfigError) as caught:
        issuer.mint(subject)
    assert caught.value.code == "token_subject"


@pytest.mark.parametrize("scope", ["", "a b", 'a"b', "ä"])
def test_an_odd_scope_is_refused(issuer: TokenIssuer, scope: str) -> None:
    with pytest.raises(ConfigError) as caught:
        issuer.mint("alice", scopes=[scope])
    assert caught.value.code == "token_scope"


def test_neither_key_nor_token_is_shown(issuer: TokenIssuer) -> None:
    minted = issuer.mint("alice")
    assert minted.token not in repr(minted)
    assert "private" not in repr(issuer).lower()
    assert set(issuer.public_issuer().keys[0].jwk) == {"kty", "crv", "x", "y"}
    assert '"d"' not in json.dumps(issuer.public_issuer().keys[0].jwk)
