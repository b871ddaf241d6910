"""Measures a revocation, until the last byte of the live exchange that it ends.

Owns: a node with a service behind it, and thousands of live exchanges, each with a token of its own; the client and the
service are `crates/engine/examples/live_streams.rs`. Must not: judge.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import install

from vedette.control.client import ControlClient
from vedette.identity.tokens import facts_of
from vedette.store.home import Home

VEDETTE = Path(sys.executable).with_name("vedette")
MANIFEST = """\
apiVersion: vedette.dev/v1alpha1
kind: Node
metadata: {{name: bench}}
spec:
  shed: false
  limits: {{connections: 20000, requests: 20000, sourceConnections: {{most: 20000, rate: 20000/s, burst: 20000}}}}
  timers: {{tunnel: 1h, idle: 1h}}
---
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: service}}
spec: {{url: "http://127.0.0.1:{port}", protocol: {protocol}, maxConnections: 20000}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: live}}
spec:
  rules:
    - matches: [{{path: {{value: /live}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: service}}]
"""


Kind = Literal["http2", "http1", "tunnel"]
KINDS: dict[Kind, str] = {
    "http2": "streams over HTTP/2, a connection each",
    "http1": "event streams over HTTP/1.1",
    "tunnel": "tunnels over HTTP/1.1",
}
LIVE = 10_000
_ROUNDS = 200
_PAUSE_MS = 50
_SPARE_FILES = 600
_SECONDS = 600.0


@dataclass(frozen=True)
class Revoked:
    """Milliseconds from the request to the admin API to the last byte, and to its (durable) answer."""

    live: int
    p50_ms: float
    p99_ms: float
    most_ms: float
    answered_p50_ms: float
    answered_p99_ms: float


def measure_revocation(checkout: Path, say: Callable[[str], None]) -> dict[Kind, Revoked]:
    """Each kind of exchange: 200 of 10,000 live ones are revoked, one after the other."""
    program = install.example(checkout, "live_streams", say)
    found: dict[Kind, Revoked] = {}
    for kind in KINDS:
        live = min(LIVE, _most_live(kind))
        say(f"revocation: {live:,} {KINDS[kind]}")
        found[kind] = _measure(program, kind, live)
    return found


def _most_live(kind: Kind) -> int:
    """What the limit on open files lets a node have: over HTTP/1.1 each has a connection to the service too."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return (files - _SPARE_FILES) // (1 if kind == "http2" else 2)


def _minted(home: Home, count: int) -> str:
    """`TOKEN JTI` for each exchange."""
    client = ControlClient(home)

    def one(number: int) -> str:
        wish = {"subject": f"caller-{number}", "ttlSeconds": 3_600}
        token = client.post("/v1/tokens", wish)["token"]
        return f"{token} {facts_of(token).jti}\n"

    with ThreadPoolExecutor(4) as threads:
        return "".join(threads.map(one, range(count)))


def _measure(run: Path, kind: Kind, live: int) -> Revoked:
    protocol = "http1" if kind == "tunnel" else "http2"
    with (
        tempfile.TemporaryDirectory(prefix="vd-") as folder,
        _service(run, protocol) as port,
        _node(Path(folder), port, protocol) as home,
    ):
        listener = ControlClient(home).get("/v1/status")["listeners"][0]["address"]
        where = [listener.rpartition(":")[2], kind, home.admin_socket, Path(folder, "ca.pem")]
        command = [str(each) for each in (run, "measure", *where, _ROUNDS, _PAUSE_MS)]
        tokens = _minted(home, live)
        done = subprocess.run(
            command, input=tokens, check=True, capture_output=True, text=True, timeout=_SECONDS
        )
    told = json.loads(done.stdout)
    closed, answered = zip(*told["samples"], strict=True)
    ended, done_with = _cuts(closed), _cuts(answered)
    return Revoked(
        told["live"], ended[49], ended[98], max(closed) / 1_000, done_with[49], done_with[98]
    )


@contextmanager
def _service(run: Path, protocol: str) -> Iterator[int]:
    """The service behind the node, and its port."""
    with subprocess.Popen([run, "serve", protocol], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            yield int(child.stdout.readline())
        finally:
            child.terminate()


@contextmanager
def _node(folder: Path, port: int, protocol: str) -> Iterator[Home]:
    """A node with the service behind it; its CA is in `ca.pem` of the folder."""
    home = Home(folder / "n")
    listen = ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]
    _vedette(home, "up", "--detach", "--bare", *listen)
    try:
        manifest = folder / "node.yaml"
        manifest.write_text(MANIFEST.format(port=port, protocol=protocol))
        _vedette(home, "apply", "--yes", "-f", str(manifest))
        _vedette(home, "ca", "--out", str(folder / "ca.pem"))
        yield home
    finally:
        _vedette(home, "down")


def _cuts(micros: tuple[int, ...]) -> list[float]:
    """The percentiles, in milliseconds."""
    return [cut / 1_000 for cut in statistics.quantiles(micros, n=100, method="inclusive")]


def _vedette(home: Home, *arguments: str) -> None:
    subprocess.run([VEDETTE, *arguments, "--home", home.root], check=True, capture_output=True)
