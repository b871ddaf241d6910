"""The challenge: whoever opens a page does a little work first, and programs that say so are left alone."""

from __future__ import annotations

import hashlib
import html
import itertools
import json
import os
import re
import signal
import stat
import time
from collections.abc import Iterator, Sequence
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.node import GREETING, Node, wait_until
from tests.e2e.wire import HTTP_1, Answer, Header, send
from tests.guests import Guests
from tests.simulators.service import Service

CRAWLER, ELSEWHERE = "127.0.0.95", "127.0.0.96"
ANSWERS = "/.vedette/challenge"
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
BROWSER: list[Header] = [
    ("user-agent", CHROME),
    ("accept", "text/html,application/xhtml+xml,*/*;q=0.8"),
    ("accept-language", "en"),
    ("accept-encoding", "gzip"),
    ("sec-fetch-mode", "navigate"),
]

EDGE = """\
apiVersion: vedette.dev/v1alpha1
kind: Node
metadata: {{name: edge}}
spec:
  challenge:
    wait: 2s
    difficulty: 8
    crawlers: [{{name: goodbot, token: GoodBot, networks: [127.0.0.95]}}]
---
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: site}}
spec: {{url: "http://127.0.0.1:{port}"}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: page}}
spec:
  public: true
  challenge: always
  rules:
    - matches: [{{path: {{value: /page}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: site}}]
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: shy}}
spec:
  public: true
  challenge: suspicious
  rules:
    - matches: [{{path: {{value: /shy}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: site}}]
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: usual}}
spec:
  public: true
  rules:
    - matches: [{{path: {{value: /usual}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: site}}]
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: fixed}}
spec:
  public: true
  challenge: always
  rules: [{{matches: [{{path: {{value: /fixed}}}}], static: {{body: hello}}}}]
"""


