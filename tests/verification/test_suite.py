"""The whole of `vedette verify`, as a person runs it, on a fresh node; and that nothing is left of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.node import PROGRAM, Node, new_home

from vedette.verification.catalogue import ALL
from vedette.verification.checks import Check, Outcome
from vedette.verification.suite import PATIENCE, merged
from vedette.verification.twin import scratch_folder

NEED_A_NAMESPACE = {18, 26}
"""Checks that do not pass where the machine gives nobody a network namespace."""


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    node = Node(new_home(), ["--name", "edge-verify", "--site", "example.org"])
    try:
        yield node.start()
    finally:
        node.discard()


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Where a command makes its twin: other tests have twins at the same time. Short, because of socket paths."""
    with tempfile.TemporaryDirectory(prefix="vdt-", dir="/tmp") as folder:
        yield Path(folder)


def environment(scratch: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(scratch)}


def left(scratch: Path) -> set[str]:
    """Files in that folder, and processes that name it."""
    found = {path.name for path in scratch.iterdir()}
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().split(b"\0")
        except OSError:
            continue
        found |= {word.decode() for word in words if str(scratch).encode() in word}
    return found


def test_a_fresh_node_passes_all_checks(node: Node, scratch: Path, tmp_path: Path) -> None:
    snapshot = node.status()["snapshot"]
    out, key = tmp_path / "evidence.json", tmp_path / "audit.pub"
    command = [str(PROGRAM), "verify", "--json", "--out", str(out), "--home", str(node.home)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=180, env=environment(scratch), check=False
    )
    report = json.loads(done.stdout)
    verdicts = {one["id"]: one for one in report["checks"]}
    failed = {number: one["evidence"] for number, one in verdicts.items() if not one["passed"]}
    assert set(verdicts) == set(range(1, 27))
    assert all(one["available"] for one in verdicts.values())
    if report["ownNetwork"]:
        assert (failed, report["passed"], done.returncode) == ({}, True, 0)
    else:
        assert (set(failed), report["passed"], done.returncode) == (NEED_A_NAMESPACE, False, 1)
    assert report["durationSeconds"] <= PATIENCE
    assert report["node"] == "edge-verify.example.org"
    assert report["snapshot"] == snapshot["digest"]
    assert {one["name"][:2] for one in report["tenets"]} == {f"T{each}" for each in range(1, 8)}
    assert node.status()["snapshot"] == snapshot, "the node itself must not be changed"
    assert left(scratch) == set()
    node.run("audit", "key", "--out", str(key))
    alone = [str(PROGRAM), "verify", "--check", str(out), "--key", str(key), "--json"]
    told = subprocess.run(alone, capture_output=True, text=True, timeout=60, check=False)
    assert json.loads(told.stdout) == report


def test_exit_code_0_only_when_all_that_was_asked_has_passed(node: Node) -> None:
    assert node.run("verify", "--only", "1,2,4").returncode == 0
    assert node.run("verify", "--only", "99", check=False).returncode == 2
    assert node.run("verify", "--only", "1", "--list", check=False).returncode == 2


def test_a_node_that_speaks_old_tls_fails_the_check_of_it() -> None:
    node = Node(new_home(), ["--tls-min-version", "1.2"])
    try:
        node.start()
        done = node.run("verify", "--only", "1,3,4", "--json", check=False)
        verdicts = {one["id"]: one["passed"] for one in json.loads(done.stdout)["checks"]}
        assert verdicts == {1: True, 3: False, 4: True}
        assert done.returncode == 1
    finally:
        node.discard()


def test_nothing_that_names_the_folder_of_a_twin_outlives_it() -> None:
    script = "import sys, time; print(flush=True); time.sleep(600)"
    with scratch_folder() as folder:
        command = [sys.executable, "-c", script, "--home", str(folder / "node")]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()  # it runs, under arguments that are no role's of a node
    with child:
        assert child.poll() == -signal.SIGTERM
    assert not folder.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_nothing_behind(node: Node, scratch: Path, number: signal.Signals) -> None:
    command = [str(PROGRAM), "verify", "--home", str(node.home)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=environment(scratch)
    ) as process:
        deadline = time.monotonic() + 60
        while not any(one.endswith("/node") for one in left(scratch)):  # its twin runs
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "nothing is left" in said
    assert left(scratch) == set()


def test_a_check_passes_when_all_its_parts_have() -> None:
    both = next(check for check in ALL if check.id == 3)
    good, bad = (Outcome(True, "held"), 0.1), (Outcome(False, "did not"), 0.1)
    assert merged(both, good, good).passed
    for node, twin in ((good, bad), (bad, good), (good, None), (None, good)):
        assert not merged(both, node, twin).passed
    missing = Check(27, "something of later", both.tenets, both.pillars, "Wait for it.")
    result = merged(missing, None, None)
    assert (result.passed, result.available) == (False, False)
