"""A grant is one permit, whatever its principal is called."""

from __future__ import annotations

import pytest

from vedette.engine.native import load_native
from vedette.errors import ConfigError
from vedette.policy.check import check
from vedette.policy.grants import Grant, grant_text

OWN = "spiffe://edge-1.example.org"
HELLO = ("Function", "hello")


def of(principal: str, *methods: str) -> Grant:
    return Grant.of("g", principal, OWN, HELLO, methods)


@pytest.mark.parametrize(
    ("principal", "kind", "named"),
    [
        ("alice", "Subject", f"{OWN}#alice"),
        ("https://id.example.com#alice", "Subject", "https://id.example.com#alice"),
        (f"{OWN}#alice", "Subject", f"{OWN}#alice"),
        ("spiffe://edge-2.example.org/shop", "Workload", "spiffe://edge-2.example.org/shop"),
        ("x509:corp#CN=a", "Workload", "x509:corp#CN=a"),
        ('a"b\\c', "Subject", f'{OWN}#a"b\\c'),
    ],
)
def test_a_principal_is_read_as_people_write_it_and_is_the_only_one(
    principal: str, kind: str, named: str
) -> None:
    grant = of(principal, "get", "POST")
    assert (grant.kind, grant.principal, grant.methods) == (kind, named, ("GET", "POST"))
    (outline,) = check(load_native().check_policies, {"grant-g.cedar": grant_text(grant)}).outlines
    assert (outline.id, outline.effect) == ("grant g", "permit")
    assert (outline.principal.type, outline.principal.id) == (kind, named)
    assert (outline.resource.type, outline.resource.id) == HELLO
    assert outline.conditional


def test_a_model_is_granted_to_be_asked() -> None:
    grant = Grant.of("g", "alice", OWN, ("Model", "digits"), ())
    text = grant_text(grant)
    (outline,) = check(load_native().check_policies, {"grant-g.cedar": text}).outlines
    assert outline.is_about("Model", "digits")
    assert not outline.is_about("Function", "digits")


def test_without_methods_it_is_for_all_of_them() -> None:
    assert "when" not in grant_text(of("alice"))


@pytest.mark.parametrize(
    "principal",
    [
        "",
        "anonymous",
        "*",
        "https://id.example.org#*",
        "https://id.example.org#",
        "a\nb",
        "x" * 5_000,
    ],
)
def test_what_is_nobody_in_particular_gets_none(principal: str) -> None:
    with pytest.raises(ConfigError) as caught:
        of(principal)
    assert caught.value.code == "principal_invalid"


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        of("alice", "FETCH")
    assert "'FETCH'" in caught.value.message
