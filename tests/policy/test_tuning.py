"""Which exclusions events suggest, and what each would have let through."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from vedette.policy.attacks import Attack
from vedette.policy.tuning import as_now, groups, joint, proof, switches_scoring_off


def event(
    client: str = "192.0.2.7:4711", *violations: tuple[int, str, int], **more: Any
) -> dict[str, Any]:
    """A security event of the route `shop`; violations are rule, location and severity."""
    found = violations or ((942100, "ARGS:comment", 2),)
    points = {2: 5, 3: 4, 4: 3, 5: 2}
    return {
        "kind": "security",
        "time": "2026-11-21T10:00:00Z",
        "action": "blocked",
        "route": "shop",
        "client": client,
        "method": "POST",
        "url": "https://shop.example.com/reviews?page=…",
        "score": sum(points[severity] for _, _, severity in found),
        "threshold": 5,
        "violations": [
            {"rule": rule, "message": f"rule {rule}", "location": location, "severity": severity}
            for rule, location, severity in found
        ],
        **more,
    }


def test_events_are_alike_by_route_rule_and_part() -> None:
    found = groups(
        [
            event("192.0.2.7:1"),
            event("192.0.2.8:1"),
            event("192.0.2.8:2"),
            event("192.0.2.8:2", (942100, "ARGS:title", 2)),
            event("[2001:db8::1]:2", route="other"),
        ]
    )
    assert [(each.route, each.rule, each.part, len(each.events)) for each in found] == [
        ("shop", 942100, "ARGS:comment", 3),
        ("other", 942100, "ARGS:comment", 1),
        ("shop", 942100, "ARGS:title", 1),
    ]
    assert [each.clients for each in found] == [2, 1, 1]
    assert (found[0].place.host, found[0].place.path) == ("shop.example.com", "/reviews")


def test_what_was_not_stopped_suggests_nothing() -> None:
    assert groups([event(action="noted"), event(route=None)]) == []
    assert groups([{"kind": "security", "action": "blocked", "route": "shop"}]) == []
    assert len(groups([event(action="detected")])) == 1


def test_only_those_would_pass_that_had_nothing_else_against_them() -> None:
    (first, *_) = groups(
        [
            event(),
            event("192.0.2.8:1", (942100, "ARGS:comment", 2), (920300, "REQUEST_HEADERS", 5)),
            event("192.0.2.9:1", (942100, "ARGS:comment", 2), (941100, "ARGS:comment", 2)),
        ]
    )
    assert (first.rule, len(first.events), first.would_pass) == (942100, 3, 2)


def test_rules_that_sum_up_the_scores_are_never_proposed() -> None:
    assert groups([event("192.0.2.7:1", (949110, "TX:blocking_inbound_anomaly_score", 2))]) == []
    assert switches_scoring_off(949110)
    assert switches_scoring_off(901340)
    assert switches_scoring_off(980170)
    assert not switches_scoring_off(942100)


@pytest.mark.parametrize(
    ("part", "parameter"),
    [
        ("ARGS:comment", "ARGS:comment"),
        ("REQUEST_COOKIES:_ga", "REQUEST_COOKIES:_ga"),
        ("REQUEST_URI", "REQUEST_URI"),
        ("ARGS:json.items.array_3.note", r"ARGS:/^json\.items\.array_[0-9]+\.note$/"),
        ("TX:something", None),
        ("MATCHED_VARS:ARGS:x", None),
    ],
)
def test_the_exclusion_is_as_narrow_as_what_can_be_named(part: str, parameter: str | None) -> None:
    (group,) = groups([event("192.0.2.7:1", (942100, part, 2))])
    exclusion = group.exclusion(date(2027, 1, 31), "why")
    assert exclusion.parameter == parameter
    assert exclusion.rules == ("942100",)
    # The whole last day, UTC.
    assert exclusion.until == 1801440000


def test_the_proof_counts_attacks_that_were_stopped_and_no_longer_are() -> None:
    corpus = [Attack(942100, "a"), Attack(942100, "b"), Attack(942190, "c"), Attack(920170, "d")]
    before = [{"action": action} for action in ("blocked", "blocked", "detected", "passed")]
    after = [{"action": action} for action in ("passed", "blocked", "noted", "passed")]
    found = proof(corpus, before, after)
    assert found.tried == 3
    assert [each.value for each in found.let_through] == ["a", "c"]
    assert found.by_rule() == {942100: 1, 942190: 1}


SQL, XSS, REQUEST = (942100, "ARGS:q", 2), (941100, "ARGS:q", 2), (920300, "REQUEST_HEADERS", 4)


def test_rules_that_only_help_together_are_found_with_the_fewest_that_do() -> None:
    three = (SQL, XSS, (932100, "ARGS:title", 2))
    events = [event(f"192.0.2.{n}:1", *three, REQUEST) for n in range(3)]
    events += [event("192.0.2.9:1", SQL, XSS), event("192.0.2.9:1")]
    first, second = joint(groups(events))
    assert [each.key for each in first.groups] == [
        (932100, "ARGS:title"),
        (941100, "ARGS:q"),
        (942100, "ARGS:q"),
    ]
    assert (len(first.events), first.clients, first.would_pass) == (3, 3, 3)
    assert (len(second.events), second.clients) == (1, 1)
    title, query = sorted(
        first.exclusions(date(2027, 1, 31), "honest"), key=lambda each: len(each.rules)
    )
    assert (title.rules, title.parameter) == (("932100",), "ARGS:title")
    assert (query.rules, query.parameter) == (("941100", "942100"), "ARGS:q")
    assert title.until == query.until == 1_801_440_000


def test_what_one_rule_alone_lets_pass_or_none_does_needs_no_company() -> None:
    block = event("192.0.2.1:1", SQL, XSS, score=30)
    assert joint(groups([event("192.0.2.1:1", SQL, REQUEST), block])) == []


def test_what_exclusions_in_force_have_taken_away_is_not_looked_at_again() -> None:
    def in_force(route: str, rule: int, part: str) -> bool:
        return (route, rule, part) == ("shop", 942100, "ARGS:q")

    elsewhere = event("192.0.2.1:1", SQL, route="other")
    noted = event("192.0.2.1:1", REQUEST, action="blocked")
    found = as_now([event("192.0.2.1:1", SQL, REQUEST), elsewhere, noted], in_force)
    assert found == [elsewhere, noted]
    (left,) = as_now([event("192.0.2.1:1", SQL, XSS)], in_force)
    assert (left["score"], [each["rule"] for each in left["violations"]]) == (5, [941100])
