"""The rules of the node for models that really answer: policy by version and method, rate, and requests at once."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node, wait_until
from tests.e2e.test_hostile_models import NEVER_ENDING, Crowd, one
from tests.e2e.test_predict import ONE, rows, scaled
from tests.models import onnx_files

SLOW = """\
apiVersion: vedette.dev/v1alpha1
kind: Model
metadata: {name: slow}
spec: {file: slow.onnx, limits: {run: 30m}}
"""
LIMITS = """\
apiVersion: vedette.dev/v1alpha1
kind: Limit
metadata: {name: few}
spec: {per: [Principal], routes: [model-limited], rate: 2/h}
---
apiVersion: vedette.dev/v1alpha1
kind: Limit
metadata: {name: one-at-once}
spec: {per: [Principal], routes: [model-slow], concurrency: 1}
"""


@pytest.fixture(scope="module")
def node(start_node: StartNode, tmp_path_factory: pytest.TempPathFactory) -> Node:
    """A node with a model of two versions, one that is asked seldom, and one that takes long."""
    node = start_node()
    folder = tmp_path_factory.mktemp("models")
    for name, factor in (("judged", 2.0), ("judged", 3.0), ("limited", 2.0)):
        node.run("model", "add", str(scaled(folder / "m.onnx", factor)), "--name", name)
    (folder / "slow.onnx").write_bytes(onnx_files.slow())
    (folder / "slow.yaml").write_text(SLOW, "utf-8")
    node.run("apply", "--yes", "-f", str(folder / "slow.yaml"))
    return node


@contextmanager
def caller(node: Node, subject: str) -> Iterator[httpx.Client]:
    """Somebody with a token."""
    headers = {"authorization": f"Bearer {node.token(subject)}"}
    context = ssl.create_default_context(cafile=str(node.ca_file))
    place = f"{node.url}/v2/models/"
    with httpx.Client(verify=context, timeout=120, headers=headers, base_url=place) as client:
        yield client


def test_policy_sees_the_version_that_answers_and_what_is_asked_of_it(node: Node) -> None:
    node.set_policy(
        "judged.cedar",
        '@id("not-yet")\nforbid (principal, action == Action::"predict", resource == Model::"judged")\n'
        'when { context.version == 2 && context.method == "POST" };\n',
    )
    with caller(node, "alice") as alice:
        assert alice.get("judged").json()["versions"] == ["2"]
        refused = alice.post("judged/infer", json=rows(ONE))
        assert refused.status_code == 403
        line = node.record(refused.headers["x-request-id"])
        assert (line["model"], line["modelVersion"], line["policies"]) == ("judged", 2, ["not-yet"])
        assert alice.post("limited", json=rows(ONE)).status_code == 405, "of another model"
        node.run("model", "rollback", "judged")
        answer = alice.post("judged/infer", json=rows(ONE))
        assert (answer.status_code, answer.json()["model_version"]) == (200, "1")
        node.run("model", "promote", "judged", "--version", "2")
        assert alice.post("judged/infer", json=rows(ONE)).status_code == 403


def test_a_rate_is_for_each_caller_of_a_model_and_requests_at_once_are_counted(
    node: Node, tmp_path: Path
) -> None:
    (tmp_path / "limits.yaml").write_text(LIMITS, "utf-8")
    node.run("apply", "--yes", "-f", str(tmp_path / "limits.yaml"))
    with caller(node, "bob") as bob, caller(node, "carol") as carol:
        told = [bob.post("limited/infer", json=rows(ONE)) for _ in range(3)]
        assert [each.status_code for each in told] == [200, 200, 429]
        assert int(told[-1].headers["retry-after"]) >= 1
        line = node.record(told[-1].headers["x-request-id"])
        assert (line["cause"], line["detail"], line.get("runMicros")) == (
            "rate_limited",
            "the limit few",
            None,
        )
        assert carol.post("limited/infer", json=rows(ONE)).status_code == 200

    with caller(node, "tester") as again, Crowd(node, "slow") as first:
        first.ask(1, json.dumps(one("times", NEVER_ENDING)).encode())
        refused = wait_until("one is under way", lambda: refusal(again.get("slow")))
        line = node.record(refused.headers["x-request-id"])
        assert (refused.status_code, line["detail"]) == (503, "the limit one-at-once")
        first.close()
        wait_until("it has left", lambda: refusal(again.get("slow")) is None)


def refusal(answer: httpx.Response) -> httpx.Response | None:
    """The answer, when it is one."""
    return None if answer.status_code == 200 else answer