@pytest.fixture(scope="module")
def own(
    start_node: StartNode, guests: Guests, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    """A node whose pages are behind the challenge."""
    service = Service("site")
    node = start_node()
    node.deploy(guests.hello, "hello")
    node.deploy(guests.hostile, "mirror", "--public")
    folder = tmp_path_factory.mktemp("challenge")
    (folder / "edge.yaml").write_text(EDGE.format(port=service.port), "utf-8")
    node.run("apply", str(folder), "--yes")
    yield node
    node.stop()
    service.close()


def ask(
    node: Node,
    protocol: str,
    path: str,
    headers: Sequence[Header] = BROWSER,
    method: str = "GET",
    source: str = "",
) -> Answer:
    return send(node.endpoint, protocol, path, headers=headers, method=method, source=source)


def without(*names: str) -> list[Header]:
    return [field for field in BROWSER if field[0] not in names]


def token_and_answer(page: Answer) -> tuple[str, str]:
    """The token of a page, and where an answer to it goes."""
    text = page.body.decode()
    (token,) = re.findall(r'data-token="([^"]+)"', text)
    (answer,) = re.findall(r'data-answer="([^"]+)"', text)
    return token, html.unescape(answer)


def solution(token: str, bits: int = 8) -> int:
    return next(number for number in itertools.count() if is_solution(token, number, bits))


def is_solution(token: str, number: int, bits: int = 8) -> bool:
    digest = hashlib.sha256(f"{token}{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> (32 - bits) == 0


def solved(node: Node, protocol: str, path: str = "/page?a=1&b=2") -> tuple[str, str]:
    """Does the work; where the answer went, and the cookie that it brought."""
    token, answer = token_and_answer(ask(node, protocol, path))
    url = f"{answer}&n={solution(token)}"
    done = ask(node, protocol, url)
    assert (done.status, done.headers["location"]) == (303, path)
    return url, done.headers["set-cookie"]


def with_cookie(cookie: str) -> list[Header]:
    return [*BROWSER, ("cookie", f"other=1; {cookie.split(';')[0]}; more=2")]


def test_a_page_is_behind_a_page_that_loads_nothing(own: Node, protocol: str) -> None:
    answer = ask(own, protocol, "/page?a=1&b=2")
    assert (answer.status, answer.headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "http" not in re.sub(r'http-equiv="refresh"', "", answer.body.decode())
    assert answer.request_id in answer.body.decode()
    record = own.record(answer.request_id)
    told = (record["stage"], record["cause"], record["detail"])
    assert told == ("limit", "challenge_required", "always")


def test_the_head_of_it_has_no_body(own: Node, protocol: str) -> None:
    answer = ask(own, protocol, "/page", method="HEAD")
    assert (answer.status, answer.body) == (403, b"")


def test_work_brings_a_pass_and_the_way_back(own: Node, protocol: str) -> None:
    _, cookie = solved(own, protocol)
    assert {"Path=/", "HttpOnly", "SameSite=Lax", "Secure", "Max-Age=3600"} <= set(
        cookie.split("; ")
    )
    answer = ask(own, protocol, "/page?a=1&b=2", with_cookie(cookie))
    assert answer.status == 200
    with own.engine() as engine:
        counted = engine.get("/metrics").json()
    assert counted["challengePasses"] >= 1
    assert counted["refusals"]["challenge_required"] >= 1


def test_a_pass_goes_no_further_than_the_node(own: Node, protocol: str) -> None:
    _, cookie = solved(own, protocol)
    own_pass = cookie.split(";")[0]

    def seen(*cookies: str) -> dict[str, str]:
        fields = [*BROWSER, *(("cookie", each) for each in cookies)]
        answer = ask(own, protocol, "/mirror/headers", fields)
        assert answer.status == 200, answer
        return dict(json.loads(answer.body))

    assert seen(f"other=1; {own_pass}; more=2")["cookie"] == "other=1; more=2"
    assert "cookie" not in seen(own_pass)
    assert seen(own_pass, "other=1")["cookie"] == "other=1"
    assert seen("other=1; vedette-pass-1=2")["cookie"] == "other=1; vedette-pass-1=2"


def test_the_firewall_does_not_look_into_what_goes_no_further(own: Node, protocol: str) -> None:
    attack = "1' OR '1'='1"
    for name, status in (("vedette-pass-0123456789abcdef", 200), ("other", 403)):
        fields = [*BROWSER, ("cookie", f"{name}={attack}")]
        assert ask(own, protocol, "/mirror/headers", fields).status == status, name


def test_a_token_is_answered_once(own: Node, protocol: str) -> None:
    url, _ = solved(own, protocol)
    again = ask(own, protocol, url)
    assert (again.status, "set-cookie" in again.headers) == (303, False)


def test_a_pass_is_for_one_network_and_one_kind_of_software(own: Node, protocol: str) -> None:
    _, cookie = solved(own, protocol)
    other = [("user-agent", FIREFOX), *with_cookie(cookie)[1:]]
    assert ask(own, protocol, "/page", other).status == 403
    assert ask(own, protocol, "/page", with_cookie(cookie), source=ELSEWHERE).status == 403
    altered = cookie.replace("=", "=A", 1)
    assert ask(own, protocol, "/page", with_cookie(altered)).status == 403


def test_who_has_no_script_waits_instead(own: Node, protocol: str) -> None:
    page = ask(own, protocol, "/page")
    _, answer = token_and_answer(page)
    refresh = r'<noscript><meta http-equiv="refresh" content="3;url=([^"]+)"></noscript>'
    assert [html.unescape(one) for one in re.findall(refresh, page.body.decode())] == [answer]
    early = ask(own, protocol, answer)
    assert (early.status, "set-cookie" in early.headers) == (303, False), "asked again"
    time.sleep(3)
    late = ask(own, protocol, answer)
    assert late.status == 303
    assert ask(own, protocol, "/page", with_cookie(late.headers["set-cookie"])).status == 200


def test_answers_that_are_wrong_forged_or_lead_elsewhere_are_refused(
    own: Node, protocol: str
) -> None:
    token, answer = token_and_answer(ask(own, protocol, "/page"))
    good = solution(token)
    wrong = next(number for number in range(good + 2) if not is_solution(token, number))
    refused = [
        f"{answer}&n={wrong}",
        f"{answer}&n=-1",
        answer.replace(token, token[::-1]),
        answer.replace("to=/page", "to=//evil.example"),
        answer.replace("to=/page", "to=https://evil.example"),
        ANSWERS,
    ]
    for url in refused:
        done = ask(own, protocol, url)
        assert (done.status, own.record(done.request_id)["cause"]) == (403, "challenge_failed"), url
    posted = ask(own, protocol, f"{answer}&n={good}", method="POST")
    assert posted.status == 403
    assert parse_qs(urlsplit(answer).query)["to"] == ["/page"]


def test_programs_callers_and_crawlers_are_left_alone(own: Node, protocol: str) -> None:
    json_client = [*without("accept"), ("accept", "application/json")]
    assert ask(own, protocol, "/page", json_client).status == 200
    assert ask(own, protocol, "/page", without("accept")).status == 200
    assert ask(own, protocol, "/page", method="POST").status == 200
    part = [*without("sec-fetch-mode"), ("sec-fetch-mode", "cors")]
    assert ask(own, protocol, "/page", part).status == 200
    token = [*BROWSER, ("authorization", f"Bearer {own.usual_token}")]
    assert ask(own, protocol, "/page", token).status == 200
    crawler = [("user-agent", "Mozilla/5.0 (compatible; GoodBot/2.1)"), *BROWSER[1:]]
    assert ask(own, protocol, "/page", crawler, source=CRAWLER).status == 200
    assert ask(own, protocol, "/page", crawler, source=ELSEWHERE).status == 403, "pretended"
    if protocol == HTTP_1:
        upgrade = [*BROWSER, ("upgrade", "echo"), ("connection", "upgrade")]
        assert ask(own, protocol, "/page", upgrade).status != 403


def test_a_suspicious_client_is_asked_and_a_browser_is_not(own: Node, protocol: str) -> None:
    assert ask(own, protocol, "/shy").status == 200
    answer = ask(own, protocol, "/shy", without("accept-language", "accept-encoding"))
    record = own.record(answer.request_id)
    assert answer.status == 403
    assert record["detail"] == "50 points: browserWithoutLanguage, browserWithoutEncoding"
    crawler = [("user-agent", "Mozilla/5.0 (compatible; GoodBot/2.1)"), *BROWSER[1:]]
    assert ask(own, protocol, "/shy", crawler, source=ELSEWHERE).status == 403
    assert ask(own, protocol, "/shy", crawler, source=CRAWLER).status == 200


def test_routes_that_do_not_say_ask_nobody_while_the_node_is_calm(own: Node, protocol: str) -> None:
    assert ask(own, protocol, "/usual").status == 200
    assert ask(own, protocol, "/fixed").status == 403, "this one says so"
    token = [*BROWSER, ("authorization", f"Bearer {own.usual_token}")]
    assert ask(own, protocol, "/hello", token).body == GREETING


def test_a_pass_outlives_the_engine_and_its_key_is_nobody_elses(own: Node) -> None:
    key = own.path("engine", "challenge.key")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    _, cookie = solved(own, HTTP_1)
    before = own.pid("engine")
    os.kill(before, signal.SIGKILL)
    wait_until("another engine serves", lambda: own.pid("engine") not in (before, 0))
    wait_until("it answers", lambda: ask(own, HTTP_1, "/usual").status == 200)
    assert ask(own, HTTP_1, "/page", with_cookie(cookie)).status == 200
