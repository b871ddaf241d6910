"""`vedette model …` on a started node whose engine, inspection and workers are simulated."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

import pytest
from tests.cli.conftest import Shell
from tests.simulators.inspection import onnx_like

from vedette.errors import ConfigError

MANIFEST = """\
apiVersion: vedette.dev/v1alpha1
kind: Model
metadata: {name: declared}
spec: {file: m.onnx, task: text, limits: {run: 2s}}
"""


POLICY = """\
apiVersion: vedette.dev/v1alpha1
kind: Policy
metadata: {name: stays}
spec: {cedar: 'forbid (principal, action, resource == Model::"none");'}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one model."""
    place = tmp_path / "digits"
    place.mkdir()
    (place / "m.onnx").write_bytes(onnx_like(b"one"))
    return place


def shown(node: Shell, name: str = "digits") -> dict[str, Any]:
    return cast("dict[str, Any]", node.json("model", "show", name))


def test_a_model_goes_through_its_whole_life(node: Shell, folder: Path) -> None:
    done = node("model", "add", str(folder), "--name", "digits", "--task", "image-classification")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == shown(node)["url"]
    assert done.stdout.strip().endswith("/v2/models/digits")
    assert "Inputs: x FP32[?,3]" in done.stderr
    assert "Serves digits 1 (generation " in done.stderr
    # More than any other body of the admin API may have.
    (folder / "m.onnx").write_bytes(onnx_like(b"two" + bytes(3 << 20)))
    kept = node("model", "add", str(folder / "m.onnx"), "--name", "digits", "--no-promote")
    assert kept.returncode == 0, kept.stderr
    assert "vedette model promote digits --version 2" in kept.stderr
    assert kept.stdout == ""
    assert node("model", "promote", "digits", "--version", "2").returncode == 0
    back = node("model", "rollback", "digits")
    assert "Serves digits 1" in back.stderr
    table = node("model", "list").stdout.splitlines()
    assert table[0].split("\t")[:4] == ["name", "serves", "versions", "task"]
    assert table[1].split("\t") == [
        *("digits", "1", "2, 1", "image-classification", "onnx", "7 B"),
        *("x FP32[?,3]", "y FP32[?,3]", "ready"),
    ]
    assert "models served\tdigits 1\n" in node("status").stdout
    page = node("model", "show", "digits").stdout
    assert "input\tx FP32[?,3]" in page
    assert "2\tprevious\t-\t-\t3.0 MB" in page
    told = node("records", "--kind", "admin", "--tail", "100", "--json").stdout.splitlines()
    done_by_people = [json.loads(line) for line in told]
    actions = [(each["action"], each.get("target")) for each in done_by_people]
    assert actions[-4:] == [
        ("put model", "digits"),
        ("put model", "digits"),
        ("promote model", "digits 2"),
        ("roll back model", "digits"),
    ]
    refused = node("model", "add", str(folder), "--name", "digits", "--version", "2")
    assert refused.returncode == ConfigError.exit_code
    assert "give 3 or more" in refused.stderr
    assert node("model", "remove", "digits", "--version", "2").returncode == 0
    assert [each["version"] for each in shown(node)["versions"]] == [1]
    assert node("model", "remove", "digits").returncode == 0
    assert node.json("model", "list") == []
    assert "vedette model add --help" in node("model", "list").stderr


def test_more_threads_than_cores_are_noted(node: Shell, folder: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    add = ("model", "add", str(folder), "--name", "digits")
    assert "take turns" not in node(*add, "--sessions", str(cores)).stderr
    (folder / "m.onnx").write_bytes(onnx_like(b"two"))
    noted = node(*add, "--sessions", "1", "--threads", str(cores + 1))
    assert f"note: {cores + 1} threads on {cores} cores take turns" in noted.stderr
    (folder / "m.onnx").write_bytes(onnx_like(b"three"))
    noted = node(*add, "--sessions", str(cores + 1), "--threads", "2")
    assert f"note: {cores + 1} sessions of 2 threads on {cores} cores" in noted.stderr
    assert "take turns" not in node(*add, "--json").stderr


def test_what_is_no_model_is_told_before_anything_is_sent(node: Shell, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"PK\x03\x04" + b"\0" * 40)
    done = node("model", "add", str(tmp_path), "--name", "digits")
    assert done.returncode == ConfigError.exit_code
    assert "torch.onnx.export" in done.stderr
    (tmp_path / "m.onnx").write_bytes(onnx_like(b"outside"))
    done = node("model", "add", str(tmp_path), "--name", "digits")
    assert done.returncode == ConfigError.exit_code
    assert "it has data in ../weights" in done.stderr
    assert node.json("model", "list") == []


LIMITED = """\
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: read}
spec:
  rules:
    - matches: [{path: {value: /read}}]
      backendRefs: [{kind: Model, name: declared}]
