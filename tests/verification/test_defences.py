"""Each check fails when its defence is switched off, and only then: one that cannot fail is a defect.

Where a defence is in the engine, which has no switch for it, what it protects is opened by configuration, or a server
without it stands in its place.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from tests.verification.conftest import replaced, switched_off
from tests.verification.dishonest import Dishonest

from vedette.observability import spool
from vedette.verification import containment, inside, lapses, leases, trust
from vedette.verification.catalogue import ALL
from vedette.verification.checks import Check, Outcome, Trial
from vedette.verification.suite import on_node, on_twin
from vedette.verification.twin import POLICY, Twin, apply, deploy_probe

BY_ID = {check.id: check for check in ALL}
QUICK = (1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 18, 19, 20, 23, 24)
"""Those that wait for nothing and end nothing: all of them are run beside the one that is to fail."""


def outcomes(twin: Twin, check: Check) -> list[Outcome]:
    parts = [on_node(twin.place, check)] if check.on_node else []
    parts += [on_twin(twin, check)] if check.on_twin else []
    return [outcome for outcome, _ in parts]


def failing(twin: Twin) -> dict[int, str]:
    """The quick checks that fail, with what they say."""
    found = {}
    for number in QUICK:
        for outcome in outcomes(twin, BY_ID[number]):
            if not outcome.passed and not outcome.unavailable:
                found[number] = outcome.evidence
    return found


Off = Callable[[Twin], AbstractContextManager[None]]


def spoiled(defence: str) -> Off:
    return lambda twin: switched_off(twin, defence)


def permitting(text: str) -> Off:
    """One policy more than there should be."""

    @contextmanager
    def permitted(twin: Twin) -> Iterator[None]:
        twin.set_policy("too-much.cedar", text.replace("ISSUER", twin.place.issuer))
        try:
            yield
        finally:
            twin.remove_policy("too-much.cedar")

    return permitted


def authority_for(domain: str) -> Off:
    """The mesh's authority is believed about one more trust domain."""

    @contextmanager
    def believed(twin: Twin) -> Iterator[None]:
        wish = {
            "certificates": twin.mesh.pem,
            "trustDomain": domain or twin.place.trust_domain,
        }
        twin.client.put("/v1/authorities/too-wide", wish)
        try:
            yield
        finally:
            twin.client.delete("/v1/authorities/too-wide")

    return believed


@contextmanager
def for_everybody(twin: Twin) -> Iterator[None]:
    """An entry that the attacker's own user has."""
    with trust.entry(twin, "everybody", [f"unix:uid:{os.getuid()}"]):
        yield


@contextmanager
def wide_egress(twin: Twin) -> Iterator[None]:
    """The list of hosts names one too many."""
    allowed = [f"http://127.0.0.1:{port}" for port in (twin.service.port, twin.service.trap_port)]
    digest = deploy_probe(twin.client, twin.service.port, twin.service.trap_port)
    wish = {"component": digest, "allowedHosts": allowed}
    twin.client.put("/v1/functions/probe", wish)
    try:
        yield
    finally:
        twin.service.sprung = 0
        deploy_probe(twin.client, twin.service.port, twin.service.trap_port)


BOX_RULE = """\
apiVersion: vedette.dev/v1alpha1
kind: EgressPolicy
metadata: {{name: too-much}}
spec:
  workloads: [{workload}]
  allow: [{{to: "http://127.0.0.1:{port}"}}]
"""


@contextmanager
def wide_box(twin: Twin) -> Iterator[None]:
    """A program has a rule too many."""
    port = twin.service.trap_port
    apply(twin.client, BOX_RULE.format(workload="boxed", port=port))
    try:
        yield
    finally:
        twin.service.sprung = 0
        apply(twin.client, BOX_RULE.format(workload="nobody", port=port))


ANYBODY = '@id("open") permit (principal, action, resource == Route::"orders");'
WIDER = """\
@id("wider") permit (principal == Subject::"ISSUER#alice", action, resource == Route::"orders")
when { context.method == "GET" };
"""
CAROL = '@id("carol") permit (principal == Subject::"ISSUER#carol", action, resource == Route::"billing");'


def test_the_quick_checks_pass_on_a_twin_that_is_whole(twin: Twin) -> None:
    assert failing(twin) == {}


