"""Measures the issuer and the Workload API (as root, for callers of many groups).

Owns: three figures: SVIDs signed in a second of CPU, signed and pushed in a second of control's CPU, and the time from
a changed entry to the SVID on the stream. Must not: judge.
"""

from __future__ import annotations

import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived
from processes import CORES, BenchError

from vedette.clock import now
from vedette.control.bootstrap import Wish, bootstrap, open_keys, read_facts
from vedette.control.client import ControlClient
from vedette.control.supervisor import sockets
from vedette.control.workload import wire
from vedette.control.workload.entries import Workloads
from vedette.control.workload.identities import Identities
from vedette.control.workload.messages import WorkloadWish
from vedette.control.workload.server import WorkloadServer
from vedette.identity.domain import SpiffeId
from vedette.identity.x509_svid import DEFAULT_TTL, X509Issuer
from vedette.store.home import Home

WATCHERS = 500
ROUNDS = 8
CHANGES = 300
MINTED = 10_000
_FIRST_GROUP = 100_000


@dataclass(frozen=True)
class Issued:
    """One round: X509-SVIDs in a second of CPU, and milliseconds from a change of an entry to its SVID."""

    signed_per_second: float
    pushed_per_second: float
    """Of control, which signs and sends; the callers' own CPU is not in it."""
    change_p50_ms: float
    change_p99_ms: float


def measure_identity(rounds: int, say: Callable[[str], None]) -> list[Issued]:
    """So many rounds, each of a home of its own. Raises BenchError without root."""
    if os.geteuid() != 0:
        raise BenchError("the callers are of many groups, which needs root")
    return [_round(f"identity: round {number} of {rounds}", say) for number in range(1, rounds + 1)]


def _round(name: str, say: Callable[[str], None]) -> Issued:
    with tempfile.TemporaryDirectory(prefix="vi-") as folder:
        home = Home(Path(folder))
        bootstrap(home, Wish(name="bench"))
        say(f"{name}: {MINTED:,} SVIDs")
        signed = _sign(home)
        say(f"{name}: {WATCHERS} watchers")
        pushed = _push(home)
    with tempfile.TemporaryDirectory(prefix="vi-") as folder:
        say(f"{name}: {CHANGES} changes of an entry")
        cuts = statistics.quantiles(_change(Home(Path(folder))), n=100)
    return Issued(signed, pushed, cuts[49], cuts[98])


class Caller:
    """A watch of FetchX509SVID on a connection of its own; the kernel tells its group as it is when this is made."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self._http = H2Connection(H2Configuration(header_encoding=None))
        self._http.initiate_connection()
        self._partial = bytearray()
        head = {
            ":method": "POST",
            ":scheme": "http",
            ":authority": "localhost",
            ":path": f"/{wire.SERVICE}/FetchX509SVID",
            "content-type": "application/grpc",
            "te": "trailers",
            "workload.spiffe.io": "true",
        }
        self._http.send_headers(1, list(head.items()))
        self._http.send_data(1, b"\0\0\0\0\0", end_stream=True)
        self.socket.sendall(self._http.data_to_send())

    def next(self) -> Any:
        """The next message."""
        while True:
            if len(self._partial) >= 5:
                size = int.from_bytes(self._partial[1:5], "big")
                if len(self._partial) >= 5 + size:
                    message = bytes(self._partial[5 : 5 + size])
                    del self._partial[: 5 + size]
                    return wire.decode("X509SVIDResponse", message)
            for event in self._http.receive_data(self.socket.recv(1 << 16)):
                if isinstance(event, DataReceived):
                    length = event.flow_controlled_length
                    self._http.acknowledge_received_data(length, 1)
                    self._partial += event.data
            self.socket.sendall(self._http.data_to_send())


def _sign(home: Home) -> float:
    """SVIDs minted in a second of CPU: key, certificate and PKCS #8 each."""
    facts = read_facts(home)
    assert facts is not None
    issuer = X509Issuer(open_keys(home, facts).authority)
    identity = SpiffeId(facts.trust_domain, "/bench")
    moment = now()
    issuer.mint(identity, DEFAULT_TTL, moment)
    begin = time.process_time()
    for _ in range(MINTED):
        issuer.mint(identity, DEFAULT_TTL, moment)
    return MINTED / (time.process_time() - begin)


def _serve(home: Home) -> None:
    """A Workload API in a process of its own: puts its clock ahead by the seconds of each line (if any) and
    answers its CPU time.
    """
    ahead = [timedelta()]
    facts = read_facts(home)
    assert facts is not None
    identities = Identities(home, open_keys(home, facts), lambda: datetime.now(UTC) + ahead[0])
    workloads = Workloads(identities.store, identities.trust_domain)
    for number in range(WATCHERS):
        group = f"unix:gid:{_FIRST_GROUP + number}"
        workloads.put(f"w{number}", WorkloadWish(path=f"/w{number}", selectors=(group,)))
    server = WorkloadServer(home, workloads, identities, tick=0.05)
    server.start(sockets.bind_unix(home.workload_socket, 0o666))
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip():
            ahead[0] += timedelta(seconds=float(line))
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(used.ru_utime + used.ru_stime, flush=True)


def _push(home: Home) -> float:
    """SVIDs in a second of control's CPU, when all fall due at once, each with a watcher of its own."""
    command = [sys.executable, __file__, str(home.root)]
    with (
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as server,
        _on_another_core(server.pid),
    ):
        told, answered = server.stdin, server.stdout
        assert told is not None
        assert answered is not None
        answered.readline()

        def tell(text: str) -> float:
            told.write(text + "\n")
            told.flush()
            return float(answered.readline())

        callers = _callers(home)
        for caller in callers:
            caller.next()
        cpu = []
        for _ in range(ROUNDS):
            before = tell("460")
            for caller in callers:
                caller.next()
            cpu.append(tell("") - before)
        server.kill()
    return WATCHERS / statistics.median(cpu)


@contextmanager
def _on_another_core(pid: int) -> Iterator[None]:
    """That process on the first core and this one on the second, until the block is done."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(pid, CORES[:1])
    os.sched_setaffinity(0, CORES[-1:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _callers(home: Home) -> list[Caller]:
    callers = []
    for number in range(WATCHERS):
        os.setegid(_FIRST_GROUP + number)
        callers.append(Caller(home.workload_socket))
    os.setegid(os.getgid())
    return callers


def _change(home: Home) -> list[float]:
    """Milliseconds from the call of the admin API of a whole node to the SVID on the stream."""
    vedette = [sys.executable, "-m", "vedette"]
    flags = ["--home", str(home.root)]
    up = ["up", "--detach", "--bare", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]
    subprocess.run([*vedette, *up, *flags], check=True, capture_output=True)
    try:
        admin = ControlClient(home)
        mine = [f"unix:uid:{os.getuid()}"]
        admin.put("/v1/workloads/first", {"path": "/first", "selectors": mine})
        caller = Caller(home.workload_socket)
        caller.next()
        took = []
        for number in range(CHANGES):
            path = f"/changed-{number}"
            begin = time.perf_counter()
            asked = threading.Thread(
                target=admin.put,
                args=("/v1/workloads/changed", {"path": path, "selectors": mine}),
            )
            asked.start()
            while not any(one.spiffe_id.endswith(path) for one in caller.next().svids):
                pass
            took.append((time.perf_counter() - begin) * 1e3)
            asked.join()
    finally:
        subprocess.run([*vedette, "down", *flags], check=True, capture_output=True)
    return took


if __name__ == "__main__":
    _serve(Home(Path(sys.argv[1])))
