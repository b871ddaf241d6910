"""`vedette waf …` says what the engine then does, proposes what lets honest requests pass, and keeps the rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node, vedette, wait_until
from tests.e2e.wire import HTTP_1, send_bytes, tls_context
from tests.guests import Guests

from vedette.identity.signer import RULE_SET_TYPE, SnapshotSigner
from vedette.policy import coreruleset

SHOP = """\
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: shop}
spec:
  public: true
  waf: {mode: %s}
  rules:
    - matches: [{path: {value: /shop}}]
      static: {body: "ok\\n"}
"""
ATTACK = "/shop?comment=1%27%20or%20%271%27%3D%271"
BROWSER = {"user-agent": "Mozilla/5.0", "accept": "*/*"}


@pytest.fixture(scope="module")
def guarded(
    start_node: StartNode, guests: Guests, tmp_path_factory: pytest.TempPathFactory
) -> Node:
    """A node with a route that blocks, and a public function."""
    node = start_node("--name", "guarded")
    node.deploy(guests.hello, "open", "--public")
    file = tmp_path_factory.mktemp("shop") / "shop.yaml"
    file.write_text(SHOP % "block")
    node.run("apply", "--yes", "-f", str(file))
    return node


def ask(node: Node, target: str, source: str = "127.0.0.1", **more: Any) -> httpx.Response:
    """One real request from an address of this machine."""
    context = tls_context(node.ca_file, HTTP_1)
    transport = httpx.HTTPTransport(verify=context, local_address=source)
    with httpx.Client(transport=transport, base_url=node.url, headers=BROWSER) as client:
        return client.request(more.pop("method", "GET"), target, **more)


def judged(node: Node, *arguments: str) -> list[dict[str, Any]]:
    told = json.loads(node.run("waf", "test", "--json", *arguments).stdout)
    assert isinstance(told, list)
    return told


def curl(node: Node, target: str, *more: str) -> str:
    fields = " ".join(f"-H '{name}: {value}'" for name, value in BROWSER.items())
    return f"curl '{node.url}{target}' {fields} {' '.join(more)}"


@pytest.mark.parametrize(
    "target", ["/shop?comment=fine", ATTACK, "/nowhere", "/open?q=%3Cscript%3E"]
)
def test_a_request_is_judged_as_it_is_then_answered(guarded: Node, target: str) -> None:
    (told,) = judged(guarded, "--curl", curl(guarded, target))
    answer = ask(guarded, target)
    assert told["status"] == (None if answer.status_code == 200 else answer.status_code)
    if answer.status_code == 403:
        event = wait_until("event", lambda: events(guarded, answer.headers["x-request-id"]))[0]
        assert told["score"] == event["score"]
        assert [each["rule"] for each in told["violations"]] == [
            each["rule"] for each in event["violations"]
        ]


def test_what_was_blocked_and_why_is_read_with_records(guarded: Node) -> None:
    answer = ask(guarded, ATTACK)
    asked = answer.headers["x-request-id"]
    wait_until("event", lambda: events(guarded, asked))
    head, *rules = guarded.run("records", "--kind", "security", "--id", asked).stdout.splitlines()
    assert "  blocked  GET https://localhost/shop?comment=…  score " in head
    assert head.endswith(asked)
    assert any("942100" in line and line.endswith("ARGS:comment") for line in rules)
    both = guarded.run("records", "--id", asked).stdout
    assert {"waf_blocked", "ARGS:comment"} <= set(both.split())


def test_the_body_of_a_request_to_a_function_is_judged(guarded: Node) -> None:
    body = json.dumps({"note": "1' or '1'='1"})
    (told,) = judged(guarded, "--curl", curl(guarded, "/open", f"--json '{quoted(body)}'"))
    answer = ask(guarded, "/open", method="POST", json={"note": "1' or '1'='1"})
    assert (told["action"], answer.status_code) == ("blocked", 403)
    assert "ARGS:json.note" in {each["location"] for each in told["violations"]}


def quoted(text: str) -> str:
    """The text within a shell's single quotes."""
    return text.replace("'", "'\\''")


def test_what_was_expected_and_is_not_so_is_the_exit_code(guarded: Node) -> None:
    attack, honest = curl(guarded, ATTACK), curl(guarded, "/shop?comment=fine")
    runs = [
        guarded.run("waf", "test", "--curl", command, "--expect", expected, check=False).returncode
        for command in (attack, honest)
        for expected in ("stop", "pass")
    ]
    assert runs == [0, 1, 1, 0]


def test_a_person_reads_the_rule_and_where_it_found_something(guarded: Node) -> None:
    text = guarded.run("waf", "test", "--curl", curl(guarded, ATTACK)).stdout
    assert text.startswith("blocked with 403 waf_blocked  GET ")
    assert "942100" in text
    assert "ARGS:comment" in text
    assert guarded.run("waf", "test", check=False).returncode == 2


