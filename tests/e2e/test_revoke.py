"""`vedette revoke`: whoever it names is refused at once and what goes on of them ends; first in the engine, then in the
snapshot, and never open again in between.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.e2e import tokens
from tests.e2e.caller import client_of
from tests.e2e.certificates import Authority, Credential, context_with
from tests.e2e.conftest import StartNode
from tests.e2e.node import PROGRAM, Node, wait_until
from tests.e2e.streaming import MANIFEST, WORKLOADS, end_of, streaming, streaming_as
from tests.e2e.wire import HTTP_1, HTTP_2
from tests.simulators.service import Service

SHOP = "spiffe://mesh.example/shop"
OTHER = "spiffe://mesh.example/other"


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
    node = start_node("--workers", "2")
    node.apply(MANIFEST.format(port=service.port))
    node.set_policy("workloads.cedar", WORKLOADS)
    node.run(
        "authority", "add", "mesh", "--ca", str(authority.file), "--trust-domain", "mesh.example"
    )
    return node


def status_of(
    node: Node, protocol: str, *, token: str = "", proof: Credential | None = None
) -> int:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    with client_of(node, protocol, context_with(node.endpoint, protocol, proof)) as client:
        return client.get("/live/echo", headers=headers).status_code


def listed(node: Node) -> dict[str, dict[str, Any]]:
    return {one["what"]: one for one in json.loads(node.run("revoke", "--list", "--json").stdout)}


@pytest.mark.parametrize("protocol", [HTTP_1, HTTP_2])
def test_an_identity_is_revoked_however_it_is_proved_and_lifted(
    node: Node, authority: Authority, protocol: str
) -> None:
    shop, other = authority.issue(uris=[SHOP]), authority.issue(uris=[OTHER])
    by_token = node.token(SHOP)
    with (
        streaming_as(node, protocol, shop) as ending,
        streaming_as(node, protocol, other) as going,
        streaming(node, protocol, by_token) as named,
    ):
        node.run("revoke", SHOP, "--reason", "found on a fair")
        assert end_of(node, ending)["cause"] == "identity_revoked"
        assert end_of(node, named)["cause"] == "identity_revoked"
        assert all(going.goes_on() for _ in range(20))
    assert status_of(node, protocol, proof=shop) == 401
    assert status_of(node, protocol, token=by_token) == 401
    assert status_of(node, protocol, proof=other) == 200
    assert listed(node)[SHOP]["reason"] == "found on a fair"
    node.run("revoke", "--lift", SHOP)
    assert SHOP not in listed(node)
    assert status_of(node, protocol, proof=shop) == 200


@pytest.mark.parametrize("protocol", [HTTP_1, HTTP_2])
def test_a_trust_domain_is_revoked_as_a_whole(
    node: Node, authority: Authority, protocol: str
) -> None:
    shop = authority.issue(uris=[SHOP])
    with (
        streaming_as(node, protocol, shop) as ending,
        streaming(node, protocol, node.token("alice")) as going,
    ):
        node.run("revoke", "mesh.example")
        record = end_of(node, ending)
        assert all(going.goes_on() for _ in range(20))
    assert (record["cause"], record["stage"]) == ("identity_revoked", "authenticate")
    assert status_of(node, protocol, proof=shop) == 401
    node.run("revoke", "--lift", "spiffe://mesh.example")
    assert status_of(node, protocol, proof=shop) == 200


def test_a_certificate_is_revoked_by_its_authority_and_serial(
    node: Node, authority: Authority
) -> None:
    shop = authority.issue(uris=[SHOP])
    with streaming_as(node, HTTP_2, shop) as ending:
        node.run("revoke", f"mesh/{shop.serial}")
        assert end_of(node, ending)["cause"] == "certificate_revoked"
    assert listed(node)[f"mesh/{shop.serial}"]["kind"] == "certificate"
    assert status_of(node, HTTP_1, proof=authority.issue(uris=[SHOP])) == 200


def test_a_token_is_revoked_from_a_file_or_stdin_and_never_from_the_command_line(
    node: Node, tmp_path: Path
) -> None:
    first, second = node.token("mallory"), node.token("mallory")
    file = tmp_path / "token.txt"
    file.write_text(first + "\n")
    node.run("revoke", f"@{file}")
    command = [str(PROGRAM), "revoke", "-", "--json", "--home", str(node.home)]
    done = subprocess.run(
        command, input=second, text=True, check=True, timeout=60, capture_output=True
    )
    _, claims = tokens.parts_of(second)
    assert json.loads(done.stdout)["what"] == f"{claims['iss']}#{claims['jti']}"
    for token in (first, second):
        assert status_of(node, HTTP_2, token=token) == 401
        assert token not in json.dumps(listed(node))
    third = node.token("mallory")
    refused = node.run("revoke", third, check=False)
    assert refused.returncode == 2
    assert third not in refused.stderr
    assert status_of(node, HTTP_2, token=third) == 200


@pytest.mark.parametrize("protocol", [HTTP_1, HTTP_2])
def test_what_the_engine_was_told_holds_until_a_snapshot_does(
    node: Node, authority: Authority, protocol: str
) -> None:
    """Control stands still between the two steps; meanwhile the engine serves an older snapshot and the last again."""
    before = node.status()["snapshot"]
    node.set_policy("other.cedar", WORKLOADS.replace('"workloads"', '"others"'))
    after = node.status()["snapshot"]
    name = f"{SHOP}/{protocol.replace('/', '-')}"
    shop = authority.issue(uris=[name])
    control = node.pid("control")
    with streaming_as(node, protocol, shop) as ending, node.engine() as engine:
        os.kill(control, signal.SIGSTOP)
        try:
            row = {"kind": "spiffeId", "id": name}
            engine.post("/revoke", json={"revoke": [row]}).raise_for_status()
            assert status_of(node, protocol, proof=shop) == 401
            assert end_of(node, ending)["cause"] == "identity_revoked"
            for snapshot in (before, after):
                wish = {"digest": snapshot["digest"], "generation": after["generation"]}
                engine.post("/apply", json=wish).raise_for_status()
                assert status_of(node, protocol, proof=shop) == 401
            assert engine.get("/revoked").json() == {"revoked": [row]}
        finally:
            os.kill(control, signal.SIGCONT)
    wait_until("control puts it into the snapshot", lambda: name in listed(node))
    with node.engine() as engine:
        assert engine.get("/revoked").json() == {"revoked": []}
    assert status_of(node, protocol, proof=shop) == 401
    os.kill(node.pid("engine"), signal.SIGKILL)
    assert status_of(node, protocol, proof=shop) == 401


def test_what_was_revoked_is_recorded_with_its_reason(node: Node) -> None:
    node.run("revoke", "spiffe://fair.example", "--reason", "lost")
    lines = node.run("records", "--kind", "admin", "--json").stdout.splitlines()
    found = [json.loads(line) for line in lines if "fair.example" in line]
    (record,) = (one for one in found if one["action"] == "revoke")
    assert (record["target"], record["reason"]) == ("spiffe://fair.example", "lost")
    assert record["outcome"] == "done"


def test_a_stream_that_begins_while_its_token_is_being_revoked_ends_as_well(node: Node) -> None:
    """Many at once, so that some are granted before the revocation and known to their worker only after it."""
    token = node.token("mallory")
    _, claims = tokens.parts_of(token)
    row = {"kind": "token", "issuer": claims["iss"], "id": claims["jti"]}
    context = context_with(node.endpoint, HTTP_1, None)
    opened: list[ssl.SSLSocket] = []
    request = (
        f"GET /live/ticks HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n"
    )
    try:
        for _ in range(40):
            plain = socket.create_connection((node.endpoint.host, node.endpoint.port), timeout=60)
            opened.append(context.wrap_socket(plain, server_hostname="localhost"))
        with node.engine() as engine:
            for secured in opened:
                secured.sendall(request.encode())
            engine.post("/revoke", json={"revoke": [row]}).raise_for_status()
        for secured in opened:
            read_to_its_end(secured)
    finally:
        for secured in opened:
            secured.close()


def read_to_its_end(secured: ssl.SSLSocket) -> None:
    """Reads an answer that is a refusal or breaks off; fails for one that goes on."""
    read = b""
    with suppress(ConnectionError, ssl.SSLError):
        while not read.startswith(b"HTTP/1.1 401 ") and (part := secured.recv(65_536)):
            read += part
            assert read.count(b"\n") < 5_000, "the stream goes on"
