"""Trust bundles: ours read back, and documents of others that are wrong."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from tests.identity.conftest import DOMAIN

from vedette.errors import ConfigError
from vedette.identity.authority import Authority
from vedette.identity.bundle import MAX_BUNDLE_BYTES, Bundle, own_authority, read_bundle
from vedette.identity.jwt_svid import JwtIssuer


@pytest.fixture
def bundle(authority: Authority, jwt_issuer: JwtIssuer) -> Bundle:
    der = own_authority(authority.certificate)
    return Bundle(DOMAIN, (der,), (jwt_issuer.public,), 7, 300)


def document(bundle: Bundle, **changes: Any) -> bytes:
    return json.dumps({**json.loads(bundle.to_jwks()), **changes}).encode()


def test_a_bundle_reads_back_as_it_was(bundle: Bundle) -> None:
    assert read_bundle(bundle.to_jwks(), DOMAIN) == bundle


def test_the_document_has_the_members_of_the_specification(
    bundle: Bundle, authority: Authority
) -> None:
    told = json.loads(bundle.to_jwks())
    assert set(told) == {"keys", "spiffe_sequence", "spiffe_refresh_hint"}
    x509_key, jwt_key = told["keys"]
    assert set(x509_key) == {"use", "kty", "crv", "x", "y", "x5c"}
    assert x509_key["use"] == "x509-svid"
    assert base64.b64decode(x509_key["x5c"][0]) == own_authority(authority.certificate)
    assert set(jwt_key) == {"use", "kty", "crv", "x", "y", "kid", "alg"}
    assert jwt_key["use"] == "jwt-svid"


def test_keys_for_another_use_are_left_out(bundle: Bundle) -> None:
    keys = json.loads(bundle.to_jwks())["keys"]
    more = [{**keys[0], "use": "wit-svid"}, {"kty": "oct", "k": "x"}, {**keys[1], "use": "sig"}]
    read = read_bundle(document(bundle, keys=[*keys, *more]), DOMAIN)
    assert read == bundle


def test_no_keys_are_a_bundle_that_trusts_nothing(bundle: Bundle) -> None:
    read = read_bundle(document(bundle, keys=[]), DOMAIN)
    assert (read.x509_authorities, read.jwt_keys, read.sequence) == ((), (), 7)


def test_what_is_no_bundle_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    keys = json.loads(bundle.to_jwks())["keys"]
    leaf_pem, _ = Authority.ensure(tmp_path / "o.key", tmp_path / "o.crt", DOMAIN).issue_server([])
    leaf = "".join(leaf_pem.decode().splitlines()[1:-1])
    wrong = [
        b"",
        b"[]",
        b"{}",
        b"{" * 100_000,
        bundle.to_jwks() + b" " * MAX_BUNDLE_BYTES,
        document(bundle, keys={}),
        document(bundle, keys=["x"]),
        document(bundle, keys=[keys[1]] * 65),
        document(bundle, spiffe_sequence=-1),
        document(bundle, spiffe_sequence="8"),
        document(bundle, spiffe_sequence=True),
        document(bundle, spiffe_sequence=2**64),
        document(bundle, spiffe_refresh_hint=1.5),
        document(bundle, keys=[{**keys[0], "x5c": []}]),
        document(bundle, keys=[{**keys[0], "x5c": keys[0]["x5c"] * 2}]),
        document(bundle, keys=[{**keys[0], "x5c": ["!"]}]),
        document(bundle, keys=[{**keys[0], "x5c": ["AAAA"]}]),
        document(bundle, keys=[{**keys[0], "x5c": [leaf]}]),
        document(bundle, keys=[{**keys[0], "d": "secret"}]),
        document(bundle, keys=[{**keys[1], "d": "secret"}]),
        document(bundle, keys=[{name: keys[1][name] for name in keys[1] if name != "kid"}]),
        document(bundle, keys=[{"use": "jwt-svid", "kid": "k", "kty": "oct", "k": "x"}]),
    ]
    with pytest.raises(ConfigError, match="no CA's"):
        read_bundle(document(bundle, keys=[{**keys[0], "x5c": [leaf]}]), DOMAIN)
    for each in wrong:
        with pytest.raises(ConfigError) as caught:
            read_bundle(each, DOMAIN)
        assert caught.value.code == "bundle_invalid", each[:80]


def test_a_ca_of_another_trust_domain_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="another trust domain"):
        read_bundle(bundle.to_jwks(), "other.example")