def test_what_an_earlier_stage_refuses_is_told_beside_the_firewalls_verdict(
    guarded: Node, guests: Guests
) -> None:
    guarded.deploy(guests.hello, "closed")
    done = guarded.run("waf", "test", "--curl", curl(guarded, "/closed?q=fine"))
    assert done.stdout.startswith("passed, but refused before with 401 credentials_required  GET ")
    refusal = "refused before the firewall with 401 credentials_required (authenticate)"
    assert f"  {refusal}: no credentials came with it" in done.stdout.splitlines()
    assert ask(guarded, "/closed?q=fine").status_code == 401
    assert "not asked: whether credentials are good" in done.stderr
    open_to_all = guarded.run("waf", "test", "--curl", curl(guarded, "/open?q=fine")).stdout
    assert open_to_all.startswith("passed  GET ")


@pytest.mark.parametrize(
    ("target", "fields", "status"),
    [
        ("/shop?q=" + "a" * (8_192 - 8), [], None),
        ("/shop?q=" + "a" * (8_192 - 7), [], 414),
        ("/shop", ["a: b"] * 98, None),
        ("/shop", ["a: b"] * 99, 431),
        ("/shop", ["a: " + "b" * (32_768 - 17 - 19 - 5)], None),
        ("/shop", ["a: " + "b" * (32_768 - 17 - 19 - 4)], 431),
    ],
    ids=["target", "long target", "fields", "many fields", "bytes", "many bytes"],
)
def test_a_head_that_is_too_large_is_told_as_it_is_answered(
    guarded: Node, tmp_path: Path, target: str, fields: list[str], status: int | None
) -> None:
    """`host: localhost` counts 17 bytes in the engine, `connection: close` 19, any name of one letter 5."""
    lines = [f"GET {target} HTTP/1.1", "host: localhost", "connection: close", *fields, "", ""]
    file = tmp_path / "request.http"
    file.write_bytes("\r\n".join(lines).encode())
    (told,) = judged(guarded, str(file))
    assert [each["status"] for each in told["before"]] == ([status] if status else [])
    answered = send_bytes(guarded.endpoint, file.read_bytes()).status
    assert (answered if answered in (414, 431) else None) == status


OWN = """\
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: own}
spec:
  waf: %s
  rules: [{matches: [{path: {value: /own}}], static: {body: ok}}]
---
apiVersion: vedette.dev/v1alpha1
kind: Node
metadata: {name: edge}
spec: %s
"""


@pytest.mark.parametrize(
    ("waf", "node_spec", "code", "place", "said"),
    [
        (
            "{rules: [{name: odd, field: path, operator: Matches, value: '('}]}",
            "{}",
            "waf_invalid",
            "own.yaml:5",
            "route own: rule 'odd': ",
        ),
        ("{ruleFiles: [odd.conf]}", "{}", "waf_invalid", "odd.conf:2", "`@containz`"),
        (
            "{exclusions: [{rules: [942100], parameter: 'ARGZ:a', reason: r}]}",
            "{}",
            "waf_invalid",
            "own.yaml:5",
            "unknown variable `ARGZ`",
        ),
        ("{}", "{countryFile: odd.mmdb}", "addresses_invalid", "own.yaml:10", "countries: "),
    ],
)
def test_a_plan_refuses_what_apply_would_and_says_where(
    guarded: Node, tmp_path: Path, waf: str, node_spec: str, code: str, place: str, said: str
) -> None:
    (tmp_path / "own.yaml").write_text(OWN % (waf, node_spec))
    (tmp_path / "odd.conf").write_text('# mine\nSecRule ARGS "@containz x" "id:1,phase:2,deny"\n')
    (tmp_path / "odd.mmdb").write_bytes(b"no database")
    generation = guarded.status()["snapshot"]["generation"]
    for command, status in (("plan", 1), ("apply", 2)):
        done = guarded.run(command, str(tmp_path / "own.yaml"), check=False)
        assert done.returncode == status, done.stderr
        error, where, mend = done.stderr.splitlines()[-3:]
        assert error.startswith("error: ")
        assert said in error
        assert where.endswith(place)
        assert mend.startswith("mend: Mend the ")
    assert code in vedette("errors", code).stdout
    assert guarded.status()["snapshot"]["generation"] == generation


SET = """\
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: own-%(name)d}
spec:
  waf: {mode: %(mode)s, rules: [{name: own, field: path, operator: Equals, value: /%(set)d}]}
  rules: [{matches: [{path: {value: /own-%(name)d}}], static: {body: ok}}]
---
"""


