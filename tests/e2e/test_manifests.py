"""Manifests against the real engine: planned, applied, served, refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.caller import Caller
from tests.e2e.conftest import StartNode
from tests.e2e.node import GREETING, Node
from tests.guests import Guests

EDGE = """\
apiVersion: vedette.dev/v1alpha1
kind: Node
metadata: {name: edge}
spec: {limits: {uriSize: 1KB}}
---
apiVersion: vedette.dev/v1alpha1
kind: Function
metadata: {name: hello}
spec: {component: hello.wasm}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: greet}
spec:
  rules:
    - matches: [{path: {value: /greet}}]
      backendRefs: [{kind: Function, group: vedette.dev, name: hello}]
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: health}
spec:
  public: true
  rules:
    - matches: [{path: {type: Exact, value: /health}}]
      static: {body: ok}
    - matches: [{path: {value: /open}}]
      backendRefs: [{kind: Function, name: hello}]
---
apiVersion: vedette.dev/v1alpha1
kind: Policy
metadata: {name: team}
spec:
  cedar: |
    forbid (principal, action == Action::"invoke", resource == Function::"hello")
    when { context.method == "DELETE" };
"""


@pytest.fixture(scope="module")
def own(start_node: StartNode) -> Iterator[Node]:
    """A node that manifests rule."""
    node = start_node()
    yield node
    node.stop()


@pytest.fixture(scope="module")
def edge(guests: Guests, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the manifests and the component."""
    folder = tmp_path_factory.mktemp("edge")
    shutil.copy(guests.hello, folder / "hello.wasm")
    (folder / "edge.yaml").write_text(EDGE, "utf-8")
    return folder


def test_what_the_manifests_say_is_served(own: Node, edge: Path, protocol: str) -> None:
    own.run("apply", str(edge), "--yes")
    caller = Caller(own, protocol)
    assert caller.ask("/greet").body == GREETING
    assert caller.ask("/hello").body == GREETING
    assert caller.ask("/health", anonymous=True).body == b"ok"
    assert caller.ask("/open/x", anonymous=True).body == GREETING
    assert caller.ask("/greet", anonymous=True).status == 401, (
        "public is the route, not its function"
    )
    assert caller.ask("/greet", method="DELETE").status == 403
    assert caller.ask("/" + "x" * 2_000).status == 414
    caller.close()
    assert own.run("plan", str(edge)).stdout.startswith("No changes.")


def test_what_the_engine_would_refuse_changes_nothing(own: Node, edge: Path) -> None:
    own.run("apply", str(edge), "--yes")
    before = own.status()["snapshot"]["digest"]
    wrong = edge.parent / "wrong.yaml"
    wrong.write_text(EDGE.replace("context.method", "context.methud"), "utf-8")
    shutil.copy(edge / "hello.wasm", wrong.parent / "hello.wasm")
    done = own.run("apply", str(wrong), "--yes", check=False)
    assert (done.returncode, f"where: {wrong}:36" in done.stderr) == (2, True), done.stderr
    assert own.status()["snapshot"]["digest"] == before


def test_a_saved_plan_survives_the_component_and_rollback_goes_back(
    own: Node, edge: Path, tmp_path: Path
) -> None:
    own.run("apply", str(edge), "--yes")
    first = own.status()["snapshot"]["digest"]
    (edge / "edge.yaml").write_text(EDGE.split("---\n")[0], "utf-8")
    plan = tmp_path / "edge.plan"
    planned = own.run("plan", str(edge), "--prune", "--out", str(plan), check=False)
    assert planned.returncode == 2
    assert "Plan: 0 to add, 0 to change, 7 to destroy." in planned.stdout
    own.run("apply", str(plan), "--yes")
    assert json.loads(own.run("list", "--json").stdout) == []
    own.run("rollback")
    assert own.status()["snapshot"]["digest"] == first
    (edge / "edge.yaml").write_text(EDGE, "utf-8")
