"""Control is down for an hour and SVIDs run out: they end all the same, the last policy holds for its configured time,
and then everything is closed. Nothing opens on the way.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.e2e.caller import client_of
from tests.e2e.certificates import Credential, context_with
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node, wait_until
from tests.e2e.streaming import MANIFEST, WORKLOADS, end_of, streaming_as
from tests.e2e.test_control_away import control_stopped, status_of
from tests.e2e.test_workload_identity import fetched
from tests.e2e.wire import HTTP_1, HTTP_2
from tests.simulators.service import Service

MORE = """\
---
apiVersion: vedette.dev/v1alpha1
kind: Node
metadata: {name: node}
spec: {policyHolds: 30m}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: health}
spec:
  public: true
  rules: [{matches: [{path: {value: /health}}], static: {body: fine}}]
"""
ENDED = 0  # no answer: the handshake is refused


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    service = Service("service")
    yield service
    service.close()


@pytest.fixture(scope="module")
def node(start_node: StartNode, service: Service) -> Node:
    """A node that believes its own workloads, whose SVIDs live for 10 s."""
    node = start_node("--name", "edge-away", "--site", "example.org")
    node.apply(MANIFEST.format(port=service.port) + MORE)
    node.set_policy("workloads.cedar", WORKLOADS)
    domain = node.status()["trustDomain"]
    node.run("authority", "add", "own", "--ca", str(node.ca_file), "--trust-domain", domain)
    node.run("workload", "add", "shop", "--uid", str(os.getuid()), "--ttl", "10s")
    return node


def status_as(node: Node, credential: Credential) -> int:
    try:
        with client_of(node, HTTP_1, context_with(node.endpoint, HTTP_1, credential)) as client:
            return client.get("/live/echo").status_code
    except (httpx.TransportError, ssl.SSLError):
        return ENDED


def next_engine(node: Node, control_seen: float) -> None:
    """Another engine, which finds that control was last heard then (seconds since the epoch)."""
    processes = json.loads(node.path("run", "supervisor.json").read_text("utf-8"))
    supervisor, engine = (processes[name]["pid"] for name in ("supervisor", "engine"))
    os.kill(supervisor, signal.SIGSTOP)
    try:
        os.kill(engine, signal.SIGKILL)
        wait_until("it has ended", lambda: _has_ended(engine))
        node.path("spool", "control.seen").write_text(f"{control_seen:.0f}\n", "ascii")
    finally:
        os.kill(supervisor, signal.SIGCONT)
    wait_until("another engine serves", lambda: _serves(node))


def _has_ended(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text("ascii")
    except OSError:
        return True


def _serves(node: Node) -> bool:
    try:
        return status_of(node, "/health") == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("protocol", [HTTP_1, HTTP_2])
def test_svids_end_the_policy_holds_for_its_time_and_then_all_is_closed_until_control_is_back(
    node: Node, protocol: str, tmp_path: Path
) -> None:
    token = node.token("alice")
    credential = fetched(node, tmp_path)

    with streaming_as(node, protocol, credential) as stream:
        with control_stopped(node):
            record = end_of(node, stream)
            assert (record["cause"], record["outcome"]) == ("proof_expired", "aborted")
            # A certificate is valid through its last second (RFC 5280 §4.1.2.5).
            last = credential.certificate.not_valid_after_utc.timestamp()
            wait_until("that second is over", lambda: time.time() >= last + 1)
            assert status_as(node, credential) == ENDED
            for minutes in (0, 20):  # the policy holds
                next_engine(node, time.time() - minutes * 60)
                assert status_of(node, "/live/echo", protocol, token) == 200
                assert status_as(node, credential) == ENDED
                assert status_of(node, "/live/echo", protocol) == 401
            next_engine(node, time.time() - 60 * 60)
            answers = [status_of(node, "/live/echo", protocol, token) for _ in range(20)]
            assert set(answers) == {503}
            assert status_as(node, credential) == ENDED
            assert status_of(node, "/live/echo", protocol) in (401, 503)
        wait_until("control is back", lambda: status_of(node, "/live/echo", protocol, token) == 200)
    wait_until("so are SVIDs", lambda: status_as(node, fetched(node, tmp_path)) == 200)