@pytest.mark.parametrize(
    ("off", "expected", "said"),
    [
        pytest.param(spoiled("listeners"), {1}, "TCP listener", id="an undeclared listener"),
        pytest.param(
            authority_for("elsewhere.invalid"),
            {3},
            "another trust domain",
            id="a foreign authority",
        ),
        pytest.param(authority_for(""), {20}, "own trust domain", id="an authority for this node"),
        pytest.param(permitting(ANYBODY), {3, 5, 9, 10}, "loopback", id="anybody may"),
        pytest.param(spoiled("header"), {7}, "security header", id="no security header"),
        pytest.param(for_everybody, {7}, "without an entry", id="an entry for everybody"),
        pytest.param(spoiled("attestation"), {7}, "another user's", id="no attestation"),
        pytest.param(spoiled("blobs"), {8}, "changed component", id="unchecked components"),
        pytest.param(permitting(CAROL), {9}, "by carol", id="one permit too many"),
        pytest.param(permitting(WIDER), {10}, "GET /orders/yours", id="a permit too wide"),
        pytest.param(spoiled("revocations"), {12}, "event stream", id="no revocation"),
        pytest.param(spoiled("prohibitions"), {13}, "WebSocket", id="no new prohibition"),
        pytest.param(wide_egress, {18}, "another port", id="too many hosts"),
        pytest.param(wide_box, {18}, "another port from a box", id="a rule too many of a program"),
        pytest.param(spoiled("egress-limits"), {19}, "beyond the rate", id="no limits of egress"),
        pytest.param(spoiled("sequence"), {23}, "older bundle", id="older bundles taken"),
        pytest.param(spoiled("jwt-svids"), {23, 24}, "HS256", id="tokens believed"),
    ],
)
def test_a_defence_that_is_off_is_seen_by_its_check_and_no_other(
    twin: Twin, monkeypatch: pytest.MonkeyPatch, off: Off, expected: set[int], said: str
) -> None:
    monkeypatch.setattr(leases, "BOUND", 5.0)
    with off(twin):
        found = failing(twin)
    assert set(found) == expected, found
    assert any(said in evidence for evidence in found.values()), found


def test_what_was_switched_off_is_on_again(twin: Twin) -> None:
    assert failing(twin) == {}


# --- defences of the engine: something without them stands in its place


def fails(twin: Twin, number: int, said: str) -> None:
    outcome = [one for one in outcomes(twin, BY_ID[number]) if not one.passed]
    assert outcome, number
    assert said in outcome[0].evidence, outcome[0].evidence


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (3, "TLS 1.2 was not refused"),
        (4, "hybrid"),
        (5, "anonymous call"),
        (11, "forged x-vedette-principal"),
    ],
)
def test_a_listener_that_allows_everything_is_seen(
    twin: Twin, dishonest: Dishonest, number: int, said: str
) -> None:
    with replaced(twin, dishonest.address):
        fails(twin, number, said)


def test_a_listener_that_speaks_in_clear_is_seen(twin: Twin) -> None:
    plain = Dishonest()
    with replaced(twin, plain.address):
        fails(twin, 2, "HTTP/1.1 in clear")
    plain.close()


def test_a_listener_without_tls_is_seen(twin: Twin) -> None:
    honest = twin.place.listeners
    twin.place.listeners = [*honest, ("http", ("127.0.0.1", 1))]
    try:
        fails(twin, 2, "plain HTTP at 127.0.0.1:1")
    finally:
        twin.place.listeners = honest


