"""Two nodes: what the model of one cannot answer the other does, each proving who it is."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node, wait_until
from tests.e2e.test_predict import ONE, rows, scaled
from tests.e2e.test_sidecars import follow_each_other, sidecar

GATEWAY = "spiffe://tier-edge.example.org/gateway"
MODELS = "spiffe://tier-regional.example.org/models"
MESHED = f"""\
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: models-of-the-mesh}}
spec:
  hostnames: [models.mesh]
  callers: ["{GATEWAY}"]
  rules:
    - matches: [{{path: {{value: /v2/models/twice}}}}]
      backendRefs: [{{kind: Model, group: vedette.dev, name: twice}}]
---
apiVersion: vedette.dev/v1alpha1
kind: Policy
metadata: {{name: edge-may-ask}}
spec:
  cedar: |
    permit (principal == Workload::"{GATEWAY}", action == Action::"predict", resource == Model::"twice");
"""
TIERS = """\
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: classify}}
spec:
  rules:
    - matches: [{{path: {{value: /classify}}}}]
      backendRefs: [{{kind: Model, group: vedette.dev, name: twice}}]
      tiers:
        - {{name: regional, url: "https://127.0.0.1:{port}", send: {{inputs: [x]}}, timeout: 2m}}
---
apiVersion: vedette.dev/v1alpha1
kind: EgressPolicy
metadata: {{name: tiers}}
spec:
  routes: [classify]
  allow: [{{to: "https://127.0.0.1:{port}", methods: [POST], peers: [{peer}]}}]
"""


@pytest.fixture(scope="module")
def nodes(
    start_node: StartNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Node, Node, str]]:
    """The edge, the other node, and the port of its sidecar before its models."""
    edge = start_node("--name", "tier-edge", "--site", "example.org")
    regional = start_node("--name", "tier-regional", "--site", "example.org")
    follow_each_other(edge, regional)
    folder = tmp_path_factory.mktemp("models")
    edge.run("model", "add", str(scaled(folder / "twice.onnx", 2.0)), "--name", "twice")
    larger = str(scaled(folder / "nine.onnx", 9.0))
    regional.run("model", "add", larger, "--name", "twice", "--version", "9")
    regional.apply(MESHED)
    with sidecar(regional, "models", "--for", "9", "--caller", GATEWAY) as models:
        yield edge, regional, models.told["inbound"].rpartition(":")[2]


def infer(node: Node, version: int) -> httpx.Response:
    headers = {"authorization": f"Bearer {node.usual_token}"}
    context = ssl.create_default_context(cafile=str(node.ca_file))
    with httpx.Client(verify=context, timeout=180, trust_env=False) as client:
        url = f"{node.url}/classify/versions/{version}/infer"
        return client.post(url, json=rows(ONE), headers=headers)


def test_a_version_that_is_not_here_is_asked_for_over_mtls(nodes: tuple[Node, Node, str]) -> None:
    edge, regional, port = nodes
    edge.apply(TIERS.format(port=port, peer=MODELS))
    here = infer(edge, 1)
    assert (here.status_code, here.headers["x-vedette-tier"]) == (200, "edge")

    def answered() -> httpx.Response | None:
        answer = infer(edge, 9)
        return answer if answer.status_code == 200 else None

    there = wait_until("the edge has its SVID", answered)
    assert there.headers["x-vedette-tier"] == "regional"
    outputs = {each["name"]: each["data"] for each in there.json()["outputs"]}
    assert outputs["y"] == [9 * each for each in ONE]
    assert there.json()["model_version"] == "9"
    wanted = [{"tier": "edge", "cause": "missing"}, {"tier": "regional"}]
    assert edge.record(there.headers["x-request-id"])["tiers"] == wanted
    came = lambda line: line.get("principal") == GATEWAY  # noqa: E731
    line = regional.requests.wait_for(came)[-1]
    assert (line["method"], line["path"]) == ("POST", "/v2/models/twice/versions/9/infer")


def test_a_tier_that_proves_another_is_told_nothing(nodes: tuple[Node, Node, str]) -> None:
    edge, _, port = nodes
    edge.apply(TIERS.format(port=port, peer=f"{MODELS}-other"))
    answer = infer(edge, 9)
    assert answer.status_code == 404
    tried = edge.record(answer.headers["x-request-id"])["tiers"]
    assert tried == [
        {"tier": "edge", "cause": "missing"},
        {"tier": "regional", "cause": "tls_failed"},
    ]


def test_a_tier_without_a_rule_is_refused_at_plan(
    nodes: tuple[Node, Node, str], tmp_path: Path
) -> None:
    edge, _, _ = nodes
    file = tmp_path / "tiers.yaml"
    text = TIERS.format(port=1, peer=MODELS).partition("---")[0]
    file.write_text(text.replace("name: classify", "name: other").replace("/classify", "/o"))
    done = edge.run("plan", "-f", str(file), check=False)
    assert done.returncode != 0
    told = json.dumps(done.stdout + done.stderr)
    assert "routes: [other]" in told
    assert "https://127.0.0.1:1" in told


REMOTE = """\
apiVersion: vedette.dev/v1alpha1
kind: Model
metadata: {{name: far}}
spec:
  inputs: [{{name: x, datatype: FP32, shape: [-1, 8]}}]
  outputs: [{{name: y, datatype: FP32, shape: [-1, 8]}}, {{name: best, datatype: INT64, shape: [-1]}}]
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: far}}
spec:
  rules:
    - matches: [{{path: {{value: /v2/models/far}}}}]
      backendRefs: [{{kind: Model, group: vedette.dev, name: far}}]
      tiers:
        - {{name: regional, url: "https://127.0.0.1:{port}", model: twice, send: {{inputs: [x]}}, timeout: 2m}}
