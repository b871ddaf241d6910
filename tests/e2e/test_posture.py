"""Facts about a principal: policies see them while they are fresh, and a live stream ends when one it rests on does."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.e2e.caller import client_of
from tests.e2e.certificates import Authority, Credential, context_with
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node, wait_until
from tests.e2e.streaming import MANIFEST, end_of, streaming_as
from tests.e2e.wire import HTTP_1, HTTP_2
from tests.simulators.service import Service

SHOP = "spiffe://mesh.example/shop"
POLICY = """\
@id("encrypted")
permit(principal is Workload, action, resource == Route::"live")
when { context.posture.contains("disk-encrypted") };

@id("not-stolen")
forbid(principal, action, resource) when { context.posture.contains("stolen") };
"""


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
    node.set_policy("posture.cedar", POLICY)
    return node


@pytest.fixture
def shop(node: Node, authority: Authority) -> Iterator[Credential]:
    yield authority.issue(uris=[SHOP])
    node.run("posture", "remove", SHOP, check=False)


def status_of(node: Node, protocol: str, proof: Credential) -> int:
    with client_of(node, protocol, context_with(node.endpoint, protocol, proof)) as client:
        return client.get("/live/echo").status_code


def known(node: Node, fact: str, time: str = "10m") -> None:
    node.run("posture", "set", SHOP, fact, "--for", time)


@contextmanager
def control_stopped(node: Node) -> Iterator[None]:
    control = node.pid("control")
    os.kill(control, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(control, signal.SIGCONT)


@pytest.mark.parametrize("protocol", [HTTP_1, HTTP_2])
def test_a_stream_ends_when_a_fact_is_not_so_any_more(
    node: Node, shop: Credential, authority: Authority, protocol: str
) -> None:
    assert status_of(node, protocol, shop) == 403
    known(node, "disk-encrypted")
    assert status_of(node, protocol, authority.issue(uris=[f"{SHOP}/other"])) == 403
    with streaming_as(node, protocol, shop) as stream:
        known(node, "patched")
        assert all(stream.goes_on() for _ in range(50)), "another fact ends nothing"
        known(node, "disk-encrypted=false")
        record = end_of(node, stream)
    assert (record["cause"], record["stage"]) == ("policy_denied", "authorize")
    assert status_of(node, protocol, shop) == 403


@pytest.mark.parametrize("protocol", [HTTP_1, HTTP_2])
def test_a_fact_goes_stale_by_itself_though_control_stands_still(
    node: Node, shop: Credential, protocol: str
) -> None:
    known(node, "disk-encrypted", "5s")
    with control_stopped(node), streaming_as(node, protocol, shop) as stream:
        record = end_of(node, stream)
        assert record["cause"] == "policy_denied"
        assert 1_000_000 < record["totalUs"] < 7_000_000
        assert status_of(node, protocol, shop) == 403


def test_a_fact_that_forbids_wins_at_once(node: Node, shop: Credential) -> None:
    known(node, "disk-encrypted")
    with streaming_as(node, HTTP_2, shop) as stream:
        known(node, "stolen")
        record = end_of(node, stream)
    assert record["cause"] == "policy_denied"
    assert status_of(node, HTTP_2, shop) == 403


def test_an_engine_that_starts_again_knows_them_before_it_serves(
    node: Node, shop: Credential
) -> None:
    known(node, "disk-encrypted")
    before = node.pid("engine")
    with control_stopped(node):
        os.kill(before, signal.SIGKILL)
        assert status_of(node, HTTP_1, shop) == 200, "without the fact it would be 403"
    wait_until("control answers", lambda: node.run("posture", "list", check=False).returncode == 0)
    known(node, "stolen")
    assert status_of(node, HTTP_1, shop) == 403


def test_a_table_that_control_did_not_sign_is_not_believed(node: Node, shop: Credential) -> None:
    file = node.path("engine", "posture.json")
    known(node, "patched")
    envelope = json.loads(file.read_text())
    good = file.read_bytes()
    envelope["payload"] = envelope["payload"][:-8] + "AAAAAA=="
    try:
        file.write_text(json.dumps(envelope))
        with node.engine() as engine:
            refused = engine.post("/posture")
        assert (refused.status_code, refused.json()["error"]) == (422, "signature_invalid")
    finally:
        file.write_bytes(good)
    assert node.status()["engine"]["error"] is None


def test_it_is_explained_and_tested_with_what_is_known(node: Node, shop: Credential) -> None:
    asked = ("policy", "explain", "--spiffe", SHOP, "--path", "/live/x", "--json")

    def decided(*more: str) -> tuple[bool, list[str]]:
        (answer,) = json.loads(node.run(*asked, *more).stdout)["answers"]
        return answer["allowed"], answer["decidedBy"]

    assert decided() == (False, [])
    known(node, "disk-encrypted")
    assert decided() == (True, ["encrypted"])
    assert decided("--posture", "disk-encrypted,stolen") == (False, ["not-stolen"])
