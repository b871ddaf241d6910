"""Without control the last policy holds for its time, then only fixed answers are served, until control is back."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.e2e.caller import client_of
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node, wait_until
from tests.e2e.streaming import MANIFEST, end_of, streaming
from tests.e2e.wire import HTTP_1, HTTP_2, tls_context
from tests.simulators.service import Service

MORE = """\
---
apiVersion: vedette.dev/v1alpha1
kind: Node
metadata: {name: node}
spec: {policyHolds: 4s}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: health}
spec:
  public: true
  rules: [{matches: [{path: {value: /health}}], static: {body: fine}}]
"""


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    service = Service("service")
    yield service
    service.close()


@pytest.fixture(scope="module")
def node(start_node: StartNode, service: Service) -> Node:
    node = start_node()
    node.apply(MANIFEST.format(port=service.port) + MORE)
    return node


@contextmanager
def control_stopped(node: Node) -> Iterator[None]:
    control = node.pid("control")
    os.kill(control, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(control, signal.SIGCONT)


def status_of(node: Node, path: str, protocol: str = HTTP_1, token: str | None = None) -> int:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    with client_of(node, protocol, tls_context(node.ca_file, protocol)) as client:
        return client.get(path, headers=headers).status_code


@pytest.mark.parametrize("protocol", [HTTP_1, HTTP_2])
def test_the_last_policy_holds_for_its_time_and_no_longer(node: Node, protocol: str) -> None:
    token = node.token("alice")
    with streaming(node, protocol, token) as stream:
        with control_stopped(node):
            assert status_of(node, "/live/echo", protocol, token) == 200
            record = end_of(node, stream)
            assert (record["cause"], record["stage"]) == ("control_away", "authorize")
            assert record["outcome"] == "aborted"
            assert status_of(node, "/live/echo", protocol, token) == 503
            assert status_of(node, "/health", protocol) == 200
            status = json.loads(node.run("status", "--json", check=False).stdout)
            assert status["engine"]["policyHolds"] is False
            assert status_of(node, "/live/echo", protocol, token) == 503, (
                "to ask is not to be control"
            )
        wait_until("control is back", lambda: status_of(node, "/live/echo", protocol, token) == 200)
    assert node.status()["engine"]["policyHolds"] is True
    last = [line for line in node.requests.lines() if line.get("cause") == "control_away"][-1]
    assert (last["status"], last["outcome"]) == (503, "refused")


def test_an_engine_that_starts_again_gets_no_new_time(node: Node) -> None:
    token = node.token("alice")
    engine = node.pid("engine")
    seen = Path(node.path("spool", "control.seen"))
    wait_until("it is kept when control was heard", seen.exists)
    with control_stopped(node):
        wait_until("it has closed", lambda: status_of(node, "/live/echo", token=token) == 503)
        before = seen.read_text()
        wait_until("five more seconds have passed", lambda: _silent_for(before) > 10)
        os.kill(engine, signal.SIGKILL)
        wait_until("another engine serves", lambda: status_of(node, "/health") == 200)
        assert status_of(node, "/live/echo", token=token) == 503
        assert int(seen.read_text()) <= int(before) + 5
    wait_until("control is back", lambda: status_of(node, "/live/echo", token=token) == 200)


def _silent_for(seen: str) -> float:
    return time.time() - int(seen)
