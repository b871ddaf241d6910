"""JWT-SVIDs: minted ones verify, and each way to forge one is refused."""

from __future__ import annotations

import base64
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from tests.identity.conftest import DOMAIN

from vedette.config.snapshot import IssuerKey
from vedette.errors import ConfigError, TrustError
from vedette.identity.bundle import Bundle
from vedette.identity.domain import SpiffeId
from vedette.identity.jwt_svid import DEFAULT_JWT_TTL, JwtIssuer, verify_jwt_svid
from vedette.identity.keys import public_jwk

SHOP = SpiffeId(DOMAIN, "/shop")
NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def bundles(jwt_issuer: JwtIssuer) -> dict[str, Bundle]:
    return {DOMAIN: Bundle(DOMAIN, jwt_keys=(jwt_issuer.public,))}


def forged(
    issuer: JwtIssuer, headers: dict[str, Any] | None = None, key: Any = None, **claims: Any
) -> str:
    """A token like a minted one but for what is named; a claim of None is left out."""
    body = {
        "sub": str(SHOP),
        "aud": ["a"],
        "iat": NOON,
        "exp": NOON + timedelta(minutes=5),
        **claims,
    }
    body = {name: value for name, value in body.items() if value is not None}
    named = {"kid": issuer.public.kid, **(headers or {})}
    algorithm = named.pop("alg", "ES256")
    return jwt.encode(body, key or issuer._key, algorithm=algorithm, headers=named)


def test_a_minted_token_proves_its_subject_to_its_audience(
    jwt_issuer: JwtIssuer, bundles: dict[str, Bundle]
) -> None:
    svid = jwt_issuer.mint(SHOP, ["a", "b"], DEFAULT_JWT_TTL, NOON)
    assert svid.not_after == NOON + timedelta(minutes=5)
    for audience in ("a", "b"):
        verified = verify_jwt_svid(svid.token, audience, bundles, NOON)
        assert verified.spiffe_id == SHOP
        assert verified.claims["aud"] == ["a", "b"]
    header = jwt.get_unverified_header(svid.token)
    assert header == {"alg": "ES256", "typ": "JWT", "kid": jwt_issuer.public.kid}
    assert svid.token not in repr(svid)


def test_a_token_says_more_where_it_is_asked_to_and_never_another_subject(
    jwt_issuer: JwtIssuer, bundles: dict[str, Bundle]
) -> None:
    more = {"sub": "spiffe://other.example/x", "exp": 1, "example.org/x": 7, "iss": "https://a"}
    token = jwt_issuer.mint(SHOP, ["a"], DEFAULT_JWT_TTL, NOON, more).token
    verified = verify_jwt_svid(token, "a", bundles, NOON)
    assert verified.spiffe_id == SHOP
    assert (verified.claims["example.org/x"], verified.claims["iss"]) == (7, "https://a")


def test_a_token_ends_to_the_second(jwt_issuer: JwtIssuer, bundles: dict[str, Bundle]) -> None:
    token = jwt_issuer.mint(SHOP, ["a"], DEFAULT_JWT_TTL, NOON).token
    end = NOON + DEFAULT_JWT_TTL
    verify_jwt_svid(token, "a", bundles, end - timedelta(seconds=1))
    with pytest.raises(TrustError, match="it has ended"):
        verify_jwt_svid(token, "a", bundles, end)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"aud": ["b"]}, "another audience"),
        ({"aud": []}, "no aud"),
        ({"aud": None}, "no aud"),
        ({"exp": None}, "no exp"),
        ({"exp": NOON - timedelta(seconds=1)}, "has ended"),
        ({"exp": "never"}, "no time"),
        ({"exp": 10**30}, "no time"),
        ({"exp": True}, "no time"),
        ({"nbf": NOON + timedelta(minutes=2)}, "not valid yet"),
        ({"iat": NOON + timedelta(minutes=2)}, "not valid yet"),
        ({"sub": None}, "no SPIFFE ID"),
        ({"sub": "shop"}, "no SPIFFE ID"),
        ({"sub": f"spiffe://{DOMAIN}/shop/"}, "no SPIFFE ID"),
        ({"sub": "spiffe://other.example/shop"}, "not trusted"),
        ({"headers": {"kid": "another"}}, "no key"),
        ({"headers": {"typ": "at+jwt"}}, "alg or typ"),
    ],
)
def test_a_token_that_is_wrong_in_one_thing_is_refused(
    jwt_issuer: JwtIssuer, bundles: dict[str, Bundle], change: dict[str, Any], why: str
) -> None:
    verify_jwt_svid(forged(jwt_issuer), "a", bundles, NOON)
    token = forged(jwt_issuer, **change)
    with pytest.raises(TrustError, match=why) as caught:
        verify_jwt_svid(token, "a", bundles, NOON)
    assert token not in str(caught.value)


