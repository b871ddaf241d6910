"""The wall clock of a whole node jumps, forward and back: what has ended is refused, and what is right then is served.

The node is in a mount namespace in which every program sees a wall clock that the test moves
(`simulators/moved_clock.c`); the test's own clock stays.
"""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from tests.control.workload.raw_client import RawClient
from tests.e2e.caller import client_of
from tests.e2e.node import Node, new_home, wait_until
from tests.e2e.wire import HTTP_1, tls_context

SOURCE = Path(__file__).resolve().parents[1] / "simulators" / "moved_clock.c"
ROUTE = """\
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: plain}
spec:
  rules: [{matches: [{path: {value: /plain}}], static: {body: fine}}]
"""
HOUR = 3_600
DAY = 24 * HOUR
NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME of OpenSSL: this process's clock is another


@dataclass
class Moved:
    """A node whose wall clock is `ahead` seconds before the real one."""

    node: Node
    offset: Path
    ahead: int = 0

    def jump(self, ahead: int) -> None:
        """Sets how far it is ahead."""
        with self.offset.open("r+b") as file:
            file.write(ahead.to_bytes(8, "little", signed=True))
        self.ahead = ahead

    @property
    def now(self) -> float:
        """The node's time, in seconds since the epoch."""
        return time.time() + self.ahead

    def status(self, token: str) -> int:
        """What a caller with a token is answered, whatever the certificate's dates are."""
        context = tls_context(self.node.ca_file, HTTP_1)
        context.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)
        with client_of(self.node, HTTP_1, context) as client:
            return client.get("/plain", headers={"authorization": f"Bearer {token}"}).status_code

    def is_up(self) -> bool:
        """Whether anybody answers."""
        try:
            return self.status("none") == 401
        except httpx.TransportError:
            return False

    def leaf(self) -> x509.Certificate:
        """The certificate that the listener shows."""
        endpoint = self.node.endpoint
        pem = ssl.get_server_certificate((endpoint.host, endpoint.port))
        return x509.load_pem_x509_certificate(pem.encode())

    def is_valid(self, certificate: x509.Certificate) -> bool:
        """Whether it is, by the node's clock."""
        start = certificate.not_valid_before_utc.timestamp()
        return start <= self.now <= certificate.not_valid_after_utc.timestamp()

    def listener_is_valid(self) -> None:
        """Returns when its certificate is: after the next change, without one within a minute."""
        self.node.apply(ROUTE.replace("fine", f"fine at {self.now}"))
        wait_until("the listener has another", lambda: self.is_valid(self.leaf()), 120)

    def svid(self) -> x509.Certificate:
        """What a program is given now."""
        client = RawClient(self.node.path("run", "workload.sock"))
        try:
            told = client.next_message(client.open("FetchX509SVID"), "X509SVIDResponse")
        finally:
            client.close()
        return x509.load_der_x509_certificate(told.svids[0].x509_svid)

    def serves(self, token: str) -> bool:
        """Whether a caller with it is served soon: what a jump has ended begins again within seconds."""
        wait_until("it is served", lambda: self.status(token) == 200)
        return True


@pytest.fixture
def moved(tmp_path: Path) -> Iterator[Moved]:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    library, upper, work = (tmp_path / name for name in ("clock.so", "upper", "work"))
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE], check=True)
    for folder in (upper, work):
        folder.mkdir()
    offset = tmp_path / "offset"
    offset.write_bytes(bytes(8))
    script = (
        f"mount -t tmpfs none {work} && mkdir {work}/u {work}/w && touch {work}/u/moved-clock"
        f" && mount -t overlay -o lowerdir=/etc,upperdir={work}/u,workdir={work}/w none /etc"
        f" && mount --bind {offset} /etc/moved-clock && echo {library} > /etc/ld.so.preload"
        " && echo ready && exec sleep infinity"
    )
    as_root = os.geteuid() == 0
    own = [] if as_root else ["--user", "--map-root-user"]
    holder = subprocess.Popen(
        ["unshare", *own, "--mount", "sh", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    if holder.stdout.readline() != "ready\n":
        _, errors = holder.communicate(timeout=10)
        pytest.skip(f"this machine gives no mount namespace with an overlay: {errors.strip()}")
    entered = ["--mount"] if as_root else ["--user", "--preserve-credentials", "--mount"]
    node = Node(new_home(), prefix=["nsenter", "--target", str(holder.pid), *entered, "--"])
    try:
        node.start().apply(ROUTE)
        node.run("workload", "add", "shop", "--uid", str(os.getuid()))
        yield Moved(node, offset)
    finally:
        node.discard()
        holder.kill()
        holder.wait()


def test_a_clock_that_jumps_forward_ends_what_has_ended_and_the_node_serves_on(
    moved: Moved,
) -> None:
    before = moved.node.token()
    assert moved.status(before) == 200
    first = moved.svid()
    for ahead in (3 * HOUR, 10 * DAY):
        moved.jump(ahead)
        assert moved.status(before) in (401, 503)
        wait_until("its end is told", lambda: moved.status(before) == 401)
        assert moved.serves(moved.node.token())
        wait_until("the SVID is another", lambda: moved.is_valid(moved.svid()))
        moved.listener_is_valid()
    assert moved.svid().serial_number != first.serial_number
    assert moved.node.run("audit", "verify").returncode == 0


def test_a_clock_that_jumps_back_lengthens_nothing_and_the_node_serves_on(moved: Moved) -> None:
    """To a time at which the CA was there: one that is not valid yet is replaced."""
    moved.jump(10 * DAY)
    os.kill(moved.node.pid("engine"), signal.SIGKILL)  # the next one begins at that time
    wait_until("another engine serves", moved.is_up)
    moved.listener_is_valid()
    short = moved.node.token("short", "--ttl", "5s")
    assert moved.status(short) == 200
    wait_until("it has ended", lambda: moved.status(short) == 401)
    ended = time.monotonic()
    wait_until("so has its last second", lambda: time.monotonic() > ended + 2)
    moved.jump(10 * DAY - 2 * HOUR)
    assert {moved.status(short) for _ in range(10)} == {401}, "the engine keeps the time"
    wait_until("the SVID is another", lambda: moved.is_valid(moved.svid()))
    moved.listener_is_valid()
    moved.jump(10 * DAY)
    assert moved.status(short) == 401
    assert moved.serves(moved.node.token())
    assert moved.node.run("audit", "verify").returncode == 0


def test_a_clock_that_was_ahead_and_is_put_right_leaves_nothing_that_is_not_valid_yet(
    moved: Moved,
) -> None:
    moved.jump(10 * DAY)
    ahead = moved.node.token()
    assert moved.serves(moved.node.token())
    moved.listener_is_valid()
    moved.jump(0)
    assert moved.status(ahead) == 401, "it is of a time that has not come"
    assert moved.serves(moved.node.token())
    wait_until("the SVID is another", lambda: moved.is_valid(moved.svid()))
    moved.listener_is_valid()