def test_a_node_has_sixteen_sets_of_rules_and_says_what_makes_one(
    guarded: Node, tmp_path: Path
) -> None:
    """The routes of the node itself are inspected by one more set, the Node's."""
    file = tmp_path / "sets.yaml"
    shared = [{"name": name, "mode": "block", "set": name % 15} for name in range(20)]
    unused = [{"name": name, "mode": '"off"', "set": name} for name in range(20, 25)]
    file.write_text("".join(SET % each for each in (*shared, *unused)))
    assert "Plan: 25 to add" in guarded.run("plan", str(file), check=False).stdout
    file.write_text(file.read_text() + SET % {"name": 30, "mode": "block", "set": 30})
    done = guarded.run("plan", str(file), check=False)
    assert done.returncode == 1
    error, where, mend = done.stderr.splitlines()[-3:]
    assert error == "error: route own-30: more than 16 different sets of rules on one node"
    assert where == f"where: {file}:181"
    assert mend.startswith("mend: Routes share a set of rules when ")


def test_replay_shows_what_another_firewall_would_do_and_changes_nothing(
    guarded: Node, tmp_path: Path
) -> None:
    traffic = tmp_path / "traffic.jsonl"
    urls = [f"{guarded.url}{target}" for target in ("/shop?comment=fine", ATTACK)]
    traffic.write_text("".join(json.dumps({"url": url, "headers": BROWSER}) + "\n" for url in urls))
    manifest = tmp_path / "shop.yaml"
    manifest.write_text(SHOP % "detect")
    generation = guarded.status()["snapshot"]["generation"]
    told = json.loads(
        guarded.run("waf", "replay", str(traffic), "-f", str(manifest), "--json").stdout
    )
    assert told["requests"] == 2
    (changed,) = told["changed"]
    assert (changed["before"]["action"], changed["after"]["action"]) == ("blocked", "detected")
    same = json.loads(
        guarded.run("waf", "replay", str(traffic), "--paranoia", "1", "--json").stdout
    )
    assert same["changed"] == []
    assert guarded.status()["snapshot"]["generation"] == generation


def events(node: Node, request_id: str | None = None) -> list[dict[str, Any]]:
    """The security events so far; of one request, when it is named."""
    found = []
    for segment in node.path("spool", "requests").glob("*.jsonl"):
        for line in segment.read_bytes().split(b"\0")[0].splitlines():
            event = json.loads(line)
            if event.get("kind") == "security" and request_id in (None, event["requestId"]):
                found.append(event)
    return found


def test_tune_proposes_what_lets_them_pass_with_what_else_it_lets_through(
    guarded: Node, tmp_path: Path
) -> None:
    target = "/shop?review=1%27%20or%20%271%27%3D%271"
    asked = ask(guarded, ATTACK).headers["x-request-id"]
    wait_until("event", lambda: events(guarded, asked))
    for source in ("127.0.0.2", "127.0.0.3", "127.0.0.3"):
        assert ask(guarded, target, source).status_code == 403
    wait_until("events", lambda: sum("review" in one["url"] for one in events(guarded)) >= 3)
    told = json.loads(guarded.run("waf", "tune", "--route", "shop", "--json").stdout)
    found = {(one["rule"], one["location"]): one for one in told["proposals"]}
    one = found[942100, "ARGS:review"]
    assert (one["requests"], one["clients"]) == (3, 2)
    assert one["exclusion"]["parameter"] == "ARGS:review"
    assert one["attacks"] > 1_000
    assert 0 < one["letThrough"] < one["attacks"] / 2
    assert sum(one["letThroughByRule"].values()) == one["letThrough"]
    refused = {(each["rule"], each["location"]) for each in told["refused"]}
    assert (942100, "ARGS:comment") in refused, "one client is no reason"

    manifest = with_proposals(guarded, tmp_path, "ARGS:review")
    guarded.run("apply", "--yes", "-f", str(manifest))
    assert ask(guarded, target).status_code == 200
    assert ask(guarded, ATTACK).status_code == 403
    again = json.loads(guarded.run("waf", "tune", "--route", "shop", "--json").stdout)
    assert again["settled"] >= 3
    assert "ARGS:review" not in {one["location"] for one in again["proposals"]}
    tried = ["--route", "shop", "--rule", "942100", "--parameter", "ARGS:review"]
    assert "is in force already" in guarded.run("waf", "tune", *tried).stderr
    manifest.write_text(SHOP % "block")
    guarded.run("apply", "--yes", "-f", str(manifest))


def with_proposals(node: Node, folder: Path, wanted: str) -> Path:
    """A manifest of the shop with the exclusions that are proposed under a first line with this in it."""
    text = node.run("waf", "tune", "--route", "shop").stdout
    proposals = [one for one in text.split("# route ")[1:] if wanted in one.splitlines()[0]]
    lines = [line for one in proposals for line in one.splitlines()[1:] if line[:1] != "#"]
    assert lines, text
    written = "\n".join(f"      {line}" for line in lines)
    manifest = folder / "shop.yaml"
    manifest.write_text(
        (SHOP % "block").replace("waf: {mode: block}", f"waf:\n    exclusions:\n{written}")
    )
    return manifest


