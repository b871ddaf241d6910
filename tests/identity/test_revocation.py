"""What is revoked is spelled in one way, and read in several."""

from __future__ import annotations

import pytest

from vedette.errors import ConfigError
from vedette.identity.revocation import Revocation, from_engine, parse_revocation

OWN = "spiffe://edge-1.vedette.local"
DOMAINS = {"edge-2.example.org"}
ALL = [
    Revocation("token", OWN, "5b1c6a0e"),
    Revocation("certificate", "corp", "a1f"),
    Revocation("spiffeId", "", "spiffe://edge-2.example.org/shop"),
    Revocation("trustDomain", "", "edge-2.example.org"),
]


def parse(text: str) -> Revocation:
    return parse_revocation(text, OWN, DOMAINS)


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.kind)
def test_what_is_written_is_read_again(one: Revocation) -> None:
    assert parse(str(one)) == one
    assert from_engine(one.to_engine()) == one


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5b1c6a0e", ALL[0]),
        ("https://id.example.com#7", Revocation("token", "https://id.example.com", "7")),
        ("corp/0A:1F", ALL[1]),
        ("edge-2.example.org", ALL[3]),
        ("spiffe://edge-2.example.org", ALL[3]),
    ],
)
def test_it_is_read_as_people_write_it(text: str, expected: Revocation) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("spiffe://Edge/x", "spiffe_id_invalid"),
        ("spiffe://edge/x/", "spiffe_id_invalid"),
        ("corp/xyz", "certificate_unreadable"),
        ("../0a", "invalid_name"),
        ("edge-3.example.org", "jti_unknown"),
        ("a.b.c", "jti_unknown"),
        ("x" * 300, "jti_unknown"),
        (f"{OWN}#", "jti_unknown"),
    ],
)
def test_what_is_nothing_that_can_be_revoked_is_refused(text: str, code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.code == code


def test_a_token_is_not_quoted() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2ln")
    assert "eyJ" not in str(caught.value.to_dict())
