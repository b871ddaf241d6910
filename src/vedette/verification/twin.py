"""The twin: a scratch node of the same version, started as `vedette up` starts one, on which checks may do anything.

Owns: its home in a temporary folder, what is deployed and permitted on it, the service behind it, and its end. Must
not: share a key, an address or a file with the node that is verified.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vedette import processes
from vedette.config.manifests import ManifestObject
from vedette.config.model import wire_value
from vedette.config.yaml_source import parse_documents
from vedette.control.client import ControlClient, segment
from vedette.control.supervisor import launch
from vedette.functions.admit import read_component
from vedette.store.home import Home
from vedette.verification.forgery import Forger
from vedette.verification.namespaces import Outlet
from vedette.verification.place import Place
from vedette.verification.records import Line, Records
from vedette.verification.service import Service
from vedette.verification.web import Answer, Header, ask, bearer

NAME: Final = "twin"
SITE: Final = "verify.invalid"
MESH: Final = "mesh.invalid"
PROBE: Final = Path(__file__).with_name("probe.wasm")
_STOP_PATIENCE: Final = 15.0
_TIDYING_ROUNDS: Final = 3

_MANIFEST: Final = """\
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: service}}
spec: {{url: "http://127.0.0.1:{port}"}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: orders}}
spec:
  rules:
    - matches: [{{path: {{value: /orders}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: service}}]
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: billing}}
spec:
  rules:
    - matches: [{{path: {{value: /billing}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: service}}]
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: live}}
spec:
  rules:
    - matches: [{{path: {{value: /live}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: service}}]
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: fixed}}
spec:
  public: true
  rules: [{{matches: [{{path: {{value: /fixed}}}}], static: {{body: fixed}}}}]
"""
POLICY: Final = """\
@id("alice-reads-orders")
permit (principal == Subject::"{issuer}#alice", action == Action::"invoke", resource == Route::"orders")
when {{ context.method == "GET" && (context.path == "/orders" || context.path like "/orders/mine*") }};
@id("bob-writes-billing")
permit (principal == Subject::"{issuer}#bob", action == Action::"invoke", resource == Route::"billing")
when {{ context.method == "POST" }};
@id("shop-reads-orders")
permit (principal == Workload::"spiffe://{mesh}/shop", action == Action::"invoke", resource == Route::"orders")
when {{ context.method == "GET" }};
@id("live-callers")
permit (principal is Subject, action == Action::"invoke", resource == Route::"live")
when {{ principal.issuer == "{issuer}" && ["alice", "mallory"].contains(principal.subject) }};
@id("live-workloads")
permit (principal is Workload, action == Action::"invoke", resource == Route::"live")
when {{ [Workload::"spiffe://{mesh}/shop", Workload::"spiffe://{mesh}/thief"].contains(principal) }};
@id("live-devices")
permit (principal is Subject, action == Action::"invoke", resource == Route::"live")
when {{ principal.issuer == "{issuer}" && ["daisy", "erin"].contains(principal.subject)
  && context.posture.contains("disk-encrypted") }};
