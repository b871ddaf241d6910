"""The documents of OIDC discovery."""

from __future__ import annotations

import json

import pytest

from vedette.errors import ConfigError
from vedette.identity.discovery import discovery_documents, require_issuer
from vedette.identity.jwt_svid import JwtIssuer

ISSUER = "https://edge-1.example.org/oidc"


def test_they_say_where_the_keys_are_and_hold_nothing_private(jwt_issuer: JwtIssuer) -> None:
    documents = discovery_documents(ISSUER, [jwt_issuer.public])
    configuration = json.loads(documents["/.well-known/openid-configuration"])
    assert (configuration["issuer"], configuration["jwks_uri"]) == (ISSUER, f"{ISSUER}/keys")
    assert configuration["id_token_signing_alg_values_supported"] == ["ES256"]
    (key,) = json.loads(documents["/keys"])["keys"]
    assert (key["kid"], key["use"], key["alg"]) == (jwt_issuer.key_id, "sig", "ES256")
    assert "d" not in key


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example",
        "http://127.0.0.1",
        "https://a.example/",
        "https://a.example?x=1",
        "https://a.example#x",
        "https://u:p@a.example",
        "https://",
        "a.example",
        "https://a.example/" + "x" * 300,
    ],
)
def test_what_is_no_issuer_is_refused(url: str) -> None:
    assert require_issuer(ISSUER) == ISSUER
    with pytest.raises(ConfigError) as caught:
        require_issuer(url)
    assert caught.value.code == "bundle_endpoint_invalid"