def test_a_stream_that_outlives_its_proof_is_seen(
    twin: Twin, dishonest: Dishonest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BOUND", 0.3)
    monkeypatch.setattr(leases, "_leeway", lambda _twin: 0)
    monkeypatch.setattr(leases, "Stream2", leases.Stream)
    with replaced(twin, dishonest.address):
        fails(twin, 14, "going on with an ended SVID was not refused")


# --- what ends by itself


@pytest.mark.parametrize(
    ("number", "defence", "said"),
    [
        (15, "grants", "going on with an event stream was not refused"),
        (16, "posture", "going on with a WebSocket was not refused"),
        (22, "join-tokens", "a token that has ended was not refused"),
    ],
)
def test_what_does_not_end_by_itself_is_seen(
    twin: Twin, number: int, defence: str, said: str
) -> None:
    with switched_off(twin, defence):
        fails(twin, number, said)
    assert [one.evidence for one in outcomes(twin, BY_ID[number]) if not one.passed] == []


def test_a_policy_that_holds_without_control_for_ever_is_seen(
    twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(lapses, "_NODE", lapses._NODE.replace("{holds}", "24h"))
        fails(twin, 17, "when the last policy holds no more was not refused")
    assert [one.evidence for one in outcomes(twin, BY_ID[17]) if not one.passed] == []


def test_what_is_open_without_control_is_seen(twin: Twin) -> None:
    with permitting(ANYBODY)(twin):
        fails(twin, 17, "a call without proof while control is away was not refused")


# --- keys and files


def test_a_key_that_others_can_read_is_seen(twin: Twin) -> None:
    key = twin.place.home.signing_key
    key.chmod(0o644)
    try:
        fails(twin, 6, "signing.key 0644")
    finally:
        key.chmod(0o600)


def test_svids_that_live_too_long_are_seen(twin: Twin) -> None:
    with switched_off(twin, "svid-life"):
        outcome, _ = on_twin(twin, BY_ID[6])
    assert not outcome.passed
    assert "lives longer than its entry says" in outcome.evidence


def test_files_and_svids_pass_when_nothing_is_off(twin: Twin) -> None:
    assert [outcome for outcome in outcomes(twin, BY_ID[6]) if not outcome.passed] == []


# --- the engine's sandbox


def test_a_process_that_is_not_confined_is_seen_from_inside(tmp_path: Path) -> None:
    """The same attempts, in a process without Landlock and seccomp."""
    for folder in ("spool", "engine", "control", "run"):
        (tmp_path / folder).mkdir()
    for name in ("engine/active.json", "control/ca.key", "control/signing.key"):
        (tmp_path / name).write_text("{}")
    code = "import sys; from pathlib import Path; from vedette.verification import inside; "
    code += "inside.attempt_all(Path(sys.argv[1]))"
    # What it may trace and signal is a shell of its own, not this process.
    shell = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", code, str(tmp_path)]
    subprocess.run(shell, check=True, timeout=60)
    trial = Trial()
    containment.judge_inside(json.loads((tmp_path / "spool" / inside.REPORT).read_text()), trial)
    told = trial.outcome()
    assert not told.passed
    assert "read the CA's key from inside the engine was not refused" in told.evidence
    assert any("start a program" in failure for failure in trial.failures)


def test_an_engine_without_a_sandbox_is_seen(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that nothing confines stands for the engine: this one."""
    real = type(twin.place).pids
    pids = {"engine": os.getpid()}
    monkeypatch.setattr(type(twin.place), "pids", lambda place: {**real(place), **pids})
    outcome, _ = on_node(twin.place, BY_ID[21])
    assert not outcome.passed
    assert "a thread without NoNewPrivs" in outcome.evidence


# --- the audit log


def test_a_record_that_somebody_edits_is_seen(twin: Twin) -> None:
    outcome, _ = on_twin(twin, BY_ID[25])  # what was asked is in the log from here on
    assert outcome.passed, outcome.evidence
    (segment,) = (
        one
        for one in spool.segments(twin.place.home.spool_requests)
        if b"alice" in one.read_bytes()
    )
    place = segment.read_bytes().index(b"alice")
    _write(segment, place, b"alicE")
    try:
        assert [one.passed for one in outcomes(twin, BY_ID[25])] == [False, False]
    finally:
        _write(segment, place, b"alice")


def _write(segment: Path, place: int, text: bytes) -> None:
    with segment.open("r+b") as file:
        file.seek(place)
        file.write(text)


# --- the air gap

CALLS_HOME = """\
import os, socket, sys, time
from types import SimpleNamespace
from vedette.errors import VedetteError
from vedette.verification import containment, namespaces
from vedette.verification.checks import Trial
try:
    namespaces.isolate()
except (OSError, VedetteError):
    sys.exit(77)
namespaces.loopback_up()
place = SimpleNamespace(pids=lambda: {"this": os.getpid()})
twin = SimpleNamespace(outlet=namespaces.Outlet(), kept={}, place=place)
if sys.argv[1] == "home":
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"hello", ("192.0.2.1", 53))
    while twin.outlet.counted() == (0, 0):
        time.sleep(0.01)
trial = Trial()
containment.air_gap(twin, trial)
print(trial.outcome().passed, trial.outcome().evidence)
"""


@pytest.mark.parametrize("calls", ["nobody", "home"])
def test_a_packet_that_leaves_is_seen(calls: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CALLS_HOME, calls], capture_output=True, text=True, timeout=60
    )
    if done.returncode == 77:
        pytest.skip("this machine gives no network namespace")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True" if calls == "nobody" else "False"), done.stdout
    assert calls == "nobody" or "a packet to another machine was not refused" in done.stdout


def test_without_a_namespace_the_air_gap_is_not_proved(twin: Twin) -> None:
    assert twin.outlet is None
    fails(twin, 26, "looking at what leaves")


def test_no_check_passes_without_an_attack_and_a_control() -> None:
    for trial in (Trial(attacks=3), Trial(controls=3), Trial()):
        assert not trial.outcome().passed
    assert Trial(attacks=1, controls=1).outcome().passed
    assert "alice-reads-orders" in POLICY