@id("alice-calls-the-probe")
permit (principal == Subject::"{issuer}#alice", action == Action::"invoke", resource == Function::"probe");
@id("alice-calls-the-limited")
permit (principal == Subject::"{issuer}#alice", action == Action::"invoke", resource == Function::"limited");
@id("alice-calls-the-neighbour")
permit (principal == Subject::"{issuer}#alice", action == Action::"invoke", resource == Function::"neighbour");
"""


@dataclass(frozen=True, slots=True)
class TwinOptions:
    """How the twin is started; other commands are for the tests of the checks, which switch defences off."""

    engine_command: Sequence[str] = field(
        default_factory=lambda: processes.module_command("vedette.verification.inside")
    )
    control_command: Sequence[str] = field(
        default_factory=lambda: processes.module_command("vedette.control.process")
    )
    listen: str = "127.0.0.1:0"
    tls_min_version: str | None = None


@dataclass(slots=True)
class Twin:
    """A running twin. `outlet` is None where no network namespace could be had."""

    place: Place
    service: Service
    mesh: Forger
    """The authority of another trust domain, whose workloads the twin knows."""
    folder: Path
    records: Records
    outlet: Outlet | None = None
    kept: dict[str, Any] = field(default_factory=dict)
    """What the checks of before left for later ones: `requests`, ids that must be in the audit log."""

    @property
    def client(self) -> ControlClient:
        """Its admin API."""
        return self.place.client

    def token(self, subject: str, seconds: int = 3600) -> str:
        """A token of the twin's own."""
        wish = {"subject": subject, "ttlSeconds": seconds}
        return str(self.client.post("/v1/tokens", wish)["token"])

    def ask(
        self,
        target: str,
        subject: str | None = None,
        *,
        method: str = "GET",
        headers: Sequence[Header] = (),
        credential: Path | None = None,
    ) -> Answer:
        """One request, with a fresh token of `subject` or none."""
        proof = [] if subject is None else [bearer(self.token(subject))]
        answer = ask(
            self.place.tls,
            target,
            method=method,
            headers=[*proof, *headers],
            credential=credential,
        )
        if answer.request_id:
            self.kept.setdefault("requests", []).append(answer.request_id)
        return answer

    def record(self, answer: Answer) -> Line:
        """The record of an answer; empty when there is none."""
        return self.records.of(answer.request_id)

    def handshake_record(self, known: int) -> Line:
        """The record of a handshake that was refused after `known` of them."""
        found = self.records.find(lambda _line: len(self._handshakes()) > known)
        return self._handshakes()[-1] if found and len(self._handshakes()) > known else {}

    def handshakes(self) -> int:
        """How many handshakes were refused so far."""
        self.records.lines()
        return len(self._handshakes())

    def _handshakes(self) -> list[Line]:
        return [line for line in self.records.lines() if line.get("protocol") == "TLS"]

    def set_policy(self, name: str, text: str) -> None:
        """Sets a policy file."""
        self.client.put(f"/v1/policies/{segment(name)}", {"text": text})

    def remove_policy(self, name: str) -> None:
        """Takes a policy file away."""
        self.client.delete(f"/v1/policies/{segment(name)}")

    def stop(self) -> None:
        """Stops its node; the home stays until the twin is left."""
        launch.stop(self.place.home, _STOP_PATIENCE)


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for a twin (short: socket paths have a limit), from which every process is gone in the end."""
    usual = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="vd-verify-", dir=usual if len(usual) < 60 else "/tmp"))
    try:
        yield folder
    finally:
        with undisturbed():
            for home in sorted(folder.glob("node*")):
                launch.stop(Home(home), _STOP_PATIENCE)
            for _ in range(_TIDYING_ROUNDS):  # of what was only just being started
                processes.end_all(processes.naming(folder), _STOP_PATIENCE)
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """A second Ctrl-C does not cut tidying up short, which takes seconds at most. On another thread than the main one
    it never would.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextlib.contextmanager
def running(
    folder: Path, options: TwinOptions | None = None, outlet: Outlet | None = None
) -> Iterator[Twin]:
    """A twin in `folder`, set up. Raises `VedetteError` when it does not start."""
    options = options or TwinOptions()
    home = Home(folder / "node")
    service = Service()
    launched = None
    try:
        launched = launch.launch(home, _launch_options(options))
        launch.wait_until_ready(home)
        twin = Twin(
            Place.of(home),
            service,
            Forger(folder, MESH),
            folder,
            Records(home.spool_requests),
            outlet,
        )
        _set_up(twin)
        yield twin
    finally:
        service.close()
        if launched is not None:
            launch.stop(home, _STOP_PATIENCE)


def _launch_options(options: TwinOptions) -> launch.LaunchOptions:
    return launch.LaunchOptions(
        listen=[options.listen],
        metrics="127.0.0.1:0",
        name=NAME,
        site=SITE,
        workers=1,
        tls_min_version=options.tls_min_version,
        foreground=True,
        engine_command=options.engine_command,
        control_command=options.control_command,
    )


def _set_up(twin: Twin) -> None:
    apply(twin.client, _MANIFEST.format(port=twin.service.port))
    twin.set_policy("default.cedar", POLICY.format(issuer=twin.place.issuer, mesh=MESH))
    authority = {"certificates": twin.mesh.pem, "trustDomain": MESH}
    twin.client.put("/v1/authorities/mesh", authority)
    deploy_probe(twin.client, twin.service.port, twin.service.trap_port)


def apply(client: ControlClient, text: str) -> None:
    """Plans and applies manifests that name no file."""
    objects = [
        wire_value(ManifestObject.of(document, "twin"))
        for document in parse_documents(text.encode(), "twin")
    ]
    planned = client.post("/v1/plan", {"objects": objects, "prune": False})
    parts = ("base", "ground", "payload", "texts", "applied", "feeds")
    client.post("/v1/apply", {name: planned[name] for name in parts if name in planned})


def deploy_probe(client: ControlClient, port: int, trap: int) -> str:
    """Deploys the function that calls out: to the service, and to the trap by the name `localhost`; its digest."""
    return deploy(client, "probe", [f"http://127.0.0.1:{port}", f"http://localhost:{trap}"])


def deploy(client: ControlClient, name: str, allowed: Sequence[str]) -> str:
    """Deploys the probe as the function `name`, which may call hosts; its digest."""
    admitted = read_component(PROBE)
    client.upload(admitted.digest, PROBE, lambda _count: None)
    wish = {"component": admitted.digest, "allowedHosts": list(allowed)}
    client.put(f"/v1/functions/{name}", wish)
    return admitted.digest


def active_envelope(place: Place) -> dict[str, Any]:
    """The signed snapshot that is active, as its file has it."""
    digest = place.client.get("/v1/status")["snapshot"]["digest"].removeprefix("sha256:")
    found: dict[str, Any] = json.loads((place.home.snapshots / f"{digest}.json").read_bytes())
    return found
