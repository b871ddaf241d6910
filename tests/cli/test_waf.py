"""Mistakes in the words of `vedette waf`: told in those words, before a node is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from vedette.cli import waf
from vedette.cli.waf_text import judged, not_proposed
from vedette.errors import ConfigError

HOME = Path("/nowhere")
CURL = "curl http://localhost/"


def refused(caught: pytest.ExceptionInfo[ConfigError], sentence: str) -> None:
    assert sentence in caught.value.message
    assert "openapi" not in (caught.value.hint or ""), "the hint is about the admin API"


def test_requests_come_from_a_file_or_a_command() -> None:
    with pytest.raises(ConfigError) as caught:
        waf.try_out(home=HOME)
    refused(caught, "give a file of requests, or --curl")


@pytest.mark.parametrize("address", ["nonsense", "192.0.2.256", "192.0.2.0/24", ""])
def test_an_address_is_one(address: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        waf.try_out(home=HOME, curl=CURL, address=address)
    refused(caught, "--address: ")
    with pytest.raises(ConfigError) as caught:
        waf.replay(tmp_path / "x", home=HOME, mode="off", address=address)
    refused(caught, "--address: ")


def test_a_replay_needs_something_to_compare_with(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        waf.replay(tmp_path / "x", home=HOME)
    refused(caught, "say what to compare with")
    with pytest.raises(ConfigError) as caught:
        waf.replay(tmp_path / "x", home=HOME, rules=tmp_path / "rules.json")
    refused(caught, "needs --key")


def test_a_rule_is_tried_on_a_route_and_a_parameter_with_a_rule() -> None:
    with pytest.raises(ConfigError) as caught:
        waf.tune(home=HOME, rule=941100)
    refused(caught, "say with --route")
    with pytest.raises(ConfigError) as caught:
        waf.tune(home=HOME, parameter="ARGS:q")
    refused(caught, "--parameter is for --rule")


def test_a_signed_rule_set_needs_a_place(tmp_path: Path) -> None:
    packed = tmp_path / "packed.json"
    packed.write_bytes(b"{}")
    with pytest.raises(ConfigError) as caught:
        waf.sign_rules(packed, tmp_path / "key", tmp_path / "none" / "out.json")
    assert caught.value.code == "file_unwritable"
    assert "none/out.json" in caught.value.message


def test_what_is_not_proposed_is_told_by_its_reason_and_part() -> None:
    def refused(rule: int, location: str, why: str) -> dict[str, object]:
        return {"route": "shop", "rule": rule, "location": location, "why": why}

    few = "1 request: too few"
    one_by_one = [refused(rule, "ARGS:q", "alone it lets no request pass") for rule in (1, 2)]
    many = [refused(3, f"ARGS:{number}", few) for number in range(10)]
    assert not_proposed([*one_by_one, many[0], refused(4, "", few), *many[1:]]) == [
        "not proposed: alone it lets no request pass",
        "  1, 2 in ARGS:q of shop",
        f"not proposed: {few}",
        "  3 in ARGS:0 of shop",
        "  4 in any part of shop",
        *(f"  3 in ARGS:{number} of shop" for number in range(1, 7)),
        "  and in 3 parts more: --json has them",
    ]


def told(**answer: object) -> list[str]:
    request = {"method": "GET", "host": "h", "target": "/"}
    usual = {"action": "passed", "status": None, "cause": None, "detail": None, "route": "r"}
    return judged(
        request, {**usual, "score": 0, "threshold": 5, "violations": [], "before": [], **answer}
    )


def test_what_refuses_before_the_firewall_is_in_the_first_line_unless_the_firewall_does() -> None:
    early = {"stage": "admit", "cause": "address_blocked", "status": 403, "detail": "drop"}
    late = {"stage": "authenticate", "cause": "credentials_required", "status": 401, "detail": "no"}
    assert told() == ["passed  GET h/  route r  score 0 of 5"]
    assert told(before=[early, late]) == [
        "passed, but refused before with 403 address_blocked  GET h/  route r  score 0 of 5",
        "  refused before the firewall with 403 address_blocked (admit): drop",
        "  refused before the firewall with 401 credentials_required (authenticate): no",
    ]
    blocked = told(action="blocked", status=403, cause="waf_blocked", before=[late])
    assert blocked[0].startswith("blocked with 403 waf_blocked  GET ")
    assert len(blocked) == 2
