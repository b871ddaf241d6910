"""What a route asks of a request and what it makes of it: conditions, redirects, files, rewrites, canary, limits.

All of it is applied as manifests, as a person would.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.caller import Caller
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node
from tests.e2e.wire import HTTP_1, Answer
from tests.guests import Guests

HEAD = "apiVersion: vedette.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n"

MATCHES = (
    HEAD.format(kind="Route", name="matches")
    + """\
  public: true
  rules:
    - matches:
        - path: {value: /m}
          method: POST
      static: {body: post}
    - matches:
        - path: {value: /m}
          headers: [{name: X-Canary, value: "yes"}]
          queryParams: [{name: v, type: RegularExpression, value: "[0-9]+"}]
      static: {body: header and query}
    - matches:
        - path: {value: /m}
          headers: [{name: X-Canary, value: "yes"}]
      static: {body: header}
    - matches:
        - path: {value: /m}
          cookies: [{name: group, value: b}]
      static: {body: cookie}
    - matches:
        - path: {value: /m}
      static: {body: rest}
    - matches:
        - path: {value: /m/deep}
          method: PUT
      static: {body: deep put}
"""
)

MOVES = (
    HEAD.format(kind="Route", name="moves")
    + """\
  public: true
  rules:
    - matches: [{path: {value: /old}}]
      filters:
        - type: RequestRedirect
          requestRedirect:
            hostname: example.org
            statusCode: 301
            path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}
    - matches: [{path: {value: /rewritten}}]
      filters:
        - type: URLRewrite
          urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /canary-a/headers}}
        - type: RequestHeaderModifier
          requestHeaderModifier:
            set: [{name: x-set, value: one}]
            remove: [x-secret]
        - type: ResponseHeaderModifier
          responseHeaderModifier: {set: [{name: x-answered, value: through}]}
      backendRefs: [{kind: Function, group: vedette.dev, name: canary-a}]
    - matches: [{path: {value: /split}}]
      sessionPersistence: {sessionName: side}
      backendRefs:
        - {kind: Function, group: vedette.dev, name: canary-a, weight: 3}
        - {kind: Function, group: vedette.dev, name: canary-b, weight: 1}
    - matches: [{path: {value: /site}}]
      files: {folder: site}
