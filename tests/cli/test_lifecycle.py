"""A whole life on the command line, with real processes and a simulated engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.cli.conftest import COMMAND, UP, Shell
from tests.simulators.native import COMPONENT

from vedette import processes
from vedette.control.messages import NodeStatus
from vedette.control.supervisor import sockets


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
    assert not any(processes.find(shell.home.root, role) for role in processes.ROLES)
    again = shell("down")
    assert (again.returncode, "mend: There is nothing to stop." in again.stderr) == (4, True)


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
    assert not any(processes.find(shell.home.root, role) for role in processes.ROLES)


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


def test_a_second_up_in_the_same_home_is_refused(untouched: Shell) -> None:
    done = untouched(*UP, "--detach")
    assert done.returncode == 4
    assert "already running" in done.stderr
    assert untouched("status").returncode == 0


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


def test_a_deploy_without_the_flags_of_before_says_what_it_changes(
    node: Shell, component: Path
) -> None:
    flags = ("--env", "A=s3cret", "--memory", "64MB", "--public")
    first = node("deploy", str(component), *flags)
    assert first.stderr.count("\n  ") == 0, first.stderr
    again = node("deploy", str(component))
    assert again.stderr.splitlines()[-3:] == [
        "  public: yes → no",
        "  env.A: (set) → -",
        "  memory: 64MB → 128MB",
    ]
    assert "s3cret" not in again.stderr
    told = node.json("deploy", str(component), "--timeout", "5s")
    assert isinstance(told, dict)
    assert told["changes"] == [{"path": "limits.wallMillis", "old": 30_000, "new": 5_000}]


@pytest.mark.parametrize(
    ("arguments", "said", "mend"),
    [
        (("--env", "FOO"), "--env FOO has no value", "Write --env FOO=VALUE."),
        (("--env", "=x"), "--env =x has no value", "Write --env KEY=VALUE."),
        (("--memory", "8GB"), "--memory 8GB is not taken", "between 64KB and 4GB."),
        (("--memory", "lots"), "--memory lots: 'lots' is not a size", "such as 512KB"),
        (("--timeout", "2h"), "--timeout 2h is not taken", "between 1ms and 1h."),
        (("--cpu", "11m"), "--cpu 11m is not taken", "between 1ms and 10m."),
        (("--concurrency", "100001"), "--concurrency 100001 is not taken", "between 1 and 100000."),
    ],
)
def test_a_wrong_flag_is_told_in_the_words_of_the_flag(
    untouched: Shell, component: Path, arguments: tuple[str, ...], said: str, mend: str
) -> None:
    done = untouched("deploy", str(component), *arguments)
    error, hint = done.stderr.splitlines()
    assert (done.returncode, error) == (2, f"error: {said}")
    assert hint.startswith("mend: ")
    assert hint.endswith(mend) or mend in hint


def test_token_prints_the_token_and_nothing_else(untouched: Shell) -> None:
    done = untouched("token", "--subject", "me", "--ttl", "15m", "--scope", "a,b")
    assert done.stderr == ""
    assert len(done.stdout.split()) == 1
    assert done.stdout.count(".") == 2
    header = untouched("token", "--subject", "me", "--header").stdout
    assert header.startswith("authorization: Bearer ey")
    assert untouched("token", "--subject", "me", "--ttl", "40d").returncode == 2


def test_ca_writes_the_certificate(untouched: Shell, tmp_path: Path) -> None:
    out = tmp_path / "ca.pem"
    assert untouched("ca", "--out", str(out)).returncode == 0
    assert out.read_text() == untouched("ca").stdout
    assert out.read_text().startswith("-----BEGIN CERTIFICATE-----")
    nowhere = tmp_path / "nowhere" / "ca.pem"
    refused = untouched("ca", "--out", str(nowhere))
    assert refused.returncode == 2
    assert f"error: cannot write {nowhere}: No such file or directory" in refused.stderr
    assert "mend: Give a file in a folder that is there" in refused.stderr


def test_policies_are_checked_set_shown_and_removed(node: Shell, tmp_path: Path) -> None:
    good, bad = tmp_path / "team.cedar", tmp_path / "bad.cedar"
    good.write_text("// nothing yet\n")
    bad.write_text("// line one\nmistake\n")
    refused = node("policy", "check", str(bad))
    assert refused.returncode == 2
    assert f"where: {bad}:2" in refused.stderr
    missing = node("policy", "set", "foo")
    assert missing.returncode == 2
    assert missing.stderr.splitlines() == [
        "error: there is no file foo",
        "mend: Write: vedette policy set NAME FILE, or only the FILE.",
    ]
    unreadable = node("policy", "set", "team.cedar", str(tmp_path))
    assert unreadable.returncode == 2
    assert f"error: cannot read {tmp_path}: Is a directory" in unreadable.stderr
    misnamed = node("policy", "set", "team", str(good))
    assert (misnamed.returncode, "mend: Call it team.cedar." in misnamed.stderr) == (2, True)
    assert node("policy", "set", str(good)).returncode == 0
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
    nothing = node("records", "--failed")
    assert (nothing.stdout, nothing.stderr) == ("", "no such records\n")
    refused = {**record, "requestId": "r1", "stage": "route", "cause": "no_route", "detail": "why"}
    with (node.home.spool_requests / "1.jsonl").open("a") as spool:
        spool.write(json.dumps(refused) + "\n")
    assert json.loads(node("records", "--failed", "--json").stdout) == refused
    assert json.loads(node("records", "--id", "r1", "--json").stdout) == refused
    assert node("records", "--failed").stdout.strip().endswith("route no_route: why  r1")
    assert node("logs", "none").returncode == 2
    _expect_no_record(node)
    assert node("down").returncode == 0
    assert json.loads(node("records", "--id", "r1", "--json").stdout) == refused
    _expect_no_record(node)


def _expect_no_record(node: Shell) -> None:
    unknown = node("records", "--id", "r2")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr.startswith("error: no such record of the request 'r2'\nmend: Give the ")


def test_a_home_without_a_node_has_no_records_and_says_so(shell: Shell) -> None:
    done = shell("records")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith(f"error: there is no node at {shell.home.root}\nmend: Name the ")


def test_status_works_while_control_is_down(untouched: Shell) -> None:
    [control] = processes.find(untouched.home.root, "control")
    os.kill(control.pid, signal.SIGSTOP)
    try:
        status = NodeStatus.model_validate(untouched.json("status"))
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


def test_a_policy_that_names_what_is_not_there_is_warned_of(node: Shell, tmp_path: Path) -> None:
    file = tmp_path / "team.cedar"
    file.write_text('permit (principal, action, resource == Function::"helo");\n')
    warning = (
        'warning: team.cedar:1: team.cedar/policy0 names Function::"helo", which does not exist'
    )
    assert warning in node("policy", "check", str(file)).stderr
    assert warning in node("policy", "set", str(file)).stderr
    assert [one["name"] for one in node.json("policy", "list")][1] == "team.cedar"  # type: ignore[attr-defined]


def test_up_uses_what_it_was_told_last_time_and_says_so(shell: Shell) -> None:
    first = shell(*UP, "--detach", "--bare", "--tls-min-version", "1.2")
    assert "Starting the node\n" in first.stderr
    shell("down")
    second = shell("up", "--detach", "--bare", "--workers", "2")
    assert second.returncode == 0, second.stderr
    told = "--listen http://127.0.0.1:0 --metrics 127.0.0.1:0 --tls-min-version 1.2"
    assert f"Starting the node, as last time with {told}\n" in second.stderr
    status = shell.json("status")
    assert isinstance(status, dict)
    assert [one["url"][:17] for one in status["listeners"]] == ["http://127.0.0.1:"]


def test_ctrl_c_before_the_node_was_told_says_that_nothing_was_deployed(
    untouched: Shell, component: Path
) -> None:
    [control] = processes.find(untouched.home.root, "control")
    command = [*COMMAND, "deploy", str(component)]
    os.kill(control.pid, signal.SIGSTOP)  # the upload is never answered: nothing was deployed
    try:
        assert _interrupted(command, untouched) == (130, "Stopped; nothing was deployed")
    finally:
        os.kill(control.pid, signal.SIGCONT)


def _interrupted(command: list[str], node: Shell) -> tuple[int, str]:
    """Exit code and last words of a command that gets Ctrl-C while it waits for control."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=node.environment
    ) as running:
        _wait_for_socket(running.pid)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
        return running.returncode, said.splitlines()[-1]


def _wait_for_socket(pid: int) -> None:
    """Returns when the process has a socket open: it has asked control something."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            names = [os.readlink(one) for one in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            names = []
        if any(name.startswith("socket:") for name in names):
            return
        time.sleep(0.02)
    raise AssertionError("it never asked control")
