"""Starts a Vedette node for the benches, through the same command and admin API a person uses.

Owns: `vedette up/status/token/ca/down` calls, the admin API over its Unix socket, what is deployed.
Must not: reach into the product's Python packages or read its private files.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import CORES, BenchError, free_port, parent, pinned
from server import KILOBYTE, Endpoint, Place, Server
from shields import asked

VEDETTE = Path(sys.executable).with_name("vedette")
POLICIES = Path(__file__).with_name("policies.cedar")
MANIFEST = """\
apiVersion: vedette.dev/v1alpha1
kind: Node
metadata: {{name: bench}}
spec:
  limits: {{connections: 20000}}
  timers: {{idle: 10m}}{more}
---
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: origin}}
spec: {{url: "http://127.0.0.1:{origin}"}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: anybody}}
spec:
  public: true
  waf: {{mode: "off"}}
  rules:
    - matches: [{{path: {{value: /proxy}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: origin}}]
    - matches: [{{path: {{value: /open}}}}]
      static: {{body: "Hello from Vedette\\n"}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: judged}}
spec:
  rules:
    - matches: [{{path: {{value: /judged}}}}]
      static: {{body: "Hello from Vedette\\n"}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: unjudged}}
spec:
  waf: {{mode: "off"}}
  rules:
    - matches: [{{path: {{value: /static}}}}]
      static: {{body: "Hello from Vedette\\n"}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: flooded}}
spec:
  public: true
  rules:
    - matches: [{{path: {{value: /flooded}}}}]
      static: {{body: "Hello from Vedette\\n"}}
