"""The firewall on the path: what it refuses, what it lets through unchanged, and what it tells.

The service behind the node sees exactly what was judged; what is refused never reaches it.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.caller import Caller
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node
from tests.e2e.spool import Line, Spool
from tests.e2e.wire import HTTP_1, Answer, send
from tests.guests import Guests
from tests.simulators.service import Service

SQL = "1'+OR+'1'='1'+--+"
SQL_TEXT = "1' OR '1'='1' -- "
MANIFEST = """\
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: one}}
spec: {{url: "http://127.0.0.1:{port}"}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: usual}}
spec:
  public: true
  rules:
    - matches: [{{path: {{value: /usual}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: one}}]
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: watched}}
spec:
  public: true
  waf: {{mode: detect, matchedData: Keep}}
  rules:
    - matches: [{{path: {{value: /watched}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: one}}]
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: unseen}}
spec:
  public: true
  waf: {{mode: "off"}}
  rules:
    - matches: [{{path: {{value: /unseen}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: one}}]
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: tuned}}
spec:
  public: true
  waf:
    ruleFiles: [own.conf]
    rules: [{{name: no-evil, field: "header:user-agent", operator: Contains, value: evilbot}}]
    exclusions:
      - {{rules: [942100-942999], parameter: "ARGS:comment", until: 2099-12-31, reason: prose}}
      - {{rules: [942100-942999], parameter: "ARGS:old", until: 2020-01-01, reason: it has ended}}
    body: {{limit: 4KB, uploadLimit: 64KB}}
    response: {{}}
  rules:
    - matches: [{{path: {{value: /tuned}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: one}}]
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: counted}}
spec:
  public: true
  waf: {{ruleFiles: [count.conf]}}
  rules:
    - matches: [{{path: {{value: /counted}}}}]
      static: {{body: here}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: partly}}