---
apiVersion: vedette.dev/v1alpha1
kind: EgressPolicy
metadata: {{name: far}}
spec:
  routes: [far]
  allow: [{{to: "https://127.0.0.1:{port}", methods: [POST], peers: [{peer}]}}]
"""


def test_a_model_that_only_another_node_has_is_asked_as_any_other(
    nodes: tuple[Node, Node, str],
) -> None:
    edge, _, port = nodes
    edge.apply(REMOTE.format(port=port, peer=MODELS))

    def asked() -> str | None:
        done = edge.run("predict", "far", json.dumps([ONE]), "--json", check=False)
        return done.stdout if done.returncode == 0 else None

    told = json.loads(wait_until("the edge has its SVID", asked))
    outputs = {each["name"]: each["data"] for each in told["outputs"]}
    assert outputs["y"] == [9 * each for each in ONE]
    assert told["model_name"] == "far"

    [listed] = [
        each
        for each in json.loads(edge.run("model", "list", "--json").stdout)
        if each["name"] == "far"
    ]
    assert (listed["remote"], listed["version"], listed["format"]) == (True, None, None)
    assert [each["url"] for each in listed["tiers"]] == [f"https://127.0.0.1:{port}"]
    assert "by tiers" in edge.run("model", "list").stdout
    shown = edge.run("model", "show", "far").stdout
    assert "what tiers answer: it has no file here" in shown
    assert f"regional: twice at https://127.0.0.1:{port} (route far)" in shown
    assert "far (by tiers)" in edge.run("status").stdout
    assert "far" in edge.run("records", "--tail", "1").stdout

    edge.run("model", "remove", "far")
    assert "far" not in edge.run("model", "list").stdout


def test_a_model_without_a_file_and_without_tiers_is_refused_at_plan(
    nodes: tuple[Node, Node, str], tmp_path: Path
) -> None:
    edge, _, port = nodes
    file = tmp_path / "remote.yaml"
    whole = REMOTE.format(port=port, peer=MODELS).replace("name: far", "name: lone")
    for text, sentence in (
        (whole.partition("---")[0], "no Route leads to it"),
        (whole.replace("timeout: 2m", "on: [overload]"), "has `missing` in `on`"),
    ):
        file.write_text(text)
        done = edge.run("plan", "-f", str(file), check=False)
        assert done.returncode != 0
        assert sentence in " ".join(done.stderr.split())
