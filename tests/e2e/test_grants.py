"""`vedette grant`: it permits until its time, and then no more; new requests are refused, live ones end, and control
need not stand by for that.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest
from tests.e2e.caller import client_of
from tests.e2e.certificates import Authority, Credential, context_with
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node, wait_until
from tests.e2e.streaming import MANIFEST, end_of, streaming_as
from tests.e2e.wire import HTTP_1, HTTP_2
from tests.simulators.service import Service

SHOP = "spiffe://mesh.example/shop"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    service = Service("service")
    yield service
    service.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("mesh"), "Mesh CA")


@pytest.fixture(scope="module")
def node(start_node: StartNode, service: Service, authority: Authority) -> Node:
    node = start_node()
    node.apply(MANIFEST.format(port=service.port))
    node.run(
        "authority", "add", "mesh", "--ca", str(authority.file), "--trust-domain", "mesh.example"
    )
    return node


@pytest.fixture
def shop(authority: Authority) -> Credential:
    return authority.issue(uris=[SHOP])


def status_of(node: Node, protocol: str, proof: Credential, method: str = "GET") -> int:
    with client_of(node, protocol, context_with(node.endpoint, protocol, proof)) as client:
        return client.request(method, "/live/echo").status_code


@pytest.mark.parametrize("protocol", [HTTP_1, HTTP_2])
def test_it_ends_by_itself_though_control_stands_still(
    node: Node, shop: Credential, protocol: str
) -> None:
    assert status_of(node, protocol, shop) == 403
    node.run("grant", SHOP, "live", "--for", "5s", "--name", "soon")
    control = node.pid("control")
    os.kill(control, signal.SIGSTOP)
    try:
        assert status_of(node, protocol, shop) == 200
        with streaming_as(node, protocol, shop) as stream:
            record = end_of(node, stream)
        assert (record["cause"], record["stage"]) == ("policy_denied", "authorize")
        assert (record["outcome"], record["policies"]) == ("aborted", ["grant soon"])
        assert 1_000_000 < record["totalUs"] < 7_000_000
        assert status_of(node, protocol, shop) == 403
    finally:
        os.kill(control, signal.SIGCONT)
    wait_until("control answers", lambda: node.run("grant", "--list", check=False).returncode == 0)
    assert json.loads(node.run("grant", "--list", "--json").stdout) == []
    node.run("grant", "--end", "soon")


def test_it_is_for_one_principal_and_the_methods_it_names(
    node: Node, authority: Authority, shop: Credential
) -> None:
    node.run("grant", SHOP, "route/live", "--method", "GET", "--for", "30m", "--name", "reading")
    try:
        assert status_of(node, HTTP_2, shop) == 200
        assert status_of(node, HTTP_2, shop, "POST") == 403
        assert status_of(node, HTTP_2, authority.issue(uris=[f"{SHOP}/other"])) == 403
    finally:
        node.run("grant", "--end", "reading")


def test_a_stream_ends_with_its_grant_and_goes_on_with_another(
    node: Node, shop: Credential
) -> None:
    node.run("grant", SHOP, "live", "--for", "3s", "--name", "short")
    node.run("grant", SHOP, "live", "--for", "30m", "--name", "long", "--reason", "ticket 7")
    with streaming_as(node, HTTP_2, shop) as stream:
        wait_until("the short one has ended", lambda: "short" not in granted(node))
        assert all(stream.goes_on() for _ in range(100))
        node.run("grant", "--end", "long")
        assert end_of(node, stream)["cause"] == "policy_denied"
    node.run("grant", "--end", "short")


def granted(node: Node) -> list[str]:
    return [one["name"] for one in json.loads(node.run("grant", "--list", "--json").stdout)]


def test_it_is_named_by_whoever_explains_and_in_the_admin_record(node: Node) -> None:
    node.run("grant", SHOP, "live", "--for", "30m", "--name", "told", "--reason", "ticket 8")
    asked = ("--spiffe", SHOP, "--path", "/live/x", "--json")
    (answer,) = json.loads(node.run("policy", "explain", *asked).stdout)["answers"]
    assert (answer["allowed"], answer["decidedBy"]) == (True, ["grant told"])
    node.run("grant", "--end", "told")
    lines = node.run("records", "--kind", "admin", "--json").stdout.splitlines()
    (record,) = (one for one in map(json.loads, lines) if one.get("reason") == "ticket 8")
    assert (record["action"], record["target"]) == ("grant", f"{SHOP} live")
