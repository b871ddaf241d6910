"""A real node for the tests: started, asked and stopped through the `vedette` command, as a person would.

Owns: the home folder, the life of the node, and its admin socket. Must not: know what a test expects.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from tests import commands
from tests.e2e.spool import Line, Spool
from tests.e2e.wire import Endpoint

PROGRAM = Path(sys.executable).with_name("vedette")
GREETING = b"Hello from Vedette\n"

_ALL = """\
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: service}}
spec: {{url: "http://127.0.0.1:{port}"}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: all}}
spec:
  public: true
  waf: {{mode: "off"}} # what is tested is how requests are read, and attacks are among them
  rules:
    - backendRefs: [{{kind: Upstream, group: vedette.dev, name: service}}]
"""


class Node:
    """One node. `prefix` enters another mount namespace for every command; `view` is its root seen from here."""

    def __init__(
        self, home: Path, flags: Sequence[str] = (), prefix: Sequence[str] = (), view: str = ""
    ) -> None:
        self.home = home
        self.flags = tuple(flags)
        self._prefix = tuple(prefix)
        self._seen_home = Path(f"{view}{home}")
        self.requests = Spool(self._seen_home / "spool" / "requests", "request")
        self.egress = Spool(self._seen_home / "spool" / "requests", "egress")
        self.logs = Spool(self._seen_home / "spool" / "logs", "log")
        self.ca_file = Path(tempfile.mkdtemp(prefix="vd-ca-", dir="/tmp")) / "ca.pem"
        self._endpoint: Endpoint | None = None
        self._token: str | None = None

    def path(self, *parts: str) -> Path:
        """A path in the home folder, as this process sees it."""
        return self._seen_home.joinpath(*parts)

    # --- life

    def start(self) -> Node:
        """`vedette up --detach`; returns when the node answers. Fails with what the node said."""
        listen = [] if "--listen" in self.flags else ["--listen", "127.0.0.1:0"]
        self.run("up", "--detach", "--bare", "--metrics", "127.0.0.1:0", *listen, *self.flags)
        self.run("ca", "--out", str(self.ca_file))
        self._endpoint = None
        return self

    def stop(self) -> None:
        """`vedette down`; never raises, so that one broken test does not hide another."""
        try:
            self.run("down", check=False)
        except subprocess.TimeoutExpired:
            self._kill()

    def discard(self) -> None:
        """Stops the node and removes everything it wrote."""
        self.stop()
        self._kill()
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.rmtree(self.ca_file.parent, ignore_errors=True)

    def _kill(self) -> None:
        try:
            supervisor = json.loads(self.path("run", "supervisor.json").read_text("utf-8"))
        except (OSError, ValueError):
            return
        for pid in _pids_in(supervisor):
            command = Path(f"/proc/{pid}/cmdline")
            if command.exists() and b"vedette" in command.read_bytes():
                os.kill(pid, 9)

    # --- commands

    def run(
        self, *arguments: str, check: bool = True, timeout: float = 180.0
    ) -> subprocess.CompletedProcess[str]:
        """One `vedette` command against this node's home. With `check`, fails on a non-zero exit code."""
        command = [*self._prefix, str(PROGRAM), *arguments, "--home", str(self.home)]
        as_a_person = self._prefix or arguments[0] == "up"
        done = (_started if as_a_person else commands.run)(command, timeout)
        assert done.returncode == 0 or not check, f"{_told(done)}\n{self.last_words()}"
        return done

    def last_words(self) -> str:
        """The end of each process's log, for a failing test to print."""
        logs = sorted(self.path("log").glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text('utf-8')[-1500:]}" for log in logs)

    def status(self) -> dict[str, Any]:
        """What `vedette status --json` prints; from the admin API when control answers, which is quicker."""
        try:
            with self.admin() as admin:
                answer = admin.get("/v1/status")
        except httpx.TransportError:
            told: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        else:
            told = answer.raise_for_status().json()
        return told

    def pid(self, process: str) -> int:
        """The process id of the `supervisor`, the `engine` or the `control`; 0 while there is none."""
        return int(self.status()["processes"][process]["pid"] or 0)

    def resident(self) -> int:
        """Resident memory of the engine, in bytes."""
        status = Path(f"/proc/{self.pid('engine')}/status").read_text("utf-8")
        [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) * 1024

    def send_all_to(self, port: int, folder: Path) -> None:
        """Lets anybody ask anything of the plain service at this port; the manifest is written to `folder`."""
        manifest = folder / "all.yaml"
        manifest.write_text(_ALL.format(port=port), "utf-8")
        self.run("apply", "--yes", "-f", str(manifest))

    def deploy(self, component: Path, name: str, *flags: str) -> None:
        """`vedette deploy`."""
        self.run("deploy", str(component), "--name", name, *flags)

    def deploy_project(self, folder: Path) -> None:
        """`vedette deploy` of a folder with a manifest."""
        self.run("deploy", str(folder))

    def apply(self, text: str) -> None:
        """`vedette apply` of manifests, from a file."""
        file = self.ca_file.with_name("node.yaml")
        file.write_text(text, "utf-8")
        self.run("apply", "--yes", "-f", str(file))

    def set_policy(
        self, name: str, text: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """`vedette policy set`, from a file."""
        file = self.ca_file.with_name(name)
        file.write_text(text, "utf-8")
        return self.run("policy", "set", name, str(file), check=check)

    def token(self, subject: str = "tester", *flags: str) -> str:
        """A fresh token from `vedette token`."""
        return self.run("token", "--subject", subject, "--ttl", "1h", *flags).stdout.strip()

    @property
    def usual_token(self) -> str:
        """One token for everything that is not about tokens."""
        if self._token is None:
            self._token = self.token()
        return self._token

    def admin(self) -> httpx.Client:
        """A client of the admin API on its Unix socket."""
        transport = httpx.HTTPTransport(uds=str(self.path("run", "admin.sock")))
        return httpx.Client(transport=transport, base_url="http://admin", timeout=60)

    def engine(self) -> httpx.Client:
        """A client of the engine's own socket, in control's place."""
        transport = httpx.HTTPTransport(uds=str(self.path("run", "engine.sock")))
        return httpx.Client(transport=transport, base_url="http://engine", timeout=30)

    # --- addresses and records

    @property
    def endpoint(self) -> Endpoint:
        """Where the node listens; asked once."""
        if self._endpoint is None:
            address = self.status()["listeners"][0]["address"]
            host, _, port = address.rpartition(":")
            self._endpoint = Endpoint(host.strip("[]"), int(port), self.ca_file)
        return self._endpoint

    @property
    def url(self) -> str:
        """`https://localhost:PORT`."""
        return f"https://{self.endpoint.authority}"

    def record(self, request_id: str, timeout: float = 60.0) -> Line:
        """The one record of a request. Fails when there is none in time, or more than one."""
        assert request_id, "the answer carries no x-request-id"
        found = self.requests.wait_for(lambda line: line.get("requestId") == request_id, timeout)
        assert len(found) == 1, f"{len(found)} records for request {request_id}"
        return found[0]

    def log_lines(self, function: str) -> list[str]:
        """The messages that a function has logged so far."""
        return [line["message"] for line in self.logs.lines() if line["function"] == function]


def _pids_in(tree: Any) -> list[int]:
    if isinstance(tree, dict):
        own = [tree["pid"]] if isinstance(tree.get("pid"), int) else []
        return own + [pid for value in tree.values() for pid in _pids_in(value)]
    return []


def vedette(*arguments: str, timeout: float = 480.0) -> subprocess.CompletedProcess[str]:
    """A `vedette` command that needs no node, such as `build`. Fails on a non-zero exit code."""
    done = commands.run([str(PROGRAM), *arguments], timeout)
    assert done.returncode == 0, _told(done)
    return done


def _started(command: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def _told(done: subprocess.CompletedProcess[str]) -> str:
    ended = f"{' '.join(done.args)} ended with {done.returncode}"
    return f"{ended}\nstdout: {done.stdout[-2000:]}\nstderr: {done.stderr[-2000:]}"


def new_home() -> Path:
    """A fresh, short home folder: Unix socket paths must stay under 107 bytes."""
    return Path(tempfile.mkdtemp(prefix="vd-", dir="/tmp"))


def wait_until(what: str, holds: Any, timeout: float = 60.0, every: float = 0.02) -> Any:
    """Calls `holds` until it gives something true, and returns that. Fails after `timeout` seconds, naming `what`."""
    deadline = time.monotonic() + timeout
    while True:
        value = holds()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(every)