def test_a_token_without_a_signature_or_with_a_shared_secret_is_refused(
    jwt_issuer: JwtIssuer, bundles: dict[str, Bundle]
) -> None:
    parts = forged(jwt_issuer).split(".")
    bare = _segment({"alg": "none", "kid": jwt_issuer.public.kid})
    public = jwt_issuer._key.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    hs256 = _segment({"alg": "HS256", "kid": jwt_issuer.public.kid})
    mac = hmac.digest(public, f"{hs256}.{parts[1]}".encode(), "sha256")
    shared = f"{hs256}.{parts[1]}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    for token in (f"{bare}.{parts[1]}.", shared):
        with pytest.raises(TrustError, match="alg or typ"):
            verify_jwt_svid(token, "a", bundles, NOON)


def _segment(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_another_key_that_claims_the_kid_is_refused(
    jwt_issuer: JwtIssuer, bundles: dict[str, Bundle]
) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(TrustError, match="signature"):
        verify_jwt_svid(forged(jwt_issuer, key=other), "a", bundles, NOON)


def test_a_key_counts_for_its_own_algorithm_only(
    jwt_issuer: JwtIssuer, bundles: dict[str, Bundle]
) -> None:
    other = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(TrustError, match="no key"):
        verify_jwt_svid(forged(jwt_issuer, {"alg": "ES384"}, key=other), "a", bundles, NOON)


def test_a_key_of_one_trust_domain_proves_nothing_about_another(jwt_issuer: JwtIssuer) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    foreign = IssuerKey(kid="k", alg="ES256", jwk=public_jwk(other.public_key()))
    bundles = {
        DOMAIN: Bundle(DOMAIN, jwt_keys=(jwt_issuer.public,)),
        "other.example": Bundle("other.example", jwt_keys=(foreign,)),
    }
    good = forged(jwt_issuer, {"kid": "k"}, key=other, sub="spiffe://other.example/x")
    assert verify_jwt_svid(good, "a", bundles, NOON).spiffe_id.trust_domain == "other.example"
    with pytest.raises(TrustError, match="no key"):
        verify_jwt_svid(forged(jwt_issuer, {"kid": "k"}, key=other), "a", bundles, NOON)
    own_for_other = forged(jwt_issuer, sub="spiffe://other.example/x")
    with pytest.raises(TrustError, match="no key"):
        verify_jwt_svid(own_for_other, "a", bundles, NOON)


@pytest.mark.parametrize("text", ["", "a.b.c", "x" * 20_000, "e30.e30.", "\x00", "e30." * 9])
def test_what_is_no_token_is_refused(bundles: dict[str, Bundle], text: str) -> None:
    with pytest.raises(TrustError):
        verify_jwt_svid(text, "a", bundles, NOON)


def test_no_token_is_minted_for_nobody_or_for_no_audience(jwt_issuer: JwtIssuer) -> None:
    with pytest.raises(ConfigError, match="not a workload"):
        jwt_issuer.mint(SpiffeId("other.example", "/x"), ["a"], DEFAULT_JWT_TTL, NOON)
    for audiences in ([], [""], ["a"] * 17, ["x" * 3_000], ["a\n"]):
        with pytest.raises(ConfigError, match="audience"):
            jwt_issuer.mint(SHOP, audiences, DEFAULT_JWT_TTL, NOON)


def test_the_key_is_its_own_and_not_in_the_repr(jwt_issuer: JwtIssuer) -> None:
    secret = jwt_issuer._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert secret.decode() not in repr(jwt_issuer)
    assert set(jwt_issuer.public.jwk) == {"crv", "kty", "x", "y"}
