"""The policies the node writes itself, and the schema, against the real validator."""

from __future__ import annotations

import pytest

from vedette.config.snapshot import (
    BackendRef,
    FunctionBackend,
    ModelBackend,
    PathMatch,
    Route,
    ServicesBackend,
    StaticBackend,
)
from vedette.errors import ConfigError
from vedette.policy.check import check
from vedette.policy.defaults import (
    DEFAULT_POLICY_NAME,
    callers_route_policy,
    callers_route_policy_name,
    default_policy,
    public_policy,
    public_policy_name,
    public_route_policy,
    public_route_policy_name,
    sidecar_policy,
    sidecar_policy_name,
)
from vedette.policy.resources import resources_of

DOMAIN = "edge-1.vedette.local"


def test_the_default_names_only_this_node() -> None:
    text = default_policy(DOMAIN)
    assert '@id("node-token")' in text
    assert 'principal.issuer == "spiffe://edge-1.vedette.local"' in text


def test_the_default_is_about_functions_and_models() -> None:
    from vedette.engine import _native

    (outline,) = check(
        _native.check_policies, {DEFAULT_POLICY_NAME: default_policy(DOMAIN)}
    ).outlines
    assert outline.is_about("Function", "hello")
    assert outline.is_about("Model", "digits")


def test_a_public_route_to_a_model_lets_anybody_ask_it_there_and_only_there() -> None:
    from vedette.engine import _native

    route = Route(
        name="score",
        hosts=("a.example",),
        path=PathMatch(type="PathPrefix", value="/score"),
        backend=ModelBackend(model="digits"),
    )
    text = public_route_policy("score", [route])
    checked = check(_native.check_policies, {public_route_policy_name("score"): text})
    assert checked.warnings == ()
    (outline,) = checked.outlines
    assert outline.id == "public-route-score-model-1"
    assert (outline.actions, outline.names, outline.conditional) == (
        ("predict",),
        (("Model", "digits"),),
        True,
    )
    assert 'context.host == "a.example"' in text


def test_public_is_a_policy_for_one_function() -> None:
    assert public_policy_name("hello") == "public-hello.cedar"
    assert '@id("public-hello")' in public_policy("hello")
    assert 'resource == Function::"hello"' in public_policy("hello")


@pytest.mark.parametrize("name", ['a" || true', "../a", "A", ""])
def test_a_name_cannot_break_out_of_its_policy(name: str) -> None:
    with pytest.raises(ConfigError):
        public_policy(name)
    with pytest.raises(ConfigError):
        public_policy_name(name)


def test_what_the_node_writes_is_valid_cedar() -> None:
    from vedette.engine import _native

    policies = {DEFAULT_POLICY_NAME: default_policy(DOMAIN), "public-a.cedar": public_policy("a")}
    assert check(_native.check_policies, policies).warnings == ()


def test_a_mistake_is_found_with_its_line() -> None:
    from vedette.engine import _native

    text = '// comment\npermit (principal, action == Action::"invoke", resource)\nwhen { context.pth == "/" };\n'
    with pytest.raises(ConfigError) as caught:
        check(_native.check_policies, {"mine.cedar": text})
    assert caught.value.code == "policy_invalid"
    assert caught.value.file == "mine.cedar"
    assert caught.value.line == 3


def test_a_public_route_is_valid_for_the_real_validator() -> None:
    from vedette.engine import _native

    functions = (BackendRef(kind="Function", name="f"), BackendRef(kind="Upstream", name="u"))
    routes = [
        Route(
            name="one",
            hosts=("*.example.com", "::1"),
            path=PathMatch(type="PathPrefix", value="/a*'%20b"),
            method="GET",
            backend=ServicesBackend(services=functions),
        ),
        Route(
            name="two",
            path=PathMatch(type="PathPrefix", value="/"),
            backend=FunctionBackend(function="f"),
        ),
        Route(name="three", path=PathMatch(type="Exact", value="/x"), backend=StaticBackend()),
    ]
    text = public_route_policy("one", routes)
    checked = check(_native.check_policies, {public_route_policy_name("one"): text})
    assert checked.warnings == ()
    # Each names what is asked about, and nothing else: no Route that only leads to a function.
    asked = {resource for route in routes for resource in resources_of(route)}
    assert {name for outline in checked.outlines for name in outline.names} == asked
    assert text.count("permit (") == len(checked.outlines) == 4
    assert r'context.path like "/a\*' in text


def test_callers_are_valid_for_the_real_validator_and_no_more_than_named() -> None:
    from vedette.engine import _native

    callers = ("spiffe://edge-1.vedette.local/shop", "spiffe://edge-2.vedette.local/a/b.c")
    routes = [
        Route(
            name="one",
            hosts=("f.mesh",),
            path=PathMatch(type="Exact", value="/x"),
            backend=FunctionBackend(function="f"),
        ),
        Route(name="two", path=PathMatch(type="PathPrefix", value="/"), backend=StaticBackend()),
    ]
    texts = {
        callers_route_policy_name("one"): callers_route_policy("one", routes, callers),
        sidecar_policy_name("two"): sidecar_policy("two", routes[1], callers),
    }
    checked = check(_native.check_policies, texts)
    assert checked.warnings == ()
    assert {(each.principal.type, each.principal.id) for each in checked.outlines} == {
        ("Workload", caller) for caller in callers
    }
    assert [each.resource.id for each in checked.outlines] == ["f", "two"] * 2 + ["two"] * 2
    assert [each.conditional for each in checked.outlines] == [True, False] * 2 + [False] * 2
    identities = [each.id for each in checked.outlines]
    assert len(identities) == len(set(identities)), "records name each by its id"
