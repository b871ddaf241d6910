"""A list of addresses from a real CrowdSec Local API: bans come, go, and outlast its absence."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node, wait_until
from tests.e2e.wire import HTTP_1, send
from tests.simulators.crowdsec import LocalApi, local_api

BANNED, IN_RANGE, HONEST = "127.0.0.66", "127.0.7.7", "127.0.0.1"
MANIFEST = """\
apiVersion: vedette.dev/v1alpha1
kind: AddressList
metadata: {{name: crowd}}
spec:
  action: Block
  maxAge: 1h
  crowdsec: {{url: "{url}", apiKeyFile: {key}, interval: 10s}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: open}}
spec:
  public: true
  rules: [{{matches: [{{path: {{value: /open}}}}], static: {{body: hello}}}}]
"""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalApi]:
    """CrowdSec's Local API."""
    with local_api(tmp_path_factory.mktemp("crowdsec")) as api:
        yield api


@pytest.fixture(scope="module")
def key(api: LocalApi) -> str:
    """A bouncer's key."""
    return api.cscli("bouncers", "add", "vedette", "-o", "raw")


@pytest.fixture(scope="module")
def own(start_node: StartNode, api: LocalApi, key: str) -> Iterator[Node]:
    """A node with a list of its bans."""
    api.cscli("decisions", "add", "-i", BANNED, "-d", "4h")
    api.cscli("decisions", "add", "-r", "127.0.7.0/24", "-d", "4h")
    api.cscli("decisions", "add", "-i", "203.0.113.9", "-t", "captcha", "-d", "4h")
    node = start_node()
    (api.root / "key").write_text(f"{key}\n", "utf-8")
    manifest = api.root / "edge.yaml"
    manifest.write_text(MANIFEST.format(url=api.url, key=api.root / "key"), "utf-8")
    node.run("apply", "--yes", "-f", str(manifest))
    yield node
    node.stop()


def crowd(node: Node) -> dict[str, Any]:
    (one,) = node.status()["addressLists"]
    return dict(one)


def is_let_in(node: Node, source: str) -> bool:
    try:
        return send(node.endpoint, HTTP_1, "/open", source=source).status == 200
    except (ConnectionError, ssl.SSLError):
        return False


def wait_for_networks(node: Node, count: int) -> None:
    wait_until(f"{count} networks", lambda: crowd(node)["networks"] == count)


def test_who_is_banned_there_is_turned_away_here(own: Node) -> None:
    wait_for_networks(own, 2)
    assert [is_let_in(own, one) for one in (BANNED, IN_RANGE, HONEST)] == [False, False, True]
    feed = crowd(own)["feed"]
    assert (feed["failures"], feed["error"], feed["leftOut"]) == (0, None, {"captcha": 1})
    told = own.run("status").stdout
    assert "crowd: block 2 networks, from http://127.0.0.1:" in told
    assert "not banned: 1 captcha" in told


def test_bans_come_and_go_and_leave_one_line_in_the_history(own: Node, api: LocalApi) -> None:
    wait_for_networks(own, 2)
    api.cscli("decisions", "add", "-i", "127.0.0.77", "-d", "4h")
    wait_until("the new one is blocked", lambda: not is_let_in(own, "127.0.0.77"))
    assert crowd(own)["networks"] == 3
    api.cscli("decisions", "delete", "-i", "127.0.0.77")
    wait_until("it is let in again", lambda: is_let_in(own, "127.0.0.77"))
    actions = own.run("history").stdout
    assert actions.count("feed crowd") == 1, actions


def test_a_rollback_goes_back_on_a_decision_and_keeps_the_bans(own: Node, api: LocalApi) -> None:
    wait_for_networks(own, 2)
    manifest = api.root / "edge.yaml"
    other = api.root / "other.yaml"
    other.write_text(manifest.read_text("utf-8").replace("body: hello", "body: bye"), "utf-8")
    plan = api.root / "saved.plan"
    assert own.run("plan", "-f", str(other), "--out", str(plan), check=False).returncode == 2
    api.cscli("decisions", "add", "-i", "127.0.0.78", "-d", "4h")
    wait_until("the new one is blocked", lambda: not is_let_in(own, "127.0.0.78"))
    own.run("apply", "--yes", str(plan))  # a plan from before the ban, which stays
    assert send(own.endpoint, HTTP_1, "/open", source=HONEST).body == b"bye"
    assert not is_let_in(own, "127.0.0.78")
    own.run("rollback")
    assert send(own.endpoint, HTTP_1, "/open", source=HONEST).body == b"hello"
    wait_until("it is blocked again", lambda: not is_let_in(own, "127.0.0.78"), 5)
    api.cscli("decisions", "delete", "-i", "127.0.0.78")
    wait_for_networks(own, 2)


def test_while_it_does_not_answer_the_list_stays_and_status_says_since_when(
    own: Node, api: LocalApi, key: str
) -> None:
    wait_for_networks(own, 2)
    api.stop()
    wait_until("it is told", lambda: crowd(own)["feed"]["failures"] > 0)
    feed = crowd(own)["feed"]
    assert feed["failingSince"] is not None
    assert "Connection refused" in feed["error"]
    assert "FAILING since" in own.run("status").stdout
    own.run("apply", "--yes", "-f", str(api.root / "edge.yaml"))
    assert not is_let_in(own, BANNED), "the list was lost"
    api.start()
    wait_until("it answers again", lambda: crowd(own)["feed"]["failures"] == 0)
    api.cscli("bouncers", "delete", "vedette")
    wait_until("it is refused", lambda: crowd(own)["feed"]["error"])
    assert "it answered 403: it does not know the key" in crowd(own)["feed"]["error"]
    assert not is_let_in(own, BANNED)
    for file in own.path().rglob("*"):
        if file.is_file():
            assert key.encode() not in file.read_bytes(), f"{file} has the key"