---
apiVersion: vedette.dev/v1alpha1
kind: Limit
metadata: {name: slow}
spec: {per: [Principal], routes: [read], rate: 1/s}
"""


def test_a_model_whose_route_has_a_limit_is_removed_as_the_refusal_says(
    node: Shell, folder: Path
) -> None:
    (folder / "model.yaml").write_text(MANIFEST)
    (folder / "way.yaml").write_text(LIMITED)
    (folder / "stays.yaml").write_text(POLICY)
    assert node("apply", str(folder), "--yes").returncode == 0
    refused = node("model", "remove", "declared")
    assert refused.returncode == ConfigError.exit_code
    assert "the limit 'slow' is for the route 'read'" in refused.stderr
    assert f"where: {folder / 'way.yaml'}" in refused.stderr
    assert "with --prune" in refused.stderr
    (folder / "way.yaml").unlink()
    (folder / "model.yaml").unlink()
    applied = node("apply", str(folder), "--prune", "--yes")
    assert applied.returncode == 0, applied.stderr
    assert node("model", "remove", "declared").returncode == 0
    assert node.json("model", "list") == []


def test_a_pipe_is_no_model(node: Shell, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.onnx")
    done = node("model", "add", str(tmp_path / "m.onnx"), "--name", "digits")
    assert done.returncode == ConfigError.exit_code
    assert "is no plain file" in done.stderr


def test_a_manifest_is_applied_from_files_and_from_a_saved_plan(
    node: Shell, folder: Path, tmp_path: Path
) -> None:
    (folder / "edge.yaml").write_text(MANIFEST)
    plan = tmp_path / "edge.plan"
    planned = node("plan", "-f", str(folder), "--out", str(plan))
    assert planned.returncode == 2, planned.stderr
    assert "Model declared will be created" in planned.stdout
    for blob in node.home.blobs.iterdir():
        if blob.read_bytes() == onnx_like(b"one"):
            blob.unlink()  # collected, because the plan was applied only much later
    applied = node("apply", str(plan), "--yes")
    assert applied.returncode == 0, applied.stderr
    status = shown(node, "declared")
    assert (status["version"], status["task"]) == (1, "text")
    assert status["limits"]["runMillis"] == 2_000
    assert status["manifest"].endswith("edge.yaml")
    assert node("plan", "-f", str(folder)).returncode == 0
    (folder / "m.onnx").write_bytes(onnx_like(b"two"))
    applied = node("apply", "-f", str(folder), "--yes")
    assert applied.returncode == 0, applied.stderr
    assert shown(node, "declared")["version"] == 2
    (folder / "m.onnx").write_bytes(b"<html>")
    wrong = node("plan", "-f", str(folder))
    assert wrong.returncode == 1
    assert "edge.yaml:4" in wrong.stderr
    assert "a page of HTML" in wrong.stderr


def test_alarms_are_those_of_a_model_that_takes_streams(
    node: Shell, folder: Path, tmp_path: Path
) -> None:
    for more in ((), ("--follow",), ("--json",)):
        done = node("model", "alarms", "pmup", *more)
        assert done.returncode == ConfigError.exit_code
        assert done.stdout == ""
        assert "the node has no model 'pmup'" in done.stderr
        assert "vedette model list" in done.stderr
    assert node("model", "add", str(folder), "--name", "digits").returncode == 0
    for more in ((), ("--follow",), ("--json",)):
        done = node("model", "alarms", "digits", *more)
        assert done.returncode == ConfigError.exit_code
        assert done.stdout == ""
        assert "the model 'digits' takes no streams" in done.stderr
        assert "a model whose manifest says `stream`" in done.stderr
    assert node("model", "remove", "digits").returncode == 0


def test_alarms_that_were_noted_are_shown_whatever_became_of_their_model(node: Shell) -> None:
    said = {"kind": "alarm", "unixMillis": 1_790_000_000_123, "model": "gone", "version": 3}
    said |= {"stream": "line-3", "n": 17, "score": 0.98, "suppressed": 0}
    log = node.home.models_log
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        file.write(json.dumps(said).encode() + b"\n")
    [noted] = cast("list[dict[str, Any]]", node.json("model", "alarms", "gone"))
    assert (noted["model"], noted["n"]) == ("gone", 17)
