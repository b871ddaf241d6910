"""Honest requests pass, and none is blocked that libmodsecurity lets through.

`python -m tests.waf.run --honest` prints what is behind them.
"""

from __future__ import annotations

import pytest
from tests.waf import engines, ftw, honest, run
from tests.waf.engines import Verdict
from tests.waf.exchange import read
from tests.waf.honest import Blocked, Honest

from vedette.policy import coreruleset as crs

SUM_OF_SCORES = {949110, 980170}


@pytest.fixture(autouse=True, scope="module")
def _corpus() -> None:
    if not crs.FOLDER.exists():
        pytest.fail(crs.MISSING, pytrace=False)


def test_an_entry_is_read_as_its_client_would_send_it() -> None:
    form = honest.request({"post": "/a", "form": {"n": "O'Brien & Söhne"}})
    assert form.body == b"n=O%27Brien+%26+S%C3%B6hne"
    assert dict(form.headers)["Content-Length"] == str(len(form.body))
    file = {"name": "f", "file": 'a"b.txt', "type": "text/plain", "text": "x"}
    parts = honest.request({"post": "/a", "files": [file]})
    assert (
        b'name="f"; filename="a%22b.txt"\r\nContent-Type: text/plain\r\n\r\nx\r\n--' in parts.body
    )
    assert honest.request({"get": "/a?b=%20c"}).uri == "/a?b=%20c"


def test_only_what_the_other_engine_lets_through_counts() -> None:
    requests = [Honest(name, honest.request({"get": "/"})) for name in ("both", "only ours")]
    ours = [Blocked(each, Verdict(interruption={"id": 949110})) for each in requests]
    assert [each.honest.name for each in honest.more_than(ours[:1], ours)] == ["only ours"]


def test_each_honest_request_passes_but_those_that_the_rule_set_blocks_by_the_rules_listed() -> (
    None
):
    asked = honest.corpus()
    with run.engine("ours", mode="On", paranoia=1) as ours:
        found = {each.honest.name: each.verdict.ids for each in honest.blocked(ours, asked)}
    listed = {each.name: set(each.rules) for each in asked if each.rules}
    assert {name: ids - SUM_OF_SCORES for name, ids in found.items()} == listed


def test_an_attack_is_no_honest_request() -> None:
    attack = read(ftw.request({"uri": "/?q=1'%20or%201=1--", "headers": honest.BROWSER}))
    with run.engine("ours", mode="On", paranoia=1) as ours:
        assert [each.honest.name for each in honest.blocked(ours, [Honest("attack", attack)])]


@pytest.mark.skipif(
    not engines.has_oracle(), reason="libmodsecurity3 is not installed: make extras"
)
def test_ours_blocks_no_honest_request_that_the_oracle_lets_through() -> None:
    asked = [*honest.corpus(), *honest.negatives(run.cases())]
    assert len(asked) > 900
    with run.engine("ours", mode="On", paranoia=1) as ours:
        mine = honest.blocked(ours, asked)
    with run.engine("oracle", mode="On", paranoia=1) as oracle:
        theirs = honest.blocked(oracle, asked)
    assert not honest.more_than(theirs, mine), "\n".join(map(str, honest.more_than(theirs, mine)))
