"""Lines of the spool as a person reads them, each kind with what it is about."""

from __future__ import annotations

from typing import Any

from vedette.cli.record_text import record_text

TIME = "2026-11-21T18:52:57.600892Z"
EVENT: dict[str, Any] = {
    "kind": "security",
    "time": TIME,
    "requestId": "660f",
    "action": "blocked",
    "client": "192.0.2.1:4711",
    "country": "CH",
    "url": "https://localhost/shop?comment=…",
    "method": "GET",
    "route": "shop",
    "score": 5,
    "threshold": 5,
    "violations": [
        {"rule": 942100, "message": "SQL Injection", "location": "ARGS:comment", "size": 9},
    ],
}


def test_a_security_event_says_who_was_stopped_and_which_rules_did_it() -> None:
    assert record_text(EVENT).splitlines() == [
        (
            f"{TIME}  blocked  GET https://localhost/shop?comment=…  score 5 of 5"
            "  192.0.2.1:4711 CH  route shop  660f"
        ),
        "  942100  SQL Injection  ARGS:comment",
    ]


def test_what_matched_the_score_of_the_answer_and_how_many_more_are_told_where_known() -> None:
    violation = {"rule": 1, "message": "m", "location": "ARGS:q", "size": 3, "matched": "a\nb"}
    event = {
        **EVENT,
        "principal": "alice",
        "answerScore": 4,
        "violations": [violation],
        "moreViolations": 7,
    }
    head, *rest = record_text(event).splitlines()
    assert "score 5 of 5, answer 4" in head
    assert "  alice  " in head
    assert rest == ["  1  m  ARGS:q  'a\\nb'", "  and 7 more"]


def test_nothing_that_a_client_sent_moves_the_cursor_or_fills_the_screen() -> None:
    violation = {"rule": 1, "message": "m", "location": "ARGS:\x1b[2J\n", "size": 1}
    text = record_text({**EVENT, "url": "x" * 10_000, "violations": [violation]})
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2
    assert len(text) < 1_000
    assert "\x1b" not in record_text({"time": TIME, "path": "/\x1b[2J"})


def test_a_block_and_a_move_of_pressure_are_rows_of_their_own() -> None:
    block = {"kind": "block", "time": TIME, "client": "192.0.2.1", "requestId": "660f"}
    block |= {"cause": "waf_blocked", "status": 403, "seconds": 60, "strike": 2}
    assert record_text(block) == (
        f"{TIME}  blocked for 60 s  192.0.2.1  strike 2  after 403 waf_blocked  660f"
    )
    moved = {"kind": "pressure", "time": TIME, "from": "calm", "to": "challenge"}
    moved |= {"gauge": "processor time", "percent": 91, "seconds": 3}
    assert record_text(moved) == (
        f"{TIME}  pressure  calm -> challenge  processor time at 91 % for 3 s"
    )


def test_a_refused_request_says_the_stage_the_cause_and_the_detail() -> None:
    record = {"time": TIME, "status": 404, "method": "GET", "host": "h", "path": "/"}
    record |= {"requestId": "r1", "stage": "route", "cause": "no_route", "detail": "why"}
    assert record_text(record) == f"{TIME}  404  0 µs  GET h/  -  route no_route: why  r1"


def test_a_request_to_a_model_says_its_version_and_where_the_time_went() -> None:
    record = {"time": TIME, "status": 200, "method": "POST", "host": "h", "path": "/v2"}
    record |= {"requestId": "r1", "totalUs": 700, "model": "digits", "modelVersion": 3}
    said = record_text({**record, "queueMicros": 12, "runMicros": 540})
    assert said == f"{TIME}  200  700 µs  POST h/v2  digits 3, waited 12 µs, ran 540 µs  -    r1"
    refused = record_text({**record, "queueMicros": None, "stage": "authorize", "cause": "denied"})
    assert "  digits 3  -  authorize denied" in refused


def test_a_service_is_named_where_it_was_the_reason() -> None:
    record = {"time": TIME, "stage": "limit", "cause": "country_not_allowed", "upstream": "shop"}
    assert record_text({**record, "detail": "the country CH"}).endswith(
        "  limit country_not_allowed: the country CH"
    )
    record |= {"stage": "execute", "cause": "upstream_timeout", "detail": "no answer"}
    assert record_text(record).endswith("  execute upstream_timeout shop: no answer")


def test_a_call_of_a_function_to_a_model_says_which_policy_is_missing() -> None:
    record = {"kind": "predict", "time": TIME, "status": 200, "totalUs": 7, "requestId": "r1"}
    record |= {"function": "shop", "route": "front", "method": "POST", "model": "digits"}
    record |= {"path": "/v2/models/digits/infer", "principal": "spiffe://td/fn/shop"}
    asked = "shop on route front asks POST digits/v2/models/digits/infer  spiffe://td/fn/shop"
    assert record_text(record) == f"{TIME}  200  7 µs  {asked}    r1"
    del record["status"]
    record |= {"cause": "policy_denied", "wouldAllow": "permit (…);"}
    why = "policy_denied; the policy permit (…); would allow it"
    assert record_text(record) == f"{TIME}  -  7 µs  {asked}  {why}  r1"


def test_a_call_of_a_tier_is_a_route_s_and_nobody_else_s() -> None:
    line = {"kind": "egress", "time": TIME, "method": "POST", "host": "r.example", "route": "t"}
    text = record_text(line)
    assert "route t calls POST ?://r.example:?" in text
    assert "None" not in text
    assert "f on route t calls" in record_text({**line, "function": "f"})
