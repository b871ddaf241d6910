"""The audit log of a real node: complete whatever dies, and verified elsewhere with the key alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.caller import Caller
from tests.e2e.conftest import StartNode
from tests.e2e.node import PROGRAM, Node, wait_until

ATTACK = "/x?q=%3Cscript%3Ealert(1)%3C/script%3E"


@pytest.fixture
def own(start_node: StartNode) -> Iterator[Node]:
    """A node of the test's own."""
    node = start_node()
    yield node
    node.stop()


def verify(node: Node, *flags: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the verdict of `vedette audit verify`."""
    done = node.run("audit", "verify", *flags, "--json", check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def lines_of(node: Node) -> list[bytes]:
    """Every record that the engine and control wrote."""
    found = []
    for folder in (node.path("spool", "requests"), node.path("control", "admin")):
        for path in folder.glob("*.jsonl"):
            found += path.read_bytes().rstrip(b"\0").splitlines()
    return found


def in_the_log(node: Node) -> int:
    """How many records the newest head is of."""
    told: dict[str, Any] = json.loads(node.run("audit", "head", "--json").stdout)
    return int(told["records"])


def test_requests_events_and_what_people_do_are_in_the_log(
    own: Node, tmp_path: Path, protocol: str
) -> None:
    caller = Caller(own, protocol)
    answers = [caller.ask("/nothing") for _ in range(20)]
    answers += [caller.ask("/nothing", anonymous=True), caller.ask(ATTACK)]
    caller.close()
    own.set_policy("more.cedar", "permit (principal, action, resource) when { false };")
    wait_until("everything is in the log", lambda: in_the_log(own) == len(lines_of(own)))
    head = own.run("audit", "head").stdout
    own.run("audit", "export", "--out", str(tmp_path / "log"))
    own.run("audit", "key", "--out", str(tmp_path / "key"))
    (tmp_path / "heads").write_text(head)
    own.stop()
    exported = (tmp_path / "log").read_bytes()
    for answer in answers:
        assert answer.request_id.encode() in exported
    assert b'"action":"put policy","target":"more.cedar"' in exported
    elsewhere = subprocess.run(
        [str(PROGRAM), "audit", "verify", "log", "--key", "key", "--head", "heads"],
        cwd=tmp_path,
        env={"VEDETTE_HOME": str(tmp_path / "none"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert elsewhere.returncode == 0, elsewhere.stdout + elsewhere.stderr
    (tmp_path / "log").write_bytes(exported.replace(answers[3].request_id.encode(), b"0" * 26))
    altered = subprocess.run(
        [str(PROGRAM), "audit", "verify", str(tmp_path / "log"), "--key", str(tmp_path / "key")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert altered.returncode == 1
    assert "changed" in altered.stdout


def test_an_edited_record_of_a_running_node_is_found(own: Node, protocol: str) -> None:
    caller = Caller(own, protocol)
    answer = caller.ask("/nothing")
    wait_until("everything is in the log", lambda: in_the_log(own) == len(lines_of(own)))
    own.run("down")
    for path in own.path("spool", "requests").glob("*.jsonl"):
        path.write_bytes(path.read_bytes().replace(answer.request_id.encode(), b"0" * 26))
    code, verdict = verify(own)
    caller.close()
    assert code == 1
    assert [finding["kind"] for finding in verdict["findings"]] == ["changed"]


def _is_new(node: Node, pid: int) -> bool:
    return node.pid("control") != pid


def test_control_killed_again_and_again_loses_no_record_and_doubles_none(
    own: Node, protocol: str
) -> None:
    caller = Caller(own, protocol)
    draw = random.Random(5)
    asked = []
    subjects = [f"subject-{turn}" for turn in range(6)]
    for subject in subjects:
        pid = own.pid("control")
        own.run("token", "--subject", subject)
        asked += [caller.ask("/nothing").request_id for _ in range(draw.randrange(5, 60))]
        time.sleep(draw.random())
        os.kill(pid, signal.SIGKILL)
        asked += [caller.ask("/nothing").request_id for _ in range(20)]
        wait_until("control is back", lambda pid=pid: _is_new(own, pid))
    caller.close()
    wait_until("everything is in the log", lambda: in_the_log(own) == len(lines_of(own)))
    code, verdict = verify(own)
    assert (code, verdict["findings"]) == (0, [])
    assert verdict["records"] == len(lines_of(own))
    told = [json.loads(line) for line in lines_of(own)]
    minted = [line["target"] for line in told if line.get("action") == "mint token"]
    assert [minted.count(subject) for subject in subjects] == [1] * 6
    seen = [line.get("requestId") for line in told]
    assert [request for request in asked if seen.count(request) != 1] == []


def _engine(node: Node) -> int | None:
    pid: int | None = node.status()["processes"]["engine"]["pid"]
    return pid


def test_a_killed_engine_and_the_next_one_leave_a_log_that_verifies(
    own: Node, protocol: str
) -> None:
    for _ in range(3):
        caller = Caller(own, protocol)
        for _ in range(30):
            caller.ask("/nothing")
        pid = own.pid("engine")
        os.kill(pid, signal.SIGKILL)
        caller.close()
        wait_until("the engine is back", lambda pid=pid: _engine(own) not in (None, pid))
    wait_until("everything is in the log", lambda: in_the_log(own) == len(lines_of(own)))
    assert verify(own)[0] == 0
