"""Measures the issuer and the Workload API: `python benches/identity.py` (as root, for callers of many groups).

Owns: three figures: SVIDs signed in a second of CPU, signed and pushed in a second of control's CPU, and the time from
a changed entry to the SVID on the stream. Must not: judge; docs/identity.md has what was measured.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import machine
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived

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


def sign(home: Home) -> dict[str, float]:
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
    each = (time.process_time() - begin) / MINTED
    return {"signed_per_cpu_second": round(1 / each), "microseconds_each": round(each * 1e6, 1)}


def serve(home: Home) -> None:
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


def push(home: Home) -> dict[str, float]:
    """All SVIDs fall due at once, each with a watcher of its own: control's CPU, and the time until the last came."""
    command = [sys.executable, __file__, "serve", str(home.root)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        told, answered = server.stdin, server.stdout
        assert told is not None
        assert answered is not None
        os.sched_setaffinity(server.pid, {0})
        os.sched_setaffinity(0, {(os.cpu_count() or 1) - 1})
        answered.readline()

        def tell(text: str) -> float:
            told.write(text + "\n")
            told.flush()
            return float(answered.readline())

        callers = _callers(home)
        for caller in callers:
            caller.next()
        cpu, wall = [], []
        for _ in range(ROUNDS):
            before, begin = tell("460"), time.perf_counter()
            for caller in callers:
                caller.next()
            wall.append(time.perf_counter() - begin)
            cpu.append(tell("") - before)
        server.kill()
    each = statistics.median(cpu) / WATCHERS
    return {
        "pushed_per_cpu_second": round(1 / each),
        "microseconds_each": round(each * 1e6, 1),
        "wall_milliseconds_for_all": round(statistics.median(wall) * 1e3, 1),
        "watchers": WATCHERS,
    }


def _callers(home: Home) -> list[Caller]:
    callers = []
    for number in range(WATCHERS):
        os.setegid(_FIRST_GROUP + number)
        callers.append(Caller(home.workload_socket))
    os.setegid(os.getgid())
    return callers


def change(home: Home) -> dict[str, float]:
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
    cuts = statistics.quantiles(took, n=100)
    return {
        "p50": round(cuts[49], 2),
        "p99": round(cuts[98], 2),
        "max": round(max(took), 2),
        "changes": CHANGES,
    }


def main() -> int:
    """Prints what was measured, as JSON."""
    if sys.argv[1:2] == ["serve"]:
        serve(Home(Path(sys.argv[2])))
        return 0
    if os.geteuid() != 0:
        print("callers of many groups need root", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="vi-") as folder:
        home = Home(Path(folder))
        bootstrap(home, Wish(name="bench"))
        found: dict[str, Any] = {"machine": vars(machine.describe()), "sign": sign(home)}
        found["push"] = push(home)
    with tempfile.TemporaryDirectory(prefix="vi-") as folder:
        found["change"] = change(Home(Path(folder)))
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