spec:
  public: true
  waf: {{body: {{limit: 4KB, beyond: Pass}}}}
  rules:
    - matches: [{{path: {{value: /partly}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: one}}]
"""
OWN = 'SecRule ARGS:coupon "@streq STOLEN" "id:1000,phase:2,deny,status:403,msg:\'A stolen coupon\'"\n'
COUNT = """\
SecAction "id:1001,phase:1,nolog,pass,initcol:ip=%{REMOTE_ADDR}"
SecAction "id:1003,phase:1,nolog,pass,setvar:ip.count=+1"
SecRule IP:count "@gt 3" "id:1002,phase:1,deny,status:403,msg:'Too often'"
"""


@dataclass
class Guarded:
    """A node with the routes above, and the service behind it."""

    node: Node
    service: Service
    events: Spool

    def event(self, answer: Answer) -> Line:
        """The security event of a request."""
        return self.events.wait_for(lambda it: it["requestId"] == answer.request_id)[0]


@pytest.fixture(scope="module")
def guarded(
    start_node: StartNode, guests: Guests, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    node, service = start_node(), Service()
    folder = tmp_path_factory.mktemp("firewall")
    (folder / "routes.yaml").write_text(MANIFEST.format(port=service.port), "utf-8")
    (folder / "own.conf").write_text(OWN, "utf-8")
    (folder / "count.conf").write_text(COUNT, "utf-8")
    node.run("apply", "--yes", "-f", str(folder / "routes.yaml"))
    node.deploy(guests.hostile, "guest", "--public")
    node.deploy(guests.hostile, "bare", "--public", "--waf", "off")
    node.deploy(guests.hostile, "strict", "--public", "--waf", "block", "--waf-paranoia", "4")
    yield Guarded(node, service, Spool(node.path("spool", "requests"), "security"))
    service.close()


@pytest.fixture
def caller(guarded: Guarded, protocol: str) -> Iterator[Caller]:
    """Asks the guarded node, over each protocol."""
    caller = Caller(guarded.node, protocol)
    yield caller
    caller.close()


def ask(
    caller: Caller, target: str, body: bytes | None = None, kind: str = "", **more: Any
) -> Answer:
    """An anonymous request, a POST where there is a body."""
    headers = {"content-type": kind} if kind else {}
    headers |= more.pop("headers", {})
    method = "GET" if body is None else "POST"
    return caller.ask(target, method=method, anonymous=True, headers=headers, body=body, **more)


FORM = "application/x-www-form-urlencoded"
ATTACKS = {
    "query": (f"?q={SQL}", None, ""),
    "path": ("/.git/config", None, ""),
    "form": ("", f"name=Ada&q={SQL}".encode(), FORM),
    "JSON": ("", json.dumps({"a": [{"q": SQL_TEXT}]}).encode(), "application/json"),
    "merge patch": ("", json.dumps({"q": SQL_TEXT}).encode(), "application/merge-patch+json"),
    "XML": ("", f"<a><b>{SQL_TEXT}</b></a>".encode(), "text/xml"),
    "text": ("", f"name=Ada&q={SQL}".encode(), "text/plain"),
    "multipart": (
        "",
        b'--x\r\ncontent-disposition: form-data; name="q"\r\n\r\n'
        + SQL_TEXT.encode()
        + b"\r\n--x--\r\n",
        "multipart/form-data; boundary=x",
    ),
}


@pytest.mark.parametrize("where", ["/usual", "/guest"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_refused_wherever_it_hides(
    caller: Caller, guarded: Guarded, attack: str, where: str
) -> None:
    target, body, kind = ATTACKS[attack]
    asked = len(guarded.service.asked)
    answer = ask(caller, f"{where}/echo{target}", body, kind)
    assert answer.status == 403, (answer, attack)
    told = json.loads(answer.body)
    assert set(told) == {"error", "requestId", "timestamp"}
    assert (told["error"], told["requestId"]) == ("Request blocked by WAF", answer.request_id)
    record = caller.expect_recorded(answer, 403)
    assert (record["outcome"], record["stage"], record["cause"]) == (
        "refused",
        "inspect",
        "waf_blocked",
    )
    assert len(guarded.service.asked) == asked, "the service was asked"


HONEST = {
    "query": ("?q=garden+chair&page=2&sort=price", None, ""),
    "form": ("", b"name=O%27Brien&note=It%27s+a+5%2B+star%21", FORM),
    "JSON": (
        "",
        json.dumps({"items": [{"title": "Ünïcode & more", "n": 3}]}).encode(),
        "application/json",
    ),
    "upload": (
        "",
        b'--x\r\ncontent-disposition: form-data; name="f"; filename="a.bin"\r\n'
        b"content-type: application/octet-stream\r\n\r\n"
        + bytes(range(1, 256)) * 100
        + b"\r\n--x--\r\n",
        "multipart/form-data; boundary=x",
    ),
    "binary": ("", bytes(range(256)) * 4096, "application/octet-stream"),
    "text": ("", b"plain words, and more of them; " * 3_000, "text/plain"),
}


@pytest.mark.parametrize("honest", HONEST)
def test_what_is_honest_arrives_byte_for_byte(
    caller: Caller, guarded: Guarded, honest: str
) -> None:
    query, body, kind = HONEST[honest]
    answer = ask(caller, f"/usual/echo{query}", body, kind)
    assert answer.status == 200, answer
    asked = guarded.service.asked[-1]
    assert asked.target == f"/usual/echo{query}"
    assert asked.body == (body or b"")
    if body is not None:
        assert int(asked.headers["content-length"]) == len(body)


def test_methods_of_an_api_pass(caller: Caller) -> None:
    for method in ("PUT", "PATCH", "DELETE"):
        answer = caller.ask("/usual/echo", method=method, anonymous=True)
        assert answer.status == 200, method


def test_detect_lets_through_and_tells(caller: Caller, guarded: Guarded) -> None:
    answer = ask(caller, f"/watched/echo?q={SQL}")
    assert answer.status == 200
    event = guarded.event(answer)
    assert (event["action"], event["route"]) == ("detected", "watched")
    assert event["score"] >= event["threshold"] == 5
    assert any(one["location"] == "ARGS:q" and "matched" in one for one in event["violations"])


def test_off_does_not_look(caller: Caller, guarded: Guarded) -> None:
    for target in ("/unseen/echo", "/bare/headers"):
        answer = ask(caller, f"{target}?q={SQL}")
        assert answer.status == 200, target
        caller.node.record(answer.request_id)
        assert not [it for it in guarded.events.lines() if it["requestId"] == answer.request_id]


def test_an_event_says_who_what_and_why_without_values(caller: Caller, guarded: Guarded) -> None:
    target = f"/usual/echo?q={SQL}&token=very-secret-value"
    answer = ask(caller, target, headers={"user-agent": "stranger/1"})
    event = guarded.event(answer)
    assert event["url"].endswith("/usual/echo?q=…&token=…")
    assert event["url"].startswith("https://localhost")
    assert (event["method"], event["userAgent"], event["action"]) == (
        "GET",
        "stranger/1",
        "blocked",
    )
    assert event["client"].startswith("127.0.0.1:")
    assert event["country"] == "ZZ"
    assert event["snapshot"].startswith("sha256:")
    rules = [one["rule"] for one in event["violations"]]
    assert 942100 in rules
    assert not any(949_000 <= rule < 950_000 for rule in rules), "these only sum up"
    assert all(one["message"] and one["location"] and one["size"] for one in event["violations"])
    assert "very-secret-value" not in json.dumps(event)
    assert "OR" not in json.dumps(event["violations"]).replace("ORDER", "")


def test_a_higher_level_is_more_suspicious(caller: Caller) -> None:
    odd = "?q=a%3Bb%3Bc%28%29%7B%7D"
    assert ask(caller, f"/guest/headers{odd}").status == 200
    assert ask(caller, f"/strict/headers{odd}").status == 403


def test_an_exclusion_frees_one_parameter_until_its_day(caller: Caller) -> None:
    assert ask(caller, f"/tuned/echo?comment={SQL}").status == 200
    assert ask(caller, f"/tuned/echo?other={SQL}").status == 403
    assert ask(caller, f"/tuned/echo?old={SQL}").status == 403
    assert ask(caller, f"/usual/echo?comment={SQL}").status == 403


def test_rules_of_ones_own_count_on_their_route_only(caller: Caller, guarded: Guarded) -> None:
    answer = ask(caller, "/tuned/echo", b"coupon=STOLEN", FORM)
    assert answer.status == 403
    assert guarded.event(answer)["violations"][0]["message"] == "A stolen coupon"
    assert ask(caller, "/usual/echo", b"coupon=STOLEN", FORM).status == 200
    agent = {"user-agent": "evilbot/2"}
    answer = ask(caller, "/tuned/echo", headers=agent)
    assert answer.status == 403
    assert guarded.event(answer)["violations"][0]["message"] == "no-evil"
    assert ask(caller, "/usual/echo", headers=agent).status == 200


def test_a_body_beyond_the_limit_is_refused_or_flows_on_as_the_route_says(
    caller: Caller, guarded: Guarded
) -> None:
    large = json.dumps({"text": "word " * 2_000}).encode()
    answer = ask(caller, "/tuned/echo", large, "application/json")
    assert answer.status == 413
    assert caller.expect_recorded(answer, 413)["cause"] == "body_beyond_inspection"
    form = b"text=" + b"word+" * 4_000
    answer = ask(caller, "/partly/echo", form, FORM)
    assert answer.status == 200
    assert guarded.service.asked[-1].body == form


def test_text_is_limited_as_a_form_is(caller: Caller) -> None:
    attack = b"a=" + b"x" * 200_000 + b"&b=<script>alert(1)</script>"
    assert ask(caller, "/tuned/echo", attack, "text/plain").status == 413
    assert ask(caller, "/usual/echo", attack, "text/csv").status == 413
    lines = b'{"a": "<script>alert(1)</script>"}\n'
    assert ask(caller, "/usual/echo", lines, "application/x-ndjson").status == 403


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", json.dumps({"text": ["a word"] * 2_000}).encode()),
        ("text/xml", b"<a>" + b"<b>a word</b>" * 2_000 + b"</a>"),
    ],
)
def test_a_body_that_is_cut_off_where_the_rest_may_pass_is_not_broken(
    caller: Caller, guarded: Guarded, kind: str, body: bytes
) -> None:
    assert ask(caller, "/partly/echo", body, kind).status == 200
    assert guarded.service.asked[-1].body == body
    early = body.replace(b"a word", b"<script>alert(1)</script>", 1)
    assert ask(caller, "/partly/echo", early, kind).status == 403
    assert ask(caller, "/partly/echo", b"{]" if "json" in kind else b"<a>", kind).status == 400


def test_a_boundary_in_quotes_is_a_boundary(caller: Caller) -> None:
    kind = 'multipart/form-data; boundary="B1234"'

    def form(value: str) -> bytes:
        name = 'content-disposition: form-data; name="comment"'
        return f"--B1234\r\n{name}\r\n\r\n{value}\r\n--B1234--\r\n".encode()

    assert ask(caller, "/usual/echo", form("hello"), kind).status == 200
    assert ask(caller, "/usual/echo", form("<script>alert(1)</script>"), kind).status == 403


def test_a_body_without_a_length_meets_the_same_limit(caller: Caller) -> None:
    parts = (b"word+" * 200 for _ in range(50))
    answer = caller.ask(
        "/tuned/echo", method="POST", anonymous=True, headers={"content-type": FORM}, body=parts
    )
    assert answer.status == 413


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b'{"a": [1, 2'),
        ("application/json", b"[" * 10_000),
        ("text/xml", b"<a><b></a>"),
        ("multipart/form-data; boundary=x", b"--x\r\nno end of it"),
    ],
)
def test_a_body_that_is_not_what_it_says_is_refused(caller: Caller, kind: str, body: bytes) -> None:
    answer = ask(caller, "/usual/echo", body, kind)
    assert answer.status == 400, answer
    assert caller.expect_recorded(answer, 400)["cause"] == "body_malformed"


def test_a_compressed_body_cannot_be_looked_into_and_is_refused(caller: Caller) -> None:
    packed = gzip.compress(f"q={SQL}".encode())
    answer = ask(caller, "/usual/echo", packed, FORM, headers={"content-encoding": "gzip"})
    assert answer.status == 403


def test_cookies_in_several_fields_are_judged_as_one(guarded: Guarded, protocol: str) -> None:
    caller = Caller(guarded.node, protocol)
    crumbs = [("cookie", "a=1"), ("cookie", "q=" + SQL_TEXT.replace(";", ""))]
    answer = caller.send("/usual/echo", headers=crumbs, anonymous=True)
    assert answer.status == 403


def test_an_answer_that_tells_too_much_is_held_back_where_asked(caller: Caller) -> None:
    leak = base64.urlsafe_b64encode(
        b"You have an error in your SQL syntax; check the manual that corresponds to your MySQL server"
    ).decode()
    answer = ask(caller, f"/tuned/say?text={leak}")
    assert answer.status == 403
    assert json.loads(answer.body)["error"] == "Response blocked by WAF"
    assert ask(caller, f"/usual/say?text={leak}").status == 200
    calm = base64.urlsafe_b64encode(b"All is well " * 100_000).decode()[:2_000]
    answer = ask(caller, f"/tuned/say?text={calm}")
    assert answer.status == 200
    assert answer.body == base64.urlsafe_b64decode(calm)


def apply_bad(guarded: Guarded, folder: Path, waf: str) -> None:
    """Applies a route `bad` with that firewall."""
    (folder / "r.yaml").write_text(
        "apiVersion: vedette.dev/v1alpha1\nkind: Route\nmetadata: {name: bad}\nspec:\n"
        f"  waf: {waf}\n  rules:\n"
        "    - matches: [{path: {value: /bad}}]\n      static: {body: x}\n"
    )
    guarded.node.run("apply", "--yes", "-f", str(folder / "r.yaml"))


def test_a_rule_file_with_a_mistake_is_refused_with_its_line(
    guarded: Guarded, tmp_path: Path
) -> None:
    (tmp_path / "bad.conf").write_text('# mine\nSecRule ARGS "@containz x" "id:1,phase:2,deny"\n')
    with pytest.raises(
        AssertionError, match=r"(?s)route bad: unknown operator .@containz.*where: bad\.conf:2"
    ):
        apply_bad(guarded, tmp_path, "{ruleFiles: [bad.conf]}")


def test_a_rule_file_that_would_switch_the_firewall_off_is_refused(
    guarded: Guarded, tmp_path: Path
) -> None:
    (tmp_path / "off.conf").write_text("SecRuleRemoveById 949110\n")
    with pytest.raises(AssertionError, match="takes away rule 949110, without which nothing"):
        apply_bad(guarded, tmp_path, "{ruleFiles: [off.conf]}")


def test_rules_of_ones_own_count_over_requests(guarded: Guarded) -> None:
    asked = [send(guarded.node.endpoint, HTTP_1, "/counted").status for _ in range(6)]
    assert asked == [200] * 3 + [403] * 3
    other = send(guarded.node.endpoint, HTTP_1, "/counted", source="127.0.0.9")
    assert other.status == 200


def test_several_cookie_fields_go_on_as_the_one_that_was_judged(
    guarded: Guarded, protocol: str
) -> None:
    path = f"/usual/cookies-{protocol[-1]}"
    fields = [("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]
    assert send(guarded.node.endpoint, protocol, path, headers=fields).status == 200
    (asked,) = [each for each in guarded.service.asked if each.target == path]
    assert asked.headers["cookie"] == "a=1; b=2; c=3"


def test_an_exclusion_that_would_switch_the_firewall_off_is_refused(
    guarded: Guarded, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match="without which nothing is blocked"):
        apply_bad(guarded, tmp_path, "{exclusions: [{rules: [949110], reason: it blocks}]}")
