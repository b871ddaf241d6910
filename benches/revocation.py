"""Measures a revocation: `python benches/revocation.py [http1|http2|tunnel ...] [--live N] [--rounds N]`.

Owns: a node with a service behind it, and thousands of live exchanges, each with a token of its own; the client and the
service are `crates/engine/examples/live_streams.rs`. Must not: judge; docs/request.md has what was measured.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import machine

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


def program() -> Path:
    """The client and service, built now if they are not."""
    command = [
        "cargo",
        "build",
        "--release",
        "--locked",
        "-p",
        "vedette-engine",
        "--message-format",
        "json",
    ]
    done = subprocess.run(
        [*command, "--example", "live_streams"], check=True, stdout=subprocess.PIPE, text=True
    )
    found = [json.loads(line).get("executable") for line in done.stdout.splitlines()]
    return Path(next(each for each in found if each))


def minted(home: Home, count: int) -> str:
    """`TOKEN JTI` for each exchange."""
    client = ControlClient(home)

    def one(number: int) -> str:
        wish = {"subject": f"caller-{number}", "ttlSeconds": 3_600}
        token = client.post("/v1/tokens", wish)["token"]
        return f"{token} {facts_of(token).jti}\n"

    with ThreadPoolExecutor(4) as threads:
        return "".join(threads.map(one, range(count)))


def measure(kind: str, live: int, rounds: int, pause: int) -> dict[str, Any]:
    """Times in milliseconds: until the exchange has ended, until the admin API has answered."""
    run = program()
    folder = Path(tempfile.mkdtemp(prefix="vd-", dir="/tmp"))
    home = Home(folder / "n")
    protocol = "http2" if kind != "tunnel" else "http1"
    service = subprocess.Popen([run, "serve", protocol], stdout=subprocess.PIPE, text=True)
    try:
        assert service.stdout is not None
        port = int(service.stdout.readline())
        _vedette(
            home, "up", "--detach", "--bare", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"
        )
        (folder / "node.yaml").write_text(MANIFEST.format(port=port, protocol=protocol))
        _vedette(home, "apply", "--yes", "-f", str(folder / "node.yaml"))
        _vedette(home, "ca", "--out", str(folder / "ca.pem"))
        listener = ControlClient(home).get("/v1/status")["listeners"][0]["address"]
        where = [listener.rpartition(":")[2], kind, home.admin_socket, folder / "ca.pem"]
        command = [str(each) for each in (run, "measure", *where, rounds, pause)]
        tokens = minted(home, live)
        done = subprocess.run(command, input=tokens, check=True, stdout=subprocess.PIPE, text=True)
    finally:
        _vedette(home, "down")
        service.terminate()
        service.wait()
        shutil.rmtree(folder)
    told = json.loads(done.stdout)
    closed, answered = zip(*told["samples"], strict=True)
    return {
        "kind": kind,
        "live": told["live"],
        "closedMs": _figures(closed),
        "answeredMs": _figures(answered),
    }


def _figures(micros: tuple[int, ...]) -> dict[str, float]:
    cuts = statistics.quantiles(micros, n=100, method="inclusive")
    named = {"p50": cuts[49], "p90": cuts[89], "p99": cuts[98], "most": max(micros)}
    return {name: round(value / 1_000, 2) for name, value in named.items()}


def _vedette(home: Home, *arguments: str) -> None:
    subprocess.run(
        [VEDETTE, *arguments, "--home", home.root], check=True, stdout=subprocess.DEVNULL
    )


def main() -> None:
    """Prints JSON, a line for each kind of exchange."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kinds", nargs="*", default=["http2", "http1", "tunnel"])
    parser.add_argument("--live", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--pause", type=int, default=50, help="milliseconds between two")
    options = parser.parse_args()
    print(machine.describe(), file=sys.stderr)
    for kind in options.kinds:
        print(json.dumps(measure(kind, options.live, options.rounds, options.pause)), flush=True)


if __name__ == "__main__":
    main()
