"""Exclusions that do nothing are told, and no others."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vedette.config.waf import WafExclusion
from vedette.policy import coreruleset
from vedette.policy.rules import (
    FIRST_OWN,
    NODES_OWN,
    Rule,
    covers,
    own_rules,
    packed_rules,
    rules_of,
    without_effect,
)

ENGINE = Path(__file__).resolve().parents[2] / "crates/engine/src/waf"
FILE = """\
# SecRule ARGS "x" "id:1,phase:2"
SecRule ARGS|!ARGS:/a|b/|!FILES|&REQUEST_COOKIES:x "@rx a \\"quoted\\" id:9" \\
    "id:942100,\\
    phase:2,\\
    tag:'attack-sqli',\\
    tag:plain,\\
    msg:'a, b',\\
    chain"
    SecRule TX:0 "@eq 1" "t:none"
  secaction "id:'77',phase:1,nolog,pass"
SecMarker END
"""


DAY = datetime(2026, 11, 22, tzinfo=UTC)


def told(*rules: str, parameter: str | None = None, until: datetime | None = None) -> list[str]:
    end = None if until is None else int(until.timestamp())
    exclusion = WafExclusion(rules=rules, parameter=parameter, until=end, reason="r")
    return list(without_effect(exclusion, [*rules_of(FILE), *own_rules(2)], DAY))


def test_the_rules_of_a_file_are_known_by_id_tags_and_where_they_look() -> None:
    assert list(rules_of(FILE)) == [
        Rule(942100, ("attack-sqli", "plain"), frozenset({"ARGS", "REQUEST_COOKIES"})),
        Rule(77, (), frozenset()),
    ]


def test_every_rule_of_the_core_rule_set_is_found() -> None:
    packed = coreruleset.PACKED.read_bytes()
    archive = json.loads(packed)
    lines = [
        line
        for name in archive["load"]
        for line in archive["files"][name].splitlines()
        if not line.lstrip().startswith("#")
    ]
    ids = {int(each) for line in lines for each in re.findall(r'["\s,]id:(\d+)', line)}
    rules = packed_rules(packed)
    assert {rule.id for rule in rules} == ids
    assert len(rules) == len(ids) > 500
    (known,) = (rule for rule in rules if rule.id == 942100)
    assert "attack-sqli" in known.tags
    assert known.looks_at is not None
    assert known.looks_at >= {"ARGS", "REQUEST_COOKIES"}
    assert packed_rules(b"rules") == []


def test_the_rules_that_a_node_sets_itself_are_the_engines() -> None:
    text = (ENGINE / "node.conf").read_text()
    found = [rule.id for rule in rules_of(text) if rule.looks_at]
    assert tuple(found) == NODES_OWN
    assert f"OWN_RULES: u64 = {FIRST_OWN:_};" in (ENGINE / "sets.rs").read_text()


@pytest.mark.parametrize(
    "rule",
    ["942100", "942000-942999", "tag:attack-sqli", "tag:/^attack-/", "77", "9000001"],
)
def test_an_exclusion_that_names_a_rule_is_not_told(rule: str) -> None:
    assert told(rule) == []


@pytest.mark.parametrize(
    ("rule", "shown"),
    [
        ("942101", "rule 942101"),
        ("942200-942999", "rule 942200-942999"),
        ("tag:attack", "tag:attack"),
        ("tag:/^sqli/", "tag:/^sqli/"),
        ("9000002", "rule 9000002"),
    ],
)
def test_an_exclusion_that_names_no_rule_is_told(rule: str, shown: str) -> None:
    says = f"the exclusion of {shown} has no effect: no rule of the node is that"
    assert told("942100", rule) == [says]


def test_an_exclusion_whose_last_day_is_over_is_told_once() -> None:
    assert told("942100", until=DAY + timedelta(seconds=1)) == []
    ended = "the exclusion of 942100, 1 has no effect: its last day was 2026-11-21"
    assert told("942100", "1", until=DAY) == [ended]


def test_a_part_at_which_no_rule_looks_is_told() -> None:
    assert told("942100", parameter="ARGS:comment") == []
    assert told("9000000", parameter="REQUEST_BODY") == [], "what a typed rule looks at is not read"
    assert told("942100", parameter="REQUEST_HEADERS:Referer") == [
        (
            "the exclusion of REQUEST_HEADERS:Referer from rule 942100 has no effect: "
            "it does not begin by looking there"
        )
    ]


@pytest.mark.parametrize(
    ("rules", "parameter", "is_covered"),
    [
        ("942100", None, True),
        ("942101", None, False),
        ("tag:attack-sqli", "ARGS:comment", True),
        ("942000-942999", "ARGS", True),
        ("942100", "ARGS:COMMENT", True),
        ("942100", "ARGS:/^COM/", True),
        ("942100", "ARGS:/^om/", False),
        ("942100", "ARGS:title", False),
        ("942100", "ARGS_NAMES:comment", False),
        ("942100", "ARGS_NAMES", False),
    ],
)
def test_an_exclusion_covers_a_rule_in_a_part_or_not(
    rules: str, parameter: str | None, is_covered: bool
) -> None:
    exclusion = WafExclusion(rules=(rules,), parameter=parameter, reason="r")
    assert covers(exclusion, Rule(942100, ("attack-sqli",)), "ARGS:comment") is is_covered
