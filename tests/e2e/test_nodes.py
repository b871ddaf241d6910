"""A node as a whole: where it lives, what its status says, and that several stand side by side."""

from __future__ import annotations

import json
import os
import shutil
import stat
import urllib.request
from collections.abc import Iterator

import pytest
from tests.e2e.caller import Caller
from tests.e2e.conftest import StartNode
from tests.e2e.node import GREETING, Node, new_home
from tests.e2e.wire import HTTP_1
from tests.guests import Guests


@pytest.fixture(scope="module")
def other(start_node: StartNode, guests: Guests) -> Iterator[Node]:
    """A second node beside the shared one, which listens without TLS as well."""
    node = start_node(
        "--name",
        "edge-other",
        "--location",
        "yard",
        "--listen",
        "127.0.0.1:0",
        "--listen",
        "http://127.0.0.1:0",
    )
    node.deploy(guests.hello, "hello")
    yield node
    node.stop()


def test_status_has_the_shape_that_is_documented(node: Node) -> None:
    status = json.loads(node.run("status", "--json").stdout)
    assert status["home"] == str(node.home)
    assert status["trustDomain"] == "edge-test.vedette.local"
    assert status["location"] == "local"
    assert status["version"]
    assert status["snapshot"]["digest"].startswith("sha256:")
    assert status["snapshot"]["generation"] >= 1
    assert status["snapshot"]["activatedAt"].endswith("Z")
    listener = status["listeners"][0]
    assert listener["name"] == "https"
    assert listener["url"] == f"https://{listener['address']}"
    assert status["metrics"]["url"].startswith("http://127.0.0.1:")
    for name in ("supervisor", "engine", "control", "models"):
        assert os.path.exists(f"/proc/{status['processes'][name]['pid']}")
    assert status["processes"]["engine"]["restarts"] == 0
    engine = status["engine"]
    assert engine["digest"] == status["snapshot"]["digest"]
    assert engine["generation"] == status["snapshot"]["generation"]
    assert engine["error"] is None
    assert engine["allocator"] in ("pooling", "on-demand")
    functions = {each["name"]: each for each in status["functions"]}
    assert functions["hello"]["route"] == "/hello"
    assert functions["hello"]["digest"].startswith("sha256:")
    assert (functions["hello"]["public"], functions["open"]["public"]) == (False, True)


def test_status_validates_against_its_own_schema(node: Node) -> None:
    """The admin API documents the status; what it says and what it gives must not part."""
    with node.admin() as admin:
        document = admin.get("/openapi.json").json()
        status = admin.get("/v1/status").json()
    response = document["paths"]["/v1/status"]["get"]["responses"]["200"]
    schema = response["content"]["application/json"]["schema"]
    name = schema["$ref"].rpartition("/")[2]
    properties = document["components"]["schemas"][name]["properties"]
    assert set(status) <= set(properties)
    assert {"snapshot", "listeners", "location", "processes", "functions"} <= set(status)


def test_two_nodes_do_not_share_anything(node: Node, other: Node, protocol: str) -> None:
    caller = Caller(other, protocol)
    assert caller.ask("/hello").body == GREETING
    answer = caller.ask("/hello", token=node.usual_token)
    caller.expect_refused(answer, 401, "authenticate", "token_issuer")
    assert answer.headers["x-edge-location"] == "yard"
    assert other.ca_file.read_bytes() != node.ca_file.read_bytes()
    names = {each["name"] for each in other.status()["functions"]}
    assert names == {"hello"}
    caller.close()


def test_a_token_of_a_node_of_the_same_name_is_refused(
    node: Node, start_node: StartNode, protocol: str
) -> None:
    """Same trust domain by name, other keys: the name alone proves nothing."""
    twin = start_node("--name", "edge-test")
    stranger = twin.token()
    twin.stop()
    caller = Caller(node, protocol)
    answer = caller.ask("/hello", token=stranger)
    assert answer.status == 401
    assert node.record(answer.request_id)["cause"] in ("token_key_unknown", "token_signature")
    caller.close()


def test_a_plain_listener_serves_on_loopback(other: Node) -> None:
    listeners = {each["name"]: each for each in other.status()["listeners"]}
    plain = next(each for each in listeners.values() if each["url"].startswith("http://"))
    asked = urllib.request.Request(
        f"{plain['url']}/hello", headers={"authorization": f"Bearer {other.usual_token}"}
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        assert answer.read() == GREETING
        record = other.record(answer.headers["x-request-id"])
    assert record["listener"] == plain["name"]
    assert "sni" not in record


def test_a_plain_listener_elsewhere_is_refused() -> None:
    node = Node(new_home())
    done = node.run(
        "up",
        "--detach",
        "--bare",
        "--metrics",
        "127.0.0.1:0",
        "--listen",
        "http://0.0.0.0:0",
        check=False,
    )
    node.discard()
    assert done.returncode == 2, done.stderr
    assert "plain HTTP" in done.stderr


def test_one_home_holds_one_node(node: Node) -> None:
    done = node.run("up", "--detach", "--bare", "--listen", "127.0.0.1:0", check=False)
    assert done.returncode != 0
    assert str(node.home) in done.stderr
    caller = Caller(node, HTTP_1)
    caller.expect_neighbour_served()
    caller.close()


def test_a_home_path_too_long_for_a_socket_is_named() -> None:
    parent = new_home()
    node = Node(parent / ("x" * 100))
    done = node.run("up", "--detach", "--bare", "--listen", "127.0.0.1:0", check=False)
    node.discard()
    shutil.rmtree(parent)
    assert done.returncode == 2, done.stderr
    assert "107" in done.stderr


def test_a_command_without_a_node_says_so() -> None:
    node = Node(new_home())
    done = node.run("list", check=False)
    node.discard()
    assert done.returncode == 4, (done.returncode, done.stderr)
    assert "vedette up" in done.stderr
    assert "Traceback" not in done.stderr


def test_secrets_are_the_owners_only(node: Node) -> None:
    for folder in ("control", "engine", "log", "spool"):
        assert stat.S_IMODE(node.path(folder).stat().st_mode) == 0o700, folder
    for way in (
        node.home,
        node.path("run"),
    ):  # others pass here to the Workload API, and see nothing
        assert stat.S_IMODE(way.stat().st_mode) == 0o711, way
        files = [
            file for file in way.iterdir() if not file.is_dir() and file.name != "workload.sock"
        ]
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}, files
    for name in ("ca.key", "signing.key", "token.key", "jwt-svid.key", "seal.key", "identity.db"):
        assert stat.S_IMODE(node.path("control", name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE(node.path("engine", "tls", "server.key").stat().st_mode) == 0o600
    socket_mode = node.path("run", "admin.sock").stat().st_mode
    assert stat.S_IMODE(socket_mode) & 0o077 == 0


def test_the_token_that_a_person_asks_for_has_a_bound(node: Node) -> None:
    refused = node.run("token", "--subject", "x", "--ttl", "31d", check=False)
    assert refused.returncode == 2
    assert "ttl" in refused.stderr.lower()


def test_the_ca_is_the_one_that_signs(node: Node) -> None:
    printed = node.run("ca").stdout
    assert printed.strip() == node.ca_file.read_text("utf-8").strip()
    assert json.dumps(printed).count("BEGIN CERTIFICATE") == 1
    assert "PRIVATE" not in printed