"""
)

LIMITS = "\n---\n".join(
    [
        HEAD.format(kind="Route", name="limited")
        + "  public: true\n  rules:\n    - matches: [{path: {value: /limited}}]\n      static: {body: ok}\n",
        HEAD.format(kind="Limit", name="few")
        + "  per: [Source]\n  routes: [limited]\n  rate: 3/1h\n",
        HEAD.format(kind="Route", name="quota")
        + "  public: true\n  rules:\n    - matches: [{path: {value: /quota}}]\n      static: {body: ok}\n",
        HEAD.format(kind="Limit", name="month") + "  routes: [quota]\n  quota: 2/month\n",
    ]
)


@pytest.fixture(scope="module")
def routed(start_node: StartNode, guests: Guests, tmp_path_factory: pytest.TempPathFactory) -> Node:
    """A node with the manifests above applied."""
    node = start_node()
    folder = tmp_path_factory.mktemp("routes")
    for name in ("canary-a", "canary-b"):
        node.deploy(guests.hostile, name, "--public")
    site = folder / "site"
    (site / "sub").mkdir(parents=True)
    (site / "index.html").write_text("<p>home</p>", "utf-8")
    (site / "sub" / "index.html").write_text("<p>sub</p>", "utf-8")
    (site / "data.bin").write_bytes(bytes(range(256)) * 4096)
    for name, text in (("matches", MATCHES), ("moves", MOVES), ("limits", LIMITS)):
        (folder / f"{name}.yaml").write_text(text, "utf-8")
        node.run("apply", "--yes", "-f", str(folder / f"{name}.yaml"))
    return node


@pytest.fixture
def caller(routed: Node, protocol: str) -> Iterator[Caller]:
    """Asks `routed`, over each protocol."""
    caller = Caller(routed, protocol)
    yield caller
    caller.close()


@pytest.mark.parametrize(
    ("method", "target", "headers", "body"),
    [
        ("GET", "/m", {}, b"rest"),
        ("POST", "/m", {}, b"post"),
        ("GET", "/m/x", {"x-canary": "yes"}, b"header"),
        ("GET", "/m?v=12", {"x-canary": "yes"}, b"header and query"),
        ("GET", "/m?v=12a", {"x-canary": "yes"}, b"header"),
        ("GET", "/m?v=12", {"x-canary": "Yes"}, b"rest"),
        ("GET", "/m", {"cookie": "a=1; group=b"}, b"cookie"),
        ("GET", "/m", {"cookie": "xgroup=b"}, b"rest"),
        ("POST", "/m?v=1", {"x-canary": "yes"}, b"post"),
        ("PUT", "/m/deep/x", {}, b"deep put"),
        ("GET", "/m/deep/x", {}, b"rest"),
    ],
)
def test_the_most_specific_route_that_matches_answers(
    caller: Caller, method: str, target: str, headers: dict[str, str], body: bytes
) -> None:
    answer = caller.ask(target, method=method, anonymous=True, headers=headers)
    assert (answer.status, answer.body) == (200, body)


def test_a_redirect_keeps_query_and_port_and_replaces_the_prefix(caller: Caller) -> None:
    answer = caller.ask("/old/a%20b?q=1", anonymous=True)
    port = caller.node.endpoint.port
    assert answer.status == 301
    assert answer.headers["location"] == f"https://example.org:{port}/new/a%20b?q=1"


def test_a_rewrite_changes_what_the_function_sees_and_the_answer(caller: Caller) -> None:
    answer = caller.ask(
        "/rewritten", anonymous=True, headers={"x-secret": "s", "x-set": "two", "x-kept": "k"}
    )
    assert answer.status == 200
    assert answer.headers["x-answered"] == "through"
    assert b'"x-set":"one"' in answer.body.replace(b" ", b"")
    assert b"x-kept" in answer.body
    assert b"x-secret" not in answer.body


def test_weights_share_requests_and_a_cookie_keeps_the_choice(routed: Node) -> None:
    caller = Caller(routed, HTTP_1)
    chosen: dict[str, int] = {}
    cookie = ""
    for _ in range(200):
        caller.client.cookies.clear()
        answer = caller.ask("/split/status", anonymous=True)
        function = str(routed.record(answer.request_id)["function"])
        chosen[function] = chosen.get(function, 0) + 1
        if function == "canary-b":
            cookie = answer.headers["set-cookie"]
    # 200 draws at a quarter: fewer than 20 or more than 90 happen less than once in 10^6 runs.
    assert 20 <= chosen["canary-b"] <= 90, chosen
    assert cookie.startswith("side=")
    assert "HttpOnly" in cookie
    assert "canary" not in cookie
    caller.client.cookies.clear()
    kept = {"cookie": cookie.split(";")[0]}
    for _ in range(20):
        answer = caller.ask("/split/status", anonymous=True, headers=kept)
        assert routed.record(answer.request_id)["function"] == "canary-b"
        assert "set-cookie" not in answer.headers
    caller.close()


def test_a_policy_on_a_function_holds_on_every_route_to_it(
    start_node: StartNode, guests: Guests, tmp_path: Path
) -> None:
    node = start_node()
    node.deploy(guests.hostile, "canary-a", "--public")
    node.deploy(guests.hostile, "canary-b", "--public")
    manifest = tmp_path / "moves.yaml"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("x", "utf-8")
    manifest.write_text(MOVES.replace("weight: 3", "weight: 0"), "utf-8")
    node.run("apply", "--yes", "-f", str(manifest))
    caller = Caller(node, HTTP_1)
    assert caller.ask("/split/status", anonymous=True).status == 200
    node.set_policy("no-b.cedar", 'forbid(principal, action, resource == Function::"canary-b");')
    answer = caller.ask("/split/status")
    assert answer.status == 403
    assert node.record(answer.request_id)["cause"] == "policy_denied"
    caller.close()


def test_files_are_answered_with_type_tag_and_ranges(caller: Caller) -> None:
    data = bytes(range(256)) * 4096
    whole = caller.ask("/site/data.bin", anonymous=True)
    assert (whole.status, whole.body) == (200, data)
    assert whole.headers["etag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    assert whole.headers["x-content-type-options"] == "nosniff"
    known = caller.ask(
        "/site/data.bin", anonymous=True, headers={"if-none-match": whole.headers["etag"]}
    )
    assert (known.status, known.body) == (304, b"")
    part = caller.ask("/site/data.bin", anonymous=True, headers={"range": "bytes=10-19"})
    assert (part.status, part.body) == (206, data[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(data)}"
    beyond = caller.ask("/site/data.bin", anonymous=True, headers={"range": f"bytes={len(data)}-"})
    assert beyond.status == 416


def test_a_folder_answers_with_its_index_behind_a_slash(caller: Caller) -> None:
    home = caller.ask("/site/", anonymous=True)
    assert (home.status, home.body) == (200, b"<p>home</p>")
    assert home.headers["content-type"].startswith("text/html")
    assert caller.ask("/site/sub/", anonymous=True).body == b"<p>sub</p>"
    for bare, location in (("/site", "/site/"), ("/site/sub", "/site/sub/")):
        moved = caller.ask(bare, anonymous=True)
        assert (moved.status, moved.headers["location"]) == (308, location)


@pytest.mark.parametrize(
    ("method", "path", "status", "cause"),
    [
        ("GET", "/site/nothing", 404, "file_not_found"),
        ("GET", "/site/sub/../../etc/passwd", 404, "not_found"),
        ("GET", "/site/..%2fdata.bin", 400, "malformed_path"),
        ("POST", "/site/data.bin", 405, "files_read_only"),
        ("DELETE", "/site/", 405, "files_read_only"),
    ],
)
def test_files_refuse_what_is_not_theirs(
    caller: Caller, method: str, path: str, status: int, cause: str
) -> None:
    answer = caller.send(path, method=method, anonymous=True)
    assert answer.status == status
    assert caller.node.record(answer.request_id)["cause"] == cause


def test_a_file_changed_on_disk_is_not_served(
    start_node: StartNode, guests: Guests, tmp_path: Path
) -> None:
    node = start_node()
    for name in ("canary-a", "canary-b"):
        node.deploy(guests.hostile, name)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("honest", "utf-8")
    (tmp_path / "moves.yaml").write_text(MOVES, "utf-8")
    node.run("apply", "--yes", "-f", str(tmp_path / "moves.yaml"))
    digest = hashlib.sha256(b"honest").hexdigest()
    blob = node.path("engine", "blobs", "sha256", digest)
    blob.chmod(0o600)
    blob.write_text("forged", "utf-8")
    caller = Caller(node, HTTP_1)
    answer = caller.ask("/site/", anonymous=True)
    assert answer.status == 503
    assert node.record(answer.request_id)["cause"] == "file_unavailable"
    caller.close()


def test_a_rate_refuses_with_the_time_to_wait(routed: Node) -> None:
    caller = Caller(routed, HTTP_1)
    answers = [caller.ask("/limited", anonymous=True) for _ in range(5)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[0].headers["ratelimit-policy"].startswith('"few";q=3;w=3600')
    assert answers[0].headers["ratelimit"].startswith('"few";r=2')
    _refused(routed, answers[3], 429, "rate_limited", "few")
    assert 0 < int(answers[3].headers["retry-after"]) <= 1200
    assert caller.ask("/m", anonymous=True).status == 200, "another route has no limit"
    caller.close()


def test_a_quota_outlives_a_restart_of_the_engine(routed: Node) -> None:
    caller = Caller(routed, HTTP_1)
    assert [caller.ask("/quota", anonymous=True).status for _ in range(3)] == [200, 200, 429]
    caller.close()
    routed.run("down")
    routed.start()
    caller = Caller(routed, HTTP_1)
    answer = caller.ask("/quota", anonymous=True)
    _refused(routed, answer, 429, "quota_exceeded", "month")
    caller.close()


def _refused(node: Node, answer: Answer, status: int, cause: str, limit: str) -> None:
    record = node.record(answer.request_id)
    assert answer.status == status
    assert (record["stage"], record["cause"], record["outcome"]) == ("limit", cause, "refused")
    assert record["detail"] == f"the limit {limit}"
