"""What the process of a model sees of its inputs and scores: real runs, over its socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models import onnx_files
from tests.models.workers import Answer, Worker, exchange, served, tensor, worker

LEARNS, WINDOW = 1000, 500
"""Predictions (crates/models/src/seen.rs)."""
TENANT = {"x-vedette-tenant": "a"}
MODEL = served(
    onnx_files.identity(shape=[1, 4]), [tensor("in", [1, 4])], [tensor("out", [1, 4])], name="model"
)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Worker]:
    """A worker that gives what it takes, and has seen nothing."""
    with started(tmp_path) as running:
        assert running.ready.get("ready"), running.ready
        yield running


def started(folder: Path) -> Any:
    return worker(folder, onnx_files.identity(shape=[1, 4]), MODEL)


def ask(running: Worker, count: int, loc: float = 0.0, seed: int = 1, **more: Any) -> Answer:
    """So many predictions of normal numbers around `loc`; the last answer."""
    values = np.random.default_rng(seed).normal(loc, 1, (count, 4)).astype(np.float32)
    connection = running.connect()
    fields = TENANT if more.get("tenant", True) else {}
    for row in values.tolist():
        given = {"name": "in", "datatype": "FP32", "shape": [1, 4], "data": row}
        body = json.dumps({"inputs": [given]}).encode()
        answer = exchange(connection, "POST", f"{running.base}/infer", body, fields)
        assert answer.status == 200, answer.body
    return answer


def drift(running: Worker, method: str = "GET", body: bytes = b"") -> Answer:
    return exchange(running.connect(), method, "/drift", body)


def column(running: Worker, side: str) -> dict[str, Any]:
    columns: list[dict[str, Any]] = drift(running).json["columns"]
    (found,) = [each for each in columns if each["side"] == side]
    return found


def test_inputs_that_change_are_told_and_those_that_do_not_are_steady(watched: Worker) -> None:
    assert ask(watched, LEARNS - 1).headers["x-vedette-drift"] == "learning"
    assert drift(watched).json["state"] == "learning"
    assert ask(watched, 1).headers["x-vedette-drift"] == "steady"
    assert ask(watched, 2 * WINDOW, seed=2).headers["x-vedette-drift"] == "steady"
    calm = column(watched, "input")
    assert (calm["name"], calm["state"]) == ("in", "steady")
    assert calm["psi"] < 0.1
    assert ask(watched, WINDOW, loc=1.0, seed=3).headers["x-vedette-drift"] == "drifted"
    assert drift(watched).json["state"] == "drifted"
    moved = column(watched, "input")
    assert moved["psi"] > 0.25
    assert moved["ks"] > 0.15
    score = column(watched, "score")
    assert (score["name"], score["state"]) == ("out", "drifted"), "it answers what it is given"


def test_what_the_node_asks_by_itself_is_not_seen(watched: Worker) -> None:
    ask(watched, 20, tenant=False)
    assert [each["runs"] for each in drift(watched).json["columns"]] == [0, 0]
    ask(watched, 3)
    assert [each["runs"] for each in drift(watched).json["columns"]] == [3, 3]


def test_the_next_process_goes_on_with_what_the_one_before_had_learnt(tmp_path: Path) -> None:
    with started(tmp_path) as first:
        ask(first, LEARNS + WINDOW)
        told = drift(first).body
    with started(tmp_path) as second:
        assert drift(second).json["state"] == "learning"
        answer = drift(second, "POST", told)
        assert (answer.status, answer.body) == (200, told)
        assert ask(second, WINDOW, loc=1.0, seed=3).headers["x-vedette-drift"] == "drifted"


def test_nonsense_is_refused_and_changes_nothing(watched: Worker) -> None:
    for body in (b"", b"{}", b"[" * 100_000, b'{"columns":[' + b" " * 70_000 + b"]}"):
        assert drift(watched, "POST", body).status == 400
    assert drift(watched, "DELETE").status == 405
    assert drift(watched).json["state"] == "learning"


def test_callers_have_no_way_to_it(watched: Worker) -> None:
    for path in ("/drift", "/versions/3/drift"):
        assert watched.ask("GET", path).status == 404
