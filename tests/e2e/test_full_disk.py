"""A full disk: refused with a cause or served with a record, never served without one; nothing acknowledged is lost.

The home folder lies on a small tmpfs in a mount namespace of its own, so that nothing else on the machine fills up.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.caller import Caller
from tests.e2e.node import Node, new_home, wait_until
from tests.e2e.wire import HTTP_1
from tests.guests import Guests

SIZE_MIB = 192
MOUNT = (
    "mount -t tmpfs -o size={size}m,mode=0700 vedette {home} && echo ready && exec sleep infinity"
)


@pytest.fixture(scope="module")
def small_disk() -> Iterator[tuple[Path, list[str], str]]:
    """A home on a small disk: its path inside, the command prefix that enters, and its root seen from outside."""
    home = new_home()
    as_root = os.geteuid() == 0
    enter = (
        ["unshare", "--mount"] if as_root else ["unshare", "--user", "--map-root-user", "--mount"]
    )
    script = MOUNT.format(size=SIZE_MIB, home=home)
    holder = subprocess.Popen(
        [*enter, "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    if holder.stdout.readline().strip() != "ready":
        _, errors = holder.communicate(timeout=5)
        pytest.skip(f"this machine gives no mount namespace: {errors.strip()}")
    flags = ["--mount"] if as_root else ["--user", "--mount", "--preserve-credentials"]
    prefix = ["nsenter", "--target", str(holder.pid), *flags, "--"]
    yield home, prefix, f"/proc/{holder.pid}/root"
    holder.kill()
    holder.wait()
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="module")
def own(small_disk: tuple[Path, list[str], str], guests: Guests) -> Iterator[Node]:
    """A node on the small disk."""
    home, prefix, view = small_disk
    node = Node(home, prefix=prefix, view=view).start()
    node.deploy(guests.hello, "hello")
    yield node
    node.discard()


def _fill(node: Node) -> Path:
    ballast = node.path("ballast")
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return ballast


def test_on_a_full_disk_nothing_is_served_without_a_record(own: Node, protocol: str) -> None:
    """Long paths make long records, so that the room the engine keeps is used up soon."""
    caller = Caller(own, protocol)
    caller.expect_neighbour_served()
    long_path = "/hello/" + "x" * 7_000
    ballast = _fill(own)
    try:
        served = []
        while (answer := caller.ask(long_path)).status == 200:
            served.append(answer)
            assert len(served) < 6_000, "the disk is full, and still the engine finds room"
        refused = [answer, *(caller.ask("/hello") for _ in range(20))]
    finally:
        ballast.unlink()
    print(f"full disk: {len(served)} served and recorded, then refused")
    for answer in refused:
        record = caller.expect_recorded(answer, 503)
        assert (record["stage"], record["cause"]) == ("admit", "record_unavailable")
        assert answer.headers["retry-after"]
    for answer in served:
        own.record(answer.request_id)
    wait_until("requests are served again", lambda: caller.ask("/hello").status == 200)
    caller.expect_neighbour_served()
    caller.close()


def test_a_deploy_on_a_full_disk_fails_cleanly(own: Node, guests: Guests, protocol: str) -> None:
    before = own.status()
    ballast = _fill(own)
    try:
        done = own.run("deploy", str(guests.hostile), "--name", "unlucky", check=False)
        assert done.returncode == 4, (done.stdout, done.stderr)
        assert "no space" in done.stderr
        assert "Traceback" not in done.stderr
    finally:
        ballast.unlink()
    assert own.status()["snapshot"] == before["snapshot"]
    caller = Caller(own, protocol)
    caller.expect_neighbour_served()
    own.deploy(guests.hostile, "lucky")
    assert caller.ask("/lucky").status == 200
    own.run("remove", "lucky")
    caller.close()


def test_killed_on_a_full_disk_the_engine_serves_what_was_acknowledged(own: Node) -> None:
    before = own.status()["snapshot"]["digest"]
    ballast = _fill(own)
    try:
        os.kill(own.pid("engine"), signal.SIGKILL)
    finally:
        ballast.unlink()
    wait_until(
        "the engine serves again",
        lambda: own.status()["engine"].get("digest") == before,
    )
    caller = Caller(own, HTTP_1)
    caller.expect_neighbour_served()
    caller.close()


def test_the_audit_log_waits_on_a_full_disk_and_is_complete_afterwards(own: Node) -> None:
    caller = Caller(own, HTTP_1)
    ballast = _fill(own)
    try:
        answers = [caller.ask("/hello") for _ in range(200)]
        refused = own.run("token", "--subject", "x", check=False)
        assert refused.returncode in (0, 4), refused.stderr
    finally:
        ballast.unlink()
    caller.close()

    def is_complete() -> bool:
        done = own.run("audit", "verify", "--json", check=False)
        verdict = json.loads(done.stdout)
        assert verdict["findings"] == []
        return bool(verdict["notYetIn"] == 0)

    wait_until("the log has caught up", is_complete, every=0.5)
    for answer in answers:
        own.record(answer.request_id)
