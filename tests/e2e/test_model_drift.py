"""Drift on a real node: what comes changes, and records, status, metrics and the gate of a promotion say so."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node, wait_until
from tests.e2e.test_model_versions import add, times
from tests.e2e.wire import HTTP_1, tls_context

LEARNS, WINDOW = 1000, 500
"""Requests (crates/models/src/seen.rs)."""


@pytest.fixture(scope="module")
def models(start_node: StartNode) -> Node:
    """A node of the module's own."""
    return start_node()


def ask(node: Node, count: int, loc: float, seed: int) -> httpx.Response:
    """So many predictions of numbers around `loc`, through every stage; the last answer."""
    held = {"authorization": f"Bearer {node.usual_token}"}
    rows = np.random.default_rng(seed).normal(loc, 1, (count, 3)).round(3).tolist()
    with httpx.Client(verify=tls_context(node.ca_file, HTTP_1), headers=held) as client:
        for row in rows:
            given = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": row}
            answer = client.post(f"{node.url}/v2/models/m/infer", json={"inputs": [given]})
            assert answer.status_code == 200, answer.text
    return answer


def drift(node: Node) -> dict[str, Any]:
    shown = json.loads(node.run("model", "show", "m", "--json").stdout)
    found: dict[str, Any] = shown["drift"] or {}
    return found


def wait_for(node: Node, what: str, is_so: Callable[[dict[str, Any]], bool]) -> None:
    wait_until(what, lambda: is_so(drift(node)), every=0.2)


def test_what_comes_changes_and_everybody_who_asks_is_told(models: Node, tmp_path: Path) -> None:
    add(models, tmp_path, times(2), "m")
    add(models, tmp_path, times(3), "m", "--no-promote")
    gated = ("model", "promote", "m", "--version", "2", "--max-drift", "0.25")
    refused = models.run(*gated, check=False)
    assert refused.returncode == 2, refused.stderr
    assert "0 of 1,000 requests" in refused.stderr

    ask(models, LEARNS, 0.0, 1)
    calm = ask(models, WINDOW, 0.0, 2)
    assert "x-vedette-drift" not in calm.headers, "callers are not told"
    assert recorded(models, calm) == "steady"
    wait_for(models, "control has asked", lambda it: it.get("psi") is not None)
    assert drift(models)["state"] == "steady"
    assert "drift" not in [line.split()[0] for line in status_lines(models)]

    # Its process crashes: the next one knows what it knew.
    crash(models)
    wait_until(
        "it was told", lambda: recorded(models, ask(models, 1, 0.0, 4)) == "steady", every=0.2
    )
    moved = ask(models, WINDOW, 2.0, 3)
    assert recorded(models, moved) == "drifted"

    wait_for(models, "control has asked again", lambda it: it.get("state") == "drifted")
    (served,) = models.status()["models"]
    assert served["drift"]["psi"] > 0.25
    assert served["drift"]["columns"][0]["name"] == "x"
    (told,) = [line for line in status_lines(models) if line.split()[0] == "drift"]
    assert "m 1: input x (PSI " in told
    metrics = httpx.get(models.status()["metrics"]["url"], trust_env=False).text
    assert 'vedette_model_drift_psi{model="m",side="input",tensor="x",version="1"}' in metrics
    assert "input x: PSI" in models.run("model", "show", "m").stdout

    refused = models.run(*gated, check=False)
    assert refused.returncode == 2, refused.stderr
    assert re.search("m 1: the (input 'x'|score 'y') is no longer as it was", refused.stderr)
    assert "without --max-drift" in refused.stderr
    assert served_version(models) == 1
    models.run(*gated[:-2])
    assert served_version(models) == 2
    assert models.run("model", "promote", "m", "--version", "1").returncode == 0
    assert drift(models)["state"] == "drifted", "a version goes on with what it has learnt"


def served_version(node: Node) -> int:
    (served,) = node.status()["models"]
    version: int = served["version"]
    return version


def status_lines(node: Node) -> list[str]:
    return [line for line in node.run("status").stdout.splitlines() if line.strip()]


def recorded(node: Node, answer: httpx.Response) -> str:
    state: str = node.record(answer.headers["x-request-id"])["drift"]
    return state


def crash(node: Node) -> None:
    """Kills the model's process, and waits for the next one."""

    def worker() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(node.run("model", "show", "m", "--json").stdout)[
            "worker"
        ]
        return found

    before = worker()["pid"]
    os.kill(before, signal.SIGKILL)
    wait_until(
        "another process serves",
        lambda: (now := worker())["state"] == "ready" and now["pid"] != before,
        every=0.2,
    )