def test_tune_proposes_together_what_only_helps_together(guarded: Node, tmp_path: Path) -> None:
    target = "/shop?markup=%3Cscript%3Ealert(1)%3C/script%3E"
    for source in ("127.0.0.2", "127.0.0.3", "127.0.0.3"):
        assert ask(guarded, target, source).status_code == 403
    wait_until("events", lambda: sum("markup" in one["url"] for one in events(guarded)) >= 3)
    told = json.loads(guarded.run("waf", "tune", "--route", "shop", "--json").stdout)
    (one,) = (
        each
        for each in told["joint"]
        if {exclusion["parameter"] for exclusion in each["exclusions"]} == {"ARGS:markup"}
    )
    assert len(one["rules"]) > 1
    assert (one["requests"], one["clients"], one["wouldPass"]) == (3, 2, 3)
    assert 0 < one["letThrough"] < one["attacks"]
    alone = {each["rule"] for each in told["refused"] if "alone it lets no" in each["why"]}
    assert alone >= set(one["rules"])
    manifest = with_proposals(guarded, tmp_path, f"rules {one['rules'][0]}, ")
    guarded.run("apply", "--yes", "-f", str(manifest))
    assert ask(guarded, target).status_code == 200
    assert ask(guarded, ATTACK).status_code == 403
    manifest.write_text(SHOP % "block")
    guarded.run("apply", "--yes", "-f", str(manifest))


def test_a_rule_or_route_that_is_not_there_is_a_mistake(guarded: Node) -> None:
    done = guarded.run("waf", "tune", "--route", "shop", "--rule", "12345", check=False)
    assert done.returncode == 2
    assert "error: the node has no rule 12345" in done.stderr
    done = guarded.run("waf", "tune", "--route", "shob", check=False)
    assert done.returncode == 2
    assert "error: there is no route 'shob'\nmend: There are: " in done.stderr


def test_an_exclusion_that_switches_the_scoring_off_is_refused(guarded: Node) -> None:
    flags = ["--route", "shop", "--rule", "949110", "--json"]
    told = json.loads(guarded.run("waf", "tune", *flags).stdout)
    assert told["proposals"] == []
    assert "the firewall is off" in told["refused"][0]["why"]


def test_a_rule_may_be_tried_without_any_event(guarded: Node) -> None:
    flags = ["--route", "shop", "--rule", "941100", "--parameter", "ARGS:html", "--json"]
    (one,) = json.loads(guarded.run("waf", "tune", *flags).stdout)["proposals"]
    assert (one["requests"], one["exclusion"]["parameter"]) == (0, "ARGS:html")
    assert one["letThrough"] < one["attacks"]


def test_a_signed_rule_set_takes_the_place_of_the_one_before(guarded: Node, tmp_path: Path) -> None:
    before = json.loads(guarded.run("waf", "rules", "show", "--json").stdout)
    assert before["version"] == before["installed"]
    packed = json.loads(coreruleset.PACKED.read_bytes())
    packed["version"] = "4.99.0"
    (tmp_path / "packed.json").write_text(json.dumps(packed))
    private, signed = tmp_path / "publisher.key", tmp_path / "rules.json"
    words = ["waf", "rules", "sign", str(tmp_path / "packed.json"), "--key", str(private)]
    vedette(*words, "--out", str(signed))
    signer, key = SnapshotSigner.load(private), f"{private}.pub"
    done = guarded.run("waf", "rules", "update", str(signed), "--key", key)
    assert f"{before['version']} -> 4.99.0" in done.stderr
    done = guarded.run("waf", "rules", "update", str(signed), "--key", key)
    assert "4.99.0 was in force already" in done.stderr
    assert json.loads(guarded.run("waf", "rules", "show", "--json").stdout)["version"] == "4.99.0"
    assert ask(guarded, ATTACK).status_code == 403
    other = SnapshotSigner.ensure(tmp_path / "other.key")
    (tmp_path / "other.pem").write_bytes(other.public_pem)
    foreign = ["waf", "rules", "update", str(signed), "--key", str(tmp_path / "other.pem")]
    assert guarded.run(*foreign, check=False).returncode == 3
    signed.write_bytes(signer.sign(b'{"version":"5"}', RULE_SET_TYPE))
    refused = guarded.run("waf", "rules", "update", str(signed), "--key", key, check=False)
    assert (refused.returncode, "`version`" in refused.stderr) == (2, True)
    guarded.run("waf", "rules", "update")
    after = json.loads(guarded.run("waf", "rules", "show", "--json").stdout)
    assert after["digest"] == before["digest"]