---
apiVersion: vedette.dev/v1alpha1
kind: Limit
metadata: {{name: flooded}}
spec: {{per: [Source], routes: [flooded], rate: 100/m}}
"""
BLOCKING = "\n  offenders: {firstBlock: 1h}"
UNJUDGED = {"mode": "off"}
CALLERS = 50
PATHS = 1_000
_COMMAND_SECONDS = 120
_RESTART_SECONDS = 20


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_COMMAND_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass(frozen=True)
class Node:
    """One node of ours: its home and the address it listens on."""

    home: Path
    url: str
    command: str

    def status(self) -> dict[str, Any]:
        """What `vedette status --json` prints."""
        parsed: dict[str, Any] = self.call("GET", "/v1/status")
        return parsed

    def pid(self, process: str) -> int:
        """The pid of supervisor, engine or control."""
        return int(self.status()["processes"][process]["pid"])

    def first(self) -> int:
        """The pid of the process that all the node's others come from: the guardian, while the supervisor has one."""
        supervisor = self.pid("supervisor")
        above = parent(supervisor)
        words = Path(f"/proc/{above}/cmdline").read_bytes().split(b"\0")
        return above if str(self.home).encode() in words else supervisor

    def vedette(self, *arguments: str) -> str:
        """Runs one command against this node and returns what it printed."""
        return _vedette([*arguments, "--home", str(self.home)])

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One admin API call; bytes go as they are, everything else as JSON."""
        connection = _UnixConnection(self.home / "run" / "admin.sock")
        with contextlib.closing(connection):
            try:
                return self._call(connection, method, path, body)
            except (OSError, http.client.HTTPException) as error:
                raise BenchError(f"admin API: {method} {path}: {error!r}") from error

    @staticmethod
    def _call(connection: http.client.HTTPConnection, method: str, path: str, body: object) -> Any:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        headers = {} if body is None else {"content-type": kind}
        connection.request(method, path, None if body is None else raw, headers)
        response = connection.getresponse()
        said = response.read()
        if response.status >= 300:
            raise BenchError(f"admin API: {method} {path} answered {response.status}: {said!r}")
        answer = json.loads(said) if said else {}
        if answer.get("applied") is False:
            raise BenchError(f"admin API: {method} {path}: the engine does not serve it: {said!r}")
        return answer

    def deploy(self, name: str, component: bytes, public: bool = False, **more: object) -> None:
        """Uploads and deploys one function at /NAME; `more` are fields of the admin API."""
        self.deploy_all({name: component}.items(), public, **more)

    def deploy_all(
        self, components: Iterable[tuple[str, bytes]], public: bool = False, **more: object
    ) -> None:
        """Deploys many over one admin connection."""
        connection = _UnixConnection(self.home / "run" / "admin.sock")
        with contextlib.closing(connection):
            for name, component in components:
                digest = "sha256:" + hashlib.sha256(component).hexdigest()
                self._call(connection, "PUT", f"/v1/blobs/{digest}", component)
                function = {"component": digest, "public": public, **more}
                self._call(connection, "PUT", f"/v1/functions/{name}", function)

    def apply(self, file: Path, text: str) -> None:
        """`vedette apply` of manifests."""
        file.write_text(text)
        self.vedette("apply", "--yes", "-f", str(file))

    def tokens(self, count: int) -> tuple[str, ...]:
        """One token for each of `count` callers, an hour each, with the scope hello:read."""
        wanted = {"ttlSeconds": 3600, "scopes": ["hello:read"]}
        return tuple(
            str(self.call("POST", "/v1/tokens", {"subject": f"caller-{number}", **wanted})["token"])
            for number in range(count)
        )

    def restart_engine(self) -> float:
        """Ends the engine as a crash would and waits for its successor; seconds it took."""
        before, started = self.pid("engine"), time.monotonic()
        os.kill(before, signal.SIGTERM)
        while time.monotonic() - started < _RESTART_SECONDS:
            with contextlib.suppress(BenchError, KeyError, TypeError, ValueError):
                status = self.status()
                if self._serves(status, before):
                    return time.monotonic() - started
            time.sleep(0.05)
        raise BenchError(f"no new engine {_RESTART_SECONDS} s after SIGTERM to {before}")

    @staticmethod
    def _serves(status: Mapping[str, Any], before: int) -> bool:
        engine = status["engine"]
        served = engine and engine["digest"] == status["snapshot"]["digest"]
        return bool(served) and int(status["processes"]["engine"]["pid"]) != before

    def down(self) -> None:
        """`vedette down`; what is left after it is a defect, and is ended by its own pid."""
        supervisor = self._supervisor()
        with contextlib.suppress(BenchError):
            self.vedette("down")
        if supervisor and _alive(supervisor):
            os.kill(supervisor, signal.SIGTERM)
            _wait_gone(supervisor)

    def _supervisor(self) -> int | None:
        try:
            return self.pid("supervisor")
        except (BenchError, KeyError, TypeError, ValueError):
            return None


def up(place: Place, scheme: str, *more: str) -> Node:
    """A bare detached node on a free loopback port, `more` for `vedette up`; call it under `uninterrupted`."""
    port, home = free_port(), place.folder / "home"
    host = "localhost" if scheme == "https" else "127.0.0.1"
    listen = f"127.0.0.1:{port}" if scheme == "https" else f"http://127.0.0.1:{port}"
    options = ["--listen", listen, "--workers", str(place.workers), "--home", str(home)]
    arguments = ["up", "--detach", "--bare", *options, *more]
    shown = pinned(["vedette", *arguments], place.mode.server_cores)
    node = Node(home, f"{scheme}://{host}:{port}", " ".join(shown).replace(str(home), "$HOME"))
    try:
        _vedette(arguments, place.mode.server_cores)
    except BaseException:
        node.down()
        raise
    return node


def _vedette(arguments: Sequence[str], cores: Sequence[int] = CORES) -> str:
    command = pinned([str(VEDETTE), *arguments], cores)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"`vedette {' '.join(arguments)}` did not end: {error}") from error
    if done.returncode:
        raise BenchError(
            f"`vedette {' '.join(arguments)}` ended with {done.returncode}:\n"
            f"{(done.stderr or done.stdout)[-1500:]}"
        )
    return done.stdout


def secured(place: Place) -> Server:
    """All stages on: TLS 1.3, token, the node's policy and 19 more, `hello` and a static route, each with the
    firewall and without.
    """
    node = up(place, "https")
    try:
        node.deploy("hello", place.component.read_bytes(), waf=UNJUDGED)
        node.deploy("guarded", place.component.read_bytes())
        node.deploy("unguarded", place.component.read_bytes(), waf=UNJUDGED)
        node.call("PUT", "/v1/policies/bench.cedar", {"text": POLICIES.read_text()})
        node.apply(place.folder / "bench.yaml", MANIFEST.format(origin=place.origin, more=""))
        tokens = node.tokens(CALLERS)
    except BaseException:
        node.down()
        raise
    endpoints = {
        "function": Endpoint(f"{node.url}/hello", tokens[:1]),
        "varied": Endpoint(f"{node.url}/hello", tokens, tuple(_paths())),
        "static": Endpoint(f"{node.url}/static", tokens[:1]),
        "proxy": Endpoint(f"{node.url}/proxy", body=KILOBYTE),
        "open": Endpoint(f"{node.url}/open"),
        "flooded": Endpoint(f"{node.url}/flooded"),
    }
    for name, path, judged in (
        ("function-judged", "/guarded", True),
        ("function-unjudged", "/unguarded", False),
        ("static-judged", "/judged", True),
        ("static-unjudged", "/static", False),
    ):
        url = f"{node.url}{path}"
        endpoints[name] = asked(url, judged=judged, tokens=tokens[:1])
        endpoints[f"{name}-again"] = asked(url, judged=judged, tokens=tokens[:1], again=True)
    return served("vedette", node, endpoints)


def blocking(place: Place) -> Server:
    """TLS 1.3, and addresses that keep offending are blocked: what the flood meets."""
    node = up(place, "https")
    try:
        manifest = MANIFEST.format(origin=place.origin, more=BLOCKING)
        node.apply(place.folder / "bench.yaml", manifest)
    except BaseException:
        node.down()
        raise
    return served("vedette-blocking", node, {"flooded": Endpoint(f"{node.url}/flooded")})


def opened(place: Place) -> Server:
    """Security off as far as it goes: plain HTTP on loopback, the functions public."""
    node = up(place, "http")
    try:
        node.deploy("hello", place.component.read_bytes(), public=True, waf=UNJUDGED)
        component = place.component_3.read_bytes()
        node.deploy("fresh", component, public=True, waf=UNJUDGED)
        node.deploy(
            "reused", component, public=True, reuse={"maxRequests": 1_000_000}, waf=UNJUDGED
        )
    except BaseException:
        node.down()
        raise
    endpoints = {
        "function": Endpoint(f"{node.url}/hello"),
        "p3-fresh": Endpoint(f"{node.url}/fresh"),
        "p3-reused": Endpoint(f"{node.url}/reused"),
    }
    return served("vedette-open", node, endpoints)


def _paths() -> Iterator[str]:
    return (f"/hello/items/{number}" for number in range(PATHS))


def served(name: str, node: Node, endpoints: Mapping[str, Endpoint]) -> Server:
    """The node as the benches see it: CPU is the engine's, `whole` is all three processes."""
    version = str(node.status()["version"])
    return Server(
        name=name,
        version=version,
        command=node.command,
        endpoints=endpoints,
        roots=lambda: (node.pid("engine"),),
        whole=lambda: (node.pid("supervisor"),),
        stop=node.down,
    )


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 15
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    if _alive(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
