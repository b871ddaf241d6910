"""`vedette sidecar` against a node of real processes, with a simulated engine that serves what it is handed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from tests.cli.conftest import COMMAND, Shell, started_node
from tests.observability.test_mesh import record, shown

from vedette.cli.sidecar_report import mend
from vedette.cli.sidecars import _require_apart, _Wish, callers_given
from vedette.errors import ConfigError, UnavailableError

CALLER = "spiffe://edge-1.example.org/shop"
ANY = ("--listen", "127.0.0.1:0", "--outbound", "127.0.0.1:0")
MANIFEST = f"""\
apiVersion: vedette.dev/v1alpha1
kind: Sidecar
metadata: {{name: ledger}}
spec: {{port: 9100, callers: [{CALLER}], mode: Permissive}}
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A started node that the tests here share."""
    with started_node(tmp_path_factory) as node:
        yield node


@contextmanager
def served(shell: Shell, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A sidecar in the foreground, and what it says when it is served."""
    process = subprocess.Popen(
        [*COMMAND, "sidecar", "--json", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=shell.environment,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield process, json.loads(line)
    finally:
        process.kill()
        process.communicate()


def asked(place: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{place}/", timeout=60) as answer:
        return cast("dict[str, Any]", json.loads(answer.read()))


def listed(shell: Shell) -> dict[str, dict[str, Any]]:
    return {
        one["name"]: one for one in cast("list[dict[str, Any]]", shell.json("sidecar", "--list"))
    }


@pytest.mark.parametrize("ends", [signal.SIGTERM, signal.SIGINT])
def test_a_program_is_served_on_both_sides_until_it_is_told_to_stop(
    mesh: Shell, ends: signal.Signals
) -> None:
    with served(mesh, "--for", "9000", "--as", "billing", "--caller", CALLER, *ANY) as (
        process,
        told,
    ):
        domain = cast("dict[str, Any]", mesh.json("status"))["trustDomain"]
        assert told["spiffeId"] == f"spiffe://{domain}/billing"
        assert (told["host"], told["mode"]) == ("billing.mesh", "Strict")
        assert told["program"] == "127.0.0.1:9000"
        assert told["proxy"] == f"http://{told['outbound']}"
        for side in ("inbound", "outbound"):
            assert asked(told[side]) == {"sidecar": "billing", "side": side}
        process.send_signal(ends)
        assert process.wait(60) == 0
        assert process.stderr is not None
        (note,) = process.stderr.read().splitlines()
        assert "no bundle of edge-1.example.org" in note
    with pytest.raises(OSError, match="refused"):
        asked(told["inbound"])
    assert CALLER in [each["principalId"] for each in listed(mesh)["billing"]["callers"]]


def test_a_person_is_told_who_it_is_and_how_a_program_uses_it(mesh: Shell) -> None:
    process = subprocess.Popen(
        [*COMMAND, "sidecar", "--for", "9000", "--as", "invoices", "--permissive", *ANY],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=mesh.environment,
    )
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(4)]
    process.terminate()
    _, notes = process.communicate(timeout=60)
    assert "invoices is spiffe://" in said[0]
    assert "(permissive)" in said[0]
    assert "by mTLS to 127.0.0.1:9000" in said[1]
    assert "HTTP_PROXY=http://127.0.0.1:" in said[2]
    assert "on this machine alone" in notes


def test_it_is_served_again_when_the_engine_was_killed(mesh: Shell) -> None:
    with served(mesh, "--for", "9000", "--as", "billing", *ANY) as (process, told):
        assert asked(told["outbound"])["side"] == "outbound"
        status = cast("dict[str, Any]", mesh.json("status"))
        os.kill(status["processes"]["engine"]["pid"], signal.SIGKILL)
        # It waits in the socket's queue for the next engine.
        assert asked(told["outbound"])["side"] == "outbound"
        assert asked(told["inbound"])["side"] == "inbound"
        process.terminate()
        _, notes = process.communicate(timeout=60)
        assert process.returncode == 0
    assert "the engine has gone; waiting" in notes
    assert "inbound: served again" in notes


def test_what_changes_is_told_and_callers_stay_unless_others_are_said(mesh: Shell) -> None:
    other = "spiffe://edge-1.example.org/web"

    def made(*arguments: str) -> str:
        with served(mesh, "--as", "mended", *arguments, *ANY) as (process, _):
            process.terminate()
            return process.communicate(timeout=60)[1]

    def who_may() -> list[str]:
        return callers_given(listed(mesh)["mended"])

    assert "changes" not in made("--for", "9000", "--caller", CALLER)
    assert "changes" not in made("--for", "9000")
    assert who_may() == [CALLER]
    assert "changes mended: strict -> permissive\n" in made("--for", "9000", "--permissive")
    assert who_may() == [CALLER], "not said again"
    told = made("--for", "9001", "--caller", other)
    sentence = "permissive -> strict; 127.0.0.1:9000 -> 127.0.0.1:9001"
    assert f"changes mended: {sentence}; caller {CALLER} removed; caller {other} added\n" in told
    assert "note: no bundle of edge-1.example.org: " in told
    assert who_may() == [other]
    assert mesh("sidecar", "--remove", "mended").returncode == 0


def test_one_that_a_manifest_made_is_served_as_it_says_and_not_changed(
    mesh: Shell, tmp_path: Path
) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(MANIFEST)
    done = mesh("apply", "--yes", str(file))
    assert done.returncode == 0, done.stderr
    with served(mesh, "--as", "ledger", *ANY) as (_, told):
        assert (told["mode"], told["program"]) == ("Permissive", "127.0.0.1:9100")
    refused = mesh("sidecar", "--as", "ledger", "--for", "9101", *ANY)
    assert refused.returncode == ConfigError.exit_code
    assert "says otherwise" in refused.stderr
    assert listed(mesh)["ledger"]["file"] == str(file)
    status = mesh("status").stdout
    assert "ledger (permissive)" in status
    removed = mesh("sidecar", "--remove", "ledger")
    assert (removed.returncode, "makes it again" in removed.stderr) == (0, True)
    assert "ledger" not in listed(mesh)


def test_a_program_that_only_calls_is_made_by_saying_so(mesh: Shell) -> None:
    unknown = mesh("sidecar", "--as", "web", *ANY)
    assert unknown.returncode == ConfigError.exit_code
    assert "--listen none one that only calls" in unknown.stderr
    with served(mesh, "--as", "web", "--listen", "none", "--outbound", "127.0.0.1:0") as (_, told):
        assert (told["inbound"], told["program"]) == (None, None)
        assert asked(told["outbound"])["side"] == "outbound"
    with served(mesh, "--as", "web", "--outbound", "127.0.0.1:0") as (_, told):
        assert told["inbound"] is None, "nothing leads to it"
    pointless = mesh("sidecar", "--as", "web", *ANY)
    assert "web only calls: nothing takes web.mesh" in pointless.stderr
    assert mesh("sidecar", "--remove", "web").returncode == 0


def test_what_cannot_be_served_changes_nothing(mesh: Shell) -> None:
    before = listed(mesh)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        done = mesh("sidecar", "--as", "new", "--for", "9000", "--listen", place)
    assert done.returncode == UnavailableError.exit_code
    assert f"another program listens on {place}" in done.stderr
    for arguments, sentence in (
        (("--for", "9000"), "--as NAME"),
        (("--as", "new", "--caller", CALLER), "need --for PORT"),
        (("--as", "new", "--permissive"), "need --for PORT"),
        (("--as", "new", "--for", "9000", "--outbound", "0.0.0.0:0"), "whoever reaches it speaks"),
        (("--as", "new", "--for", "9000", "--listen", "https://a:1"), "without a scheme"),
        (("--as", "new", "--listen", "none", "--outbound", "none"), "nothing is served"),
        (("--as", "new", "--for", "9000", "--caller", "shop", *ANY), "callers"),
        (("--as", "gateway", "--for", "9000", *ANY), "is the node's own"),
        (("--as", "New", "--for", "9000"), "not a valid sidecar name"),
        (("--list", "--report"), "exclude each other"),
        (("--as", "new", "--since", "1h"), "--since is of --report"),
    ):
        done = mesh("sidecar", *arguments)
        assert done.returncode == ConfigError.exit_code, arguments
        assert sentence in done.stderr, arguments
    assert listed(mesh) == before


@pytest.mark.parametrize("is_said", [True, False])
def test_a_socket_that_would_call_itself_is_refused(is_said: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as inbound:
        port = inbound.getsockname()[1]
        wish = _Wish(None, "loop", port if is_said else None, [], False, None, "none")
        known = {"program": f"127.0.0.1:{port}"}
        with pytest.raises(ConfigError, match=f"has the program's own port {port}"):
            _require_apart(wish, None if is_said else known, {"inbound": inbound})
        _require_apart(wish, None, {} if is_said else {"inbound": inbound})


def test_who_is_revoked_is_not_served(mesh: Shell) -> None:
    domain = cast("dict[str, Any]", mesh.json("status"))["trustDomain"]
    identity = f"spiffe://{domain}/fallen"
    assert mesh("revoke", identity).returncode == 0
    done = mesh("sidecar", "--as", "fallen", "--for", "9000", *ANY)
    assert done.returncode == UnavailableError.exit_code
    assert f"vedette revoke --lift {identity}" in done.stderr
    assert listed(mesh)["fallen"]["revoked"]
    assert f"{identity} (revoked)" in mesh("sidecar", "--list").stdout
    assert mesh("sidecar", "--remove", "fallen").returncode == 0
    unknown = mesh("sidecar", "--remove", "fallen")
    assert unknown.returncode == ConfigError.exit_code


def test_a_node_that_does_not_run_says_so(shell: Shell) -> None:
    assert shell("sidecar", "--as", "a", "--for", "9000").returncode == UnavailableError.exit_code


RECORDS = (
    record(1, wouldBreak="plain_http")
    + record(2, wouldBreak="policy_denied", **shown(CALLER))
    + record(3)
    + record(4, listener="quiet.inbound")
)


def test_the_report_says_who_would_break_and_what_mends_it(mesh: Shell) -> None:
    assert mesh("sidecar", "--report", "--as", "reported").returncode == ConfigError.exit_code
    with served(mesh, "--for", "9000", "--as", "uncalled", *ANY):
        pass
    with served(mesh, "--as", "calling", "--listen", "none", "--outbound", "127.0.0.1:0"):
        pass
    segment = mesh.home.spool_requests / "test.jsonl"
    segment.parent.mkdir(parents=True, exist_ok=True)
    segment.write_bytes(RECORDS)
    done = mesh("sidecar", "--report", "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert (told["wouldBreak"], told["recordsSince"][:19]) == (2, "2026-01-01T00:00:01")
    billing = {one["name"]: one for one in told["sidecars"]}["billing"]
    assert (billing["requests"], billing["fine"], billing["wouldBreak"]) == (3, 1, 2)
    address, spiffe = billing["callers"]
    assert (address["caller"], address["cause"], address["requests"]) == (
        "10.0.0.9",
        "plain_http",
        1,
    )
    assert spiffe["mend"].endswith(f"add {CALLER} to callers of the Sidecar billing")
    text = mesh("sidecar", "--report")
    assert text.returncode == 1
    assert f"billing\t{CALLER}\tpolicy_denied\t1\t" in text.stdout
    assert "records go back to 2026-01-01T00:00:01" in text.stderr
    assert "nobody has called uncalled: that nobody would break says nothing" in text.stderr
    assert "nobody has called calling" not in text.stderr
    assert {one["name"]: one["onlyCalls"] for one in told["sidecars"]}["calling"]
    quiet = mesh("sidecar", "--report", "--as", "quiet")
    assert quiet.returncode == 0
    assert "quiet\tnot there now\t1\t1\t0\t0" in quiet.stdout
    later = mesh("sidecar", "--report", "--since", "1m", "--json")
    assert (later.returncode, json.loads(later.stdout)["wouldBreak"]) == (0, 0)
    segment.unlink()


def test_the_report_of_a_node_that_is_down_is_of_its_records(node: Shell) -> None:
    segment = node.home.spool_requests / "test.jsonl"
    segment.parent.mkdir(parents=True, exist_ok=True)
    segment.write_bytes(RECORDS)
    assert node("down").returncode == 0
    done = node("sidecar", "--report", "--as", "billing", "--json")
    assert (done.returncode, json.loads(done.stdout)["wouldBreak"]) == (1, 2)


@pytest.mark.parametrize(
    ("caller", "cause", "sentence"),
    [
        ("10.0.0.9", "plain_http", "give it an SVID, and have it call http://billing.mesh"),
        ("10.0.0.9", "no_certificate", "vedette workload add"),
        ("10.0.0.9", "policy_denied", "write one"),
        (CALLER, "policy_denied", f"add {CALLER} to callers"),
        (CALLER, "another", "another version"),
    ],
)
def test_each_cause_has_its_mend(caller: str, cause: str, sentence: str) -> None:
    assert sentence in mend("billing", caller, cause)
