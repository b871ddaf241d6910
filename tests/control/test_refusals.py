"""A refusal of the engine's says which rule, file or object it is about."""

from __future__ import annotations

import pytest
from tests.config.samples import snapshot

from vedette.config.snapshot import Snapshot
from vedette.config.waf import Waf, WafExclusion, WafOverride, WafPolicy, WafRule
from vedette.control.refusals import about, is_named
from vedette.errors import ConfigError


def rule(name: str) -> WafRule:
    return WafRule(name=name, field="path", operator="Matches", value="(")


@pytest.fixture
def guarded() -> Snapshot:
    """A node with a rule of its own, and a route with two."""
    base = snapshot()
    digest = "sha256:" + "1" * 64
    waf = Waf(version="4", rules=digest, policy=WafPolicy(rules=(rule("nodes"),)))
    own = WafOverride(rules=(rule("first"), rule("second")))
    routes = tuple(each.model_copy(update={"waf": own}) for each in base.routes)
    return base.with_(waf=waf, routes=routes)


@pytest.mark.parametrize(
    ("whose", "number", "who", "name"),
    [
        ("waf", 9_000_000, "the Node", "nodes"),
        ("{route}", 9_000_000, "route {route}", "nodes"),
        ("{route}", 9_000_002, "route {route}", "second"),
    ],
)
def test_a_typed_rule_is_called_by_its_name(
    guarded: Snapshot, whose: str, number: int, who: str, name: str
) -> None:
    route = guarded.routes[0].name
    text = f"{whose.format(route=route)}: custom rule {number}:0: the pattern is none"
    found = about(ConfigError("waf_invalid", text), guarded)
    assert found.error.message == f"{who.format(route=route)}: rule {name!r}: the pattern is none"
    assert found.rule is not None
    assert found.rule.name == name
    assert found.key == (("Node", "node") if whose == "waf" else ("Route", route))


def test_a_line_of_a_rule_file_is_a_place(guarded: Snapshot) -> None:
    text = "shop: own/rules/my:own.conf:12: unknown operator `@containz`"
    error = about(ConfigError("waf_invalid", text), guarded).error
    assert (error.file, error.line) == ("rules/my:own.conf", 12)
    assert error.message == "route shop: unknown operator `@containz`"


@pytest.mark.parametrize(
    ("code", "message", "key"),
    [
        ("waf_invalid", "shop: the exclusion of rule 1: no", ("Route", "shop")),
        ("waf_invalid", "waf: custom rule 9000009:0: no such rule", ("Node", "node")),
        ("addresses_invalid", "drop: line 3: no address", ("AddressList", "drop")),
        ("addresses_invalid", "countries: it ends early", ("Node", "node")),
        ("admit_invalid", "challenge: crawler", ("Node", "node")),
        ("route_invalid", "shop: a header", ("Route", "shop")),
        ("limit_invalid", "all: too many", None),
        ("route_invalid", "no name", None),
    ],
)
def test_what_else_is_refused_names_its_object(
    guarded: Snapshot, code: str, message: str, key: tuple[str, str] | None
) -> None:
    found = about(ConfigError(code, message), guarded)
    assert (found.error.message, found.key, found.rule) == (message, key, None)


@pytest.mark.parametrize(
    ("selector", "message", "named"),
    [
        ("942100", "shop: the exclusion of rule 942100: unknown variable `ARGZ`", True),
        ("94210", "shop: the exclusion of rule 942100: unknown variable `ARGZ`", False),
        ("942100-942199", "shop: the exclusion of rules 942100-942199: no", True),
        ("942100", "shop: the exclusion of rules 942100-942199: no", False),
        ("tag:a/b", "shop: the exclusion of tag a/b takes away", True),
        ("tag:a", "shop: the exclusion of tag a/b takes away", False),
        ("tag:c", "shop: the exclusion of tag a/b takes away", False),
    ],
)
def test_an_exclusion_is_known_by_its_rules(selector: str, message: str, named: bool) -> None:
    assert is_named(WafExclusion(rules=(selector,), reason="r"), message) is named
