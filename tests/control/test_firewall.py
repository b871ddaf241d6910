"""What control makes of questions about the firewall; the engine's judgement is simulated."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.control.conftest import Running

from vedette.cli.waf_text import proposed_together
from vedette.config.addresses import Addresses, AddressList, CountryRule
from vedette.config.snapshot import Limit, PathMatch, Route, Snapshot, StaticBackend
from vedette.config.waf import Waf, WafExclusion, WafOverride
from vedette.control.firewall_messages import (
    DescribedRequest,
    FirewallCandidate,
    JudgeWish,
    ReplayWish,
    RuleSetWish,
    TuneWish,
)
from vedette.errors import ConfigError
from vedette.ids import digest_of
from vedette.policy import attacks

ASKED = (DescribedRequest(target="/?q=fine"), DescribedRequest(target="/?q=attack"))
KEPT = WafExclusion(rules=("2",), reason="from before")


@pytest.fixture
def guarded(running: Running) -> Running:
    """A node with rules and a route `shop` that has an exclusion."""
    digest = running.activator.blobs.put(b"rules")
    route = Route(
        name="shop",
        path=PathMatch(type="PathPrefix", value="/shop"),
        backend=StaticBackend(body="ok"),
        waf=WafOverride(exclusions=(KEPT,)),
    )
    running.activator.change(
        lambda active: active.with_(
            waf=Waf(version="4.0.0", rules=digest), routes=(*active.routes, route)
        ),
        "test",
        "test",
    )
    return running


def event(client: str) -> dict[str, Any]:
    violation = {"rule": 1, "message": "attack", "location": "ARGS:q", "severity": 2}
    return {
        "kind": "security",
        "time": "2026-11-21T10:00:00Z",
        "action": "blocked",
        "route": "shop",
        "client": client,
        "method": "GET",
        "url": "https://localhost/shop?q=…",
        "score": 5,
        "threshold": 5,
        "violations": [violation],
    }


def record(running: Running, *lines: dict[str, Any]) -> None:
    folder = running.home.spool_requests
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "w0-1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_each_request_is_judged_under_the_active_snapshot(guarded: Running) -> None:
    answer = guarded.node.firewall.judge(JudgeWish(requests=ASKED))
    assert answer.digest == guarded.activator.active()[0].digest
    assert [each.action for each in answer.answers] == ["passed", "blocked"]


def test_another_firewall_is_asked_and_nothing_is_activated(guarded: Running) -> None:
    generation = guarded.activator.active()[0].generation
    wish = ReplayWish(requests=ASKED, candidate=FirewallCandidate(mode="off"))
    answer = guarded.node.firewall.replay(wish)
    assert [each.action for each in answer.before] == ["passed", "blocked"]
    assert [each.action for each in answer.after] == ["uninspected", "uninspected"]
    assert guarded.activator.active()[0].generation == generation


def test_events_of_enough_clients_become_a_proposal_with_its_proof(
    guarded: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = [
        attacks.Attack(1, "attack one"),
        attacks.Attack(1, "attack two"),
        attacks.Attack(1, "x"),
    ]
    monkeypatch.setattr(attacks, "installed", lambda: corpus)
    record(guarded, event("192.0.2.1:1"), event("192.0.2.2:1"), event("192.0.2.2:2"))
    answer = guarded.node.firewall.tune(TuneWish())
    (one,) = answer.proposals
    assert (answer.events, answer.stopped) == (3, 3)
    assert (one.requests, one.clients, one.would_pass) == (3, 2, 3)
    assert (one.attacks, one.let_through, one.let_through_by_rule) == (2, 2, {1: 2})
    assert one.exclusion.parameter == "ARGS:q"
    fewer = guarded.node.firewall.tune(TuneWish(min_clients=3))
    assert fewer.proposals == ()
    assert "2 addresses" in fewer.refused[0].why


def test_the_rules_that_decide_are_not_left_out_whoever_asks(guarded: Running) -> None:
    wish = TuneWish(route="shop", rule=949110)
    answer = guarded.node.firewall.tune(wish)
    assert answer.proposals == ()
    assert "the firewall is off" in answer.refused[0].why
    with pytest.raises(ConfigError, match="no route"):
        guarded.node.firewall.tune(TuneWish(route="none", rule=1))


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"rule": 1, "parameter": "nonsense"}, "'nonsense' is no part of a request"),
        ({"rule": 941100, "parameter": "ARGS:/^q/"}, "is a pattern, and attacks are tried in one"),
        ({"rule": 941101}, "no rule 941101: neither the Core Rule Set 4.0.0 nor its own"),
        ({"rule": 12}, "the node has no rule 12"),
        ({"rule": 941100, "parameter": "ARGS:q"}, None),
    ],
)
def test_only_what_an_exclusion_can_say_is_tried(
    guarded: Running, wish: dict[str, Any], sentence: str | None
) -> None:
    packed = {"load": ["a"], "files": {"a": 'SecRule ARGS x "id:941100,phase:2"'}}
    rules = guarded.activator.blobs.put(json.dumps(packed).encode())
    guarded.activator.change(
        lambda active: active.with_(waf=Waf(version="4.0.0", rules=rules)), "test", "test"
    )
    asked = TuneWish.model_validate({"route": "shop", **wish})
    if sentence is None:
        (one,) = guarded.node.firewall.tune(asked).proposals
        assert one.exclusion.parameter == wish.get("parameter")
        assert one.exclusion.reason == "say here why; no event asks for it"
        return
    with pytest.raises(ConfigError) as caught:
        guarded.node.firewall.tune(asked)
    assert sentence in caught.value.message


def test_an_event_is_no_reason_to_propose_more_than_was_asked(guarded: Running) -> None:
    """Events name parts that exclusions cannot; one without a parameter leaves the rule out altogether."""
    packed = {"load": ["a"], "files": {"a": 'SecRule REQUEST_METHOD x "id:911100,phase:1"'}}
    rules = guarded.activator.blobs.put(json.dumps(packed).encode())
    guarded.activator.change(
        lambda active: active.with_(waf=Waf(version="4.0.0", rules=rules)), "test", "test"
    )
    (violation,) = event("x:1")["violations"]
    found = {**violation, "rule": 911100, "location": "REQUEST_METHOD"}
    record(guarded, {**event("192.0.2.1:1"), "violations": [found]})
    tried = TuneWish(route="shop", rule=911100, parameter="REQUEST_METHOD")
    with pytest.raises(ConfigError) as caught:
        guarded.node.firewall.tune(tried)
    assert "it would leave rule 911100 out altogether" in caught.value.message
    whole = guarded.node.firewall.tune(TuneWish(route="shop", rule=911100))
    assert [each.exclusion.parameter for each in whole.proposals] == [None]


def test_a_route_that_is_not_there_is_a_mistake_and_those_that_are_are_named(
    guarded: Running,
) -> None:
    with pytest.raises(ConfigError) as caught:
        guarded.node.firewall.tune(TuneWish(route="shob"))
    assert (caught.value.code, caught.value.hint) == ("route_unknown", "There are: shop")


def test_a_body_that_nobody_reads_is_told_to_be_looked_at_by_nobody(guarded: Running) -> None:
    asked = (
        DescribedRequest(target="/shop", route="shop", body="YT1i"),
        DescribedRequest(target="/shop", route="shop"),
        DescribedRequest(target="/elsewhere", body="YT1i"),
    )
    told = [each.detail for each in guarded.node.firewall.judge(JudgeWish(requests=asked)).answers]
    assert told == [
        "the body is not looked at: the node itself answers, and nobody reads it",
        None,
        None,
    ]


def test_a_rule_set_needs_its_publishers_key(guarded: Running) -> None:
    with pytest.raises(ConfigError, match="publisher's key"):
        guarded.node.firewall.update(RuleSetWish(rules="e30="), "test")
    status = guarded.node.firewall.rules()
    assert (status.version, status.digest) == ("4.0.0", digest_of(b"rules"))


def listed(running: Running, **texts: str) -> tuple[AddressList, ...]:
    blobs = running.activator.blobs
    return tuple(
        AddressList(
            name=name,
            action="Allow" if name == "office" else "Block",
            blob=blobs.put(text.encode()),
            size=len(text),
        )
        for name, text in sorted(texts.items())
    )


def before(running: Running, **asked: Any) -> list[tuple[str, int, str]]:
    """Stage, status and cause of what refuses a request to `shop` before the firewall."""
    wish = JudgeWish(requests=(DescribedRequest.model_validate({"route": "shop", **asked}),))
    (told,) = running.node.firewall.judge(wish).answers
    return [(each.stage, each.status, each.cause) for each in told.before]


DENIED = ("authorize", 403, "policy_denied")  # the simulated engine lets nobody in


def test_what_refuses_a_request_before_the_firewall_is_told(guarded: Running) -> None:
    lists = listed(guarded, drop="192.0.2.0/24", office="192.0.2.7")
    browser = [["Accept", "text/html,*/*"]]

    def change(active: Snapshot) -> Snapshot:
        routes = tuple(each.model_copy(update={"challenge": "Always"}) for each in active.routes)
        return active.with_(addresses=Addresses(lists=lists), routes=routes)

    assert before(guarded) == [DENIED]
    assert before(guarded, headers=browser) == [DENIED]
    guarded.activator.change(change, "test", "test")
    blocked, challenged = ("admit", 403, "address_blocked"), ("limit", 403, "challenge_required")
    assert before(guarded, address="192.0.2.1") == [blocked, DENIED]
    assert before(guarded, address="192.0.2.7") == [DENIED], "an allow list wins"
    assert before(guarded, address="192.0.3.1", headers=browser) == [challenged, DENIED]
    assert before(guarded, address="192.0.3.1", headers=browser, method="POST") == [DENIED]
    token = ["Authorization", "Bearer x"]
    assert before(guarded, address="192.0.3.1", headers=[*browser, token]) == []


def test_a_head_that_is_too_large_is_refused_before_the_firewall(guarded: Running) -> None:
    """In bytes, with `host: localhost` and four more for each field; both limits are the last that passes."""
    guarded.activator.change(
        lambda active: active.with_(
            admit=active.admit.model_copy(
                update={"max_uri_bytes": 64, "max_headers": 8, "max_header_bytes": 1_024}
            )
        ),
        "test",
        "test",
    )
    long, large = ("admit", 414, "uri_too_long"), ("admit", 431, "headers_too_large")
    assert before(guarded, target="/" + "a" * 63) == [DENIED]
    assert before(guarded, target="/" + "a" * 62 + "é") == [long, DENIED]
    assert before(guarded, headers=[["a", "b"]] * 7) == [DENIED]
    assert before(guarded, headers=[["a", "b"]] * 8) == [large, DENIED]
    room = 1_024 - len("hostlocalhost") - 4 - len("a") - 4
    assert before(guarded, headers=[["a", "b" * room]]) == [DENIED]
    assert before(guarded, headers=[["a", "b" * (room + 1)]]) == [large, DENIED]


def test_the_stages_that_nobody_asked_are_named(guarded: Running) -> None:
    def left(*routes: str) -> tuple[str, ...]:
        asked = tuple(DescribedRequest(route=name) for name in routes)
        return guarded.node.firewall.judge(JudgeWish(requests=asked)).not_asked

    usual = left("shop")
    assert usual[0].startswith("whether credentials are good")
    rule = CountryRule(action="Allow", codes=("CH", "DE"))

    def change(active: Snapshot) -> Snapshot:
        routes = tuple(each.model_copy(update={"countries": rule}) for each in active.routes)
        other = routes[-1].model_copy(
            update={"name": "other", "path": PathMatch(type="Exact", value="/x")}
        )
        routes = tuple(sorted((*routes, other), key=lambda each: each.name))
        limit = Limit(name="all", per=(), concurrency=1)
        return active.with_(routes=routes, limits=(limit,))

    guarded.activator.change(change, "test", "test")
    assert set(left("shop")) - set(usual) == {
        "limits of rate, concurrency and quota",
        "the country (route shop: only CH, DE)",
    }


def test_what_is_excluded_already_is_not_proposed_again(guarded: Running) -> None:
    """The route of the fixture excludes rule 2."""

    def of_rules(*rules: int) -> dict[str, Any]:
        (violation,) = event("x:1")["violations"]
        found = [{**violation, "rule": rule} for rule in rules]
        return {**event("192.0.2.1:1"), "violations": found, "score": 5 * len(rules)}

    record(guarded, of_rules(2), of_rules(2), of_rules(1, 2))
    wish = TuneWish(min_requests=1, min_clients=1)
    answer = guarded.node.firewall.tune(wish)
    assert (answer.stopped, answer.settled) == (3, 2)
    assert [(each.rule, each.requests, each.would_pass) for each in answer.proposals] == [(1, 1, 1)]
    packed = {"load": ["a"], "files": {"a": 'SecRule ARGS x "id:2,phase:2"'}}
    rules = guarded.activator.blobs.put(json.dumps(packed).encode())
    guarded.activator.change(
        lambda active: active.with_(waf=Waf(version="4.0.0", rules=rules)), "test", "test"
    )
    tried = guarded.node.firewall.tune(TuneWish(route="shop", rule=2, parameter="ARGS:q"))
    assert tried.proposals == ()
    assert [each.why for each in tried.refused] == ["an exclusion of it is in force already"]


def test_rules_that_only_help_together_are_proposed_together_with_one_proof(
    guarded: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = [attacks.Attack(1, "attack one"), attacks.Attack(1, "x")]
    monkeypatch.setattr(attacks, "installed", lambda: corpus)
    (violation,) = event("x:1")["violations"]
    found = [{**violation, "rule": rule} for rule in (1, 3)]
    both = {"violations": found, "score": 10}
    record(guarded, *({**event(f"192.0.2.{n}:1"), **both} for n in (1, 2, 3)))
    answer = guarded.node.firewall.tune(TuneWish())
    assert answer.proposals == ()
    assert {each.why for each in answer.refused} == {
        "alone it lets no request pass: other rules stop them, too"
    }
    (one,) = answer.joint
    assert (one.rules, one.requests, one.clients, one.would_pass) == ((1, 3), 3, 3, 3)
    assert (one.attacks, one.let_through) == (1, 1)
    assert [(each.rules, each.parameter) for each in one.exclusions] == [(("1", "3"), "ARGS:q")]
    assert guarded.node.firewall.tune(TuneWish(min_clients=4)).joint == ()
    text = proposed_together(json.loads(one.model_dump_json(by_alias=True)))
    assert text[0] == "# route shop: rules 1, 3, which only help together"
    assert text[-4:-2] == ['- rules: ["1", "3"]', "  parameter: 'ARGS:q'"]
