"""A whole life on the command line, with real processes and a simulated engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from tests.cli.conftest import COMMAND, UP, Shell
from tests.simulators.native import COMPONENT

from vedette.control.messages import NodeStatus
from vedette.control.supervisor import processes, sockets


@pytest.fixture
def component(tmp_path: Path) -> Path:
    file = tmp_path / "hello.wasm"
    file.write_bytes(COMPONENT)
    return file


def test_up_detached_returns_when_it_serves_and_down_leaves_nothing(shell: Shell) -> None:
    up = shell(*UP, "--detach", "--bare")
    assert up.returncode == 0, up.stderr
    assert "CA file" in up.stdout
    assert "command.py down" in up.stdout
    NodeStatus.model_validate(shell.json("status"))
    assert shell("down").returncode == 0
    assert [processes.find(shell.home.root, role) for role in processes.ROLES] == [[], [], [], []]
    assert shell("down").returncode == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_foreground_node_stops_cleanly_on_ctrl_c(shell: Shell, number: signal.Signals) -> None:
    with subprocess.Popen(
        [*COMMAND, *UP, "--bare"], stdout=subprocess.PIPE, text=True, env=shell.environment
    ) as up:
        assert up.stdout is not None
        for line in up.stdout:
            if line.startswith("Ctrl-C"):
                break
        up.send_signal(number)
        assert up.wait(60) == 0
    assert [processes.find(shell.home.root, role) for role in processes.ROLES] == [[], [], [], []]


def test_a_foreground_node_ends_when_it_is_killed(shell: Shell) -> None:
    with subprocess.Popen(
        [*COMMAND, *UP, "--bare"], stdout=subprocess.PIPE, text=True, env=shell.environment
    ) as up:
        assert up.stdout is not None
        for line in up.stdout:
            if line.startswith("Ctrl-C"):
                break
        [guardian] = processes.find(shell.home.root, "guardian")
        pidfd = processes.open_pidfd(guardian.pid)
        up.kill()
    assert pidfd is None or processes.has_ended(pidfd, 30.0)
    assert processes.find(shell.home.root, "engine") == []


def test_down_from_elsewhere_ends_a_foreground_node_with_exit_code_0(shell: Shell) -> None:
    with subprocess.Popen(
        [*COMMAND, *UP, "--bare"], stdout=subprocess.PIPE, text=True, env=shell.environment
    ) as up:
        assert up.stdout is not None
        for line in up.stdout:
            if line.startswith("Ctrl-C"):
                break
        assert shell("down").returncode == 0
        assert up.wait(60) == 0


def test_a_port_in_use_is_said_and_nothing_is_started(shell: Shell) -> None:
    [taken] = sockets.bind_listeners([sockets.parse_address("127.0.0.1:0")], workers=1)
    try:
        done = shell("up", "--detach", "--bare", "--listen", taken.address)
    finally:
        taken.sockets[0].close()
    assert done.returncode == 4
    assert f"error: {taken.address} is in use" in done.stderr
    assert "--listen" in done.stderr
    assert processes.find(shell.home.root, "guardian") == []


def test_a_second_up_in_the_same_home_is_refused(node: Shell) -> None:
    done = node(*UP, "--detach")
    assert done.returncode == 4
    assert "already running" in done.stderr
    assert node("status").returncode == 0


def test_deploy_list_history_rollback_remove(node: Shell, component: Path) -> None:
    done = node("deploy", str(component), "--env", "A=1", "--memory", "64MB", "--public")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("/hello")
    assert "Deployed hello in" in done.stderr
    [function] = node.json("list")  # type: ignore[misc]
    assert (function["name"], function["public"]) == ("hello", True)
    assert node("rollback").returncode == 0
    assert node.json("list") == []
    actions = [entry["action"] for entry in node.json("history")]  # type: ignore[attr-defined]
    assert actions == ["rollback", "deploy hello", "bootstrap"]
    assert node("rollback").returncode == 0
    assert node("remove", "hello").returncode == 0
    assert node("remove", "hello").returncode == 2


def test_token_prints_the_token_and_nothing_else(node: Shell) -> None:
    done = node("token", "--subject", "me", "--ttl", "15m", "--scope", "a,b")
    assert done.stderr == ""
    assert len(done.stdout.split()) == 1
    assert done.stdout.count(".") == 2
    header = node("token", "--subject", "me", "--header").stdout
    assert header.startswith("authorization: Bearer ey")
    assert node("token", "--subject", "me", "--ttl", "40d").returncode == 2


def test_ca_writes_the_certificate(node: Shell, tmp_path: Path) -> None:
    out = tmp_path / "ca.pem"
    assert node("ca", "--out", str(out)).returncode == 0
    assert out.read_text() == node("ca").stdout
    assert out.read_text().startswith("-----BEGIN CERTIFICATE-----")


def test_policies_are_checked_set_shown_and_removed(node: Shell, tmp_path: Path) -> None:
    good, bad = tmp_path / "team.cedar", tmp_path / "bad.cedar"
    good.write_text("// nothing yet\n")
    bad.write_text("// line one\nmistake\n")
    refused = node("policy", "check", str(bad))
    assert refused.returncode == 2
    assert f"where: {bad}:2" in refused.stderr
    assert node("policy", "set", "team.cedar", str(good)).returncode == 0
    assert node("policy", "show", "team.cedar").stdout == good.read_text()
    assert node("policy", "remove", "team.cedar").returncode == 0
    assert [one["name"] for one in node.json("policy", "list")] == ["default.cedar"]  # type: ignore[attr-defined]


def test_logs_and_records_are_read_from_the_spool(node: Shell, component: Path) -> None:
    node("deploy", str(component))
    line = {"time": "2026-01-01T00:00:00.000001Z", "function": "hello", "stream": "stdout"}
    (node.home.spool_logs / "1.jsonl").write_text(json.dumps({**line, "message": "hi"}) + "\n\0\0")
    assert node("logs", "hello").stdout.split()[-1] == "hi"
    record = {"time": line["time"], "status": 401, "method": "GET", "host": "h", "path": "/"}
    (node.home.spool_requests / "1.jsonl").write_text(json.dumps(record) + "\n")
    assert json.loads(node("records", "--json").stdout) == record
    assert node("records", "--failed").stdout == ""
    refused = {**record, "requestId": "r1", "stage": "route", "cause": "no_route", "detail": "why"}
    with (node.home.spool_requests / "1.jsonl").open("a") as spool:
        spool.write(json.dumps(refused) + "\n")
    assert json.loads(node("records", "--failed", "--json").stdout) == refused
    assert json.loads(node("records", "--id", "r1", "--json").stdout) == refused
    assert node("records", "--failed").stdout.strip().endswith("route no_route: why  r1")
    assert node("logs", "none").returncode == 2
    assert node("down").returncode == 0
    assert json.loads(node("records", "--id", "r1", "--json").stdout) == refused


def test_status_works_while_control_is_down(node: Shell) -> None:
    [control] = processes.find(node.home.root, "control")
    os.kill(control.pid, signal.SIGSTOP)
    try:
        status = NodeStatus.model_validate(node.json("status"))
    finally:
        os.kill(control.pid, signal.SIGCONT)
    assert status.snapshot is not None
    assert status.engine.digest == status.snapshot.digest


def test_location_and_name_are_kept(shell: Shell) -> None:
    assert (
        shell(*UP, "--detach", "--bare", "--location", "fra-1", "--name", "edge-7").returncode == 0
    )
    shell("down")
    assert shell(*UP, "--detach", "--bare").returncode == 0
    status = shell.json("status")
    assert isinstance(status, dict)
    assert (status["location"], status["trustDomain"]) == ("fra-1", "edge-7.vedette.local")
