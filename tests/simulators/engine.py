"""A stand-in for the engine's process: the same sockets and the same paths, no request path.

It listens where it is told (VEDETTE_ENGINE_CONFIG), loads active.json as the engine does, and answers `pid N` to every
connection on a public listener. It refuses a snapshot named in the file `refuse` of the engine's folder. Beside that
folder, a file `mute` keeps a second engine from saying that it is ready, and `deaf` one from ending when it hands over.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.simulators.registrar import Registrar

TOLD = {signal.SIGTERM, signal.SIGUSR1}
# Milliseconds since 1970: 2026-01-01T00:00:00Z and ten seconds later.
UPSTREAMS: list[dict[str, Any]] = [
    {
        "name": "shop",
        "requests": 12,
        "failures": 3,
        "retries": 2,
        "hedges": 4,
        "hedgesWon": 3,
        "mirrorsDropped": 1,
        "circuit": {
            "state": "open",
            "openUntil": 1_767_225_620_000,
            "opened": 2,
            "refused": 9,
            "why": "3 failures in a row",
        },
        "endpoints": [
            {
                "host": "10.0.0.7",
                "port": 8080,
                "weight": 1,
                "state": "ejected",
                "ready": False,
                "failingSince": 1_767_225_600_000,
                "ejectedUntil": 1_767_225_610_000,
                "lastError": {"time": 1_767_225_600_000, "message": "it answered 503"},
                "inFlight": 1,
                "connections": 2,
                "requests": 14,
                "failures": 5,
                "ejections": 1,
            }
        ],
    }
]
METRICS: dict[str, Any] = {
    "requests": [
        {"route": "hello", "function": "hello", "status": 200, "country": "", "count": 7},
        {"route": "hello", "status": 401, "stage": "authenticate", "count": 2},
    ],
    "durations": [{"route": "hello", "buckets": [1, 3, 0], "sumSeconds": 0.5, "count": 9}],
    "bucketBounds": [0.001, 0.01, 0.1],
    "errors": 1,
    "coldStarts": 3,
    "inspectionsKnown": 7,
    "faultDelays": 5,
    "memoryBytes": [{"function": "hello", "bytes": 65536}],
    "models": [
        {
            "model": "digits",
            "version": 3,
            "requests": 4,
            "queueMicros": 500,
            "runMicros": 1_250_000,
        }
    ],
    "modelAnswers": [
        {"model": "digits", "version": 3, "tier": "edge", "cache": "hit", "count": 5},
        {"model": "digits", "version": 3, "tier": "regional", "cache": "", "count": 2},
    ],
    "tierCalls": [
        {"tier": "regional", "cause": "", "count": 2},
        {"tier": "regional", "cause": "tier_invalid", "count": 1},
    ],
    "recordsDropped": 0,
    "logsDropped": 0,
    "inFlight": 2,
    "connections": 4,
    "connectionsTurnedAway": {"address_blocked": 6},
    "pressureLevel": 1,
    "refusals": {"challenge_required": 4},
    "challengePasses": 3,
    "upstreams": UPSTREAMS,
}


class EngineSimulator:
    """The state of the simulated engine and its answers."""

    def __init__(self, engine_dir: Path) -> None:
        self._folder = engine_dir
        self._started = time.monotonic()
        self.digest: str | None = None
        self.generation: int | None = None
        self.error: str | None = None
        self.tls_loads = 0
        self.ahead: list[dict[str, str]] = []
        self.told: list[str] = []
        self.looks = 0
        self.posture: dict[str, Any] = {"version": 0, "facts": []}
        self.unready: list[str] = []
        self.lists: list[dict[str, Any]] = []
        self.registrar = Registrar()
        self.svids: dict[str, Any] = {}
        self._load_active()

    def _load_active(self) -> None:
        try:
            active = json.loads((self._folder / "active.json").read_bytes())
            self._load(active["digest"], active["generation"])
        except (OSError, ValueError, KeyError) as error:
            self.error = f"snapshot_invalid: {error}"

    def _load(self, digest: str, generation: int) -> None:
        name = digest.removeprefix("sha256:")
        envelope = json.loads((self._folder / "snapshots" / f"{name}.json").read_bytes())
        payload = base64.b64decode(envelope["payload"])
        if hashlib.sha256(payload).hexdigest() != name:
            raise ValueError("the payload does not have its digest")
        refused = self._folder / "refuse"
        if refused.exists() and (refused.read_text() or digest) == digest:
            raise ValueError("told to refuse")
        for function in json.loads(payload)["functions"]:
            component = function["component"].removeprefix("sha256:")
            if not list((self._folder / "compiled").glob(f"*/{component}.cwasm")):
                raise ValueError(f"no machine code for {function['name']}")
        self.digest, self.generation, self.error = digest, generation, None
        self._settle(json.loads(payload)["identity"])
        sidecars = json.loads(payload).get("sidecars") or []
        self.registrar.serve_only({one["name"] for one in sidecars})

    def _settle(self, identity: dict[str, Any]) -> None:
        """Forgets what the snapshot refuses, as the engine does."""
        self.told.append("apply")
        serials = {
            (each["name"], one) for each in identity["authorities"] for one in each["revoked"]
        }
        named = {
            *(("token", one) for one in identity["revokedTokens"]),
            *(("spiffeId", one) for one in identity.get("revokedSpiffeIds", ())),
            *(("trustDomain", one) for one in identity.get("revokedTrustDomains", ())),
        }

        def is_held(row: dict[str, str]) -> bool:
            if row["kind"] == "certificate":
                return (row["authority"], row["serial"]) in serials
            name = f"{row['issuer']}#{row['id']}" if row["kind"] == "token" else ""
            return (row["kind"], name or row.get("id") or row["name"]) in named

        self.ahead = [row for row in self.ahead if not is_held(row)]

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """What the engine answers on its socket."""
        path, _, asker = path.partition("?")
        self.looks += asker == "control"
        if (method, path) == ("GET", "/status"):
            return 200, self.status()
        if (method, path) == ("GET", "/metrics"):
            return 200, METRICS
        if (method, path) == ("GET", "/upstreams"):
            return 200, {"upstreams": UPSTREAMS}
        if (method, path) == ("POST", "/tls"):
            self.tls_loads += 1
            return 200, {}
        if (method, path) == ("POST", "/svids"):
            self.svids = json.loads((self._folder / "svids.json").read_bytes())["svids"]
            return 200, {}
        if (method, path) == ("POST", "/posture"):
            envelope = json.loads((self._folder / "posture.json").read_bytes())
            self.posture = json.loads(base64.b64decode(envelope["payload"]))
            return 200, {}
        if (method, path) == ("POST", "/revoke"):
            self.told.append("revoke")
            rows = json.loads(body)["revoke"]
            self.ahead.extend(row for row in rows if row not in self.ahead)
            return 200, {}
        if (method, path) == ("GET", "/revoked"):
            return 200, {"revoked": self.ahead}
        if (method, path) == ("POST", "/apply"):
            return self._apply(json.loads(body))
        return 404, {"error": "not_found", "message": path}

    def _apply(self, wish: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        try:
            self._load(wish["digest"], wish["generation"])
        except (OSError, ValueError) as error:
            return 422, {"error": "snapshot_invalid", "message": str(error)}
        return 200, {"digest": self.digest, "generation": self.generation}

    def status(self) -> dict[str, Any]:
        """The answer to GET /status."""
        return {
            "pid": os.getpid(),
            "version": "simulator",
            "digest": self.digest,
            "generation": self.generation,
            "error": self.error,
            "engineKey": "simulated",
            "allocator": "pooling",
            "allocatorReason": None,
            "pagemapScan": True,
            "landlock": "enforced",
            "seccomp": "enforced",
            "listeners": [],
            "inFlight": 0,
            "draining": False,
            "uptimeSeconds": time.monotonic() - self._started,
            "unreadyUpstreams": self.unready,
            "revokedAhead": len(self.ahead),
            "policyHolds": True,
            "posture": self.posture["version"],
            "addressLists": self.lists,
            "countries": {"networks": 3, "built": 1_750_000_000},
            "pressure": {"level": "calm", "since": "2026-11-21T22:00:00.000000Z"},
            "sources": {"most": 1_000, "remembered": 2, "dropped": 0},
            "offenders": None,
        }


def _handler_of(simulator: EngineSimulator) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            length = int(self.headers.get("content-length", "0"))
            status, body = simulator.answer(self.command, self.path, self.rfile.read(length))
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _answer  # noqa: N815 - named by http.server

        def log_message(self, *_: object) -> None:
            """Says nothing."""

        def address_string(self) -> str:
            return "unix"

    return Handler


def serve_control(listener: socket.socket, simulator: EngineSimulator) -> None:
    """Serves the engine's socket until it is closed."""
    handler = _handler_of(simulator)

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if connection.recv(1, socket.MSG_PEEK) == b"\0":
                simulator.registrar.serve(connection)
            else:
                handler(connection, ("unix", 0), None)  # type: ignore[arg-type]

    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=one, args=(connection,), daemon=True).start()


def serve_public(listener: socket.socket) -> None:
    """Answers each connection with this process's pid."""
    body = f"pid {os.getpid()}".encode()
    answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"
    while True:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(answer % (len(body), body))


def take_charge(config: dict[str, Any], simulator: EngineSimulator) -> int:
    """Says that it is ready, if asked to, and waits for the lock of the engine in charge; its descriptor."""
    home = Path(config["engineDir"]).parent
    if "readyFd" in config:
        while (home / "mute").exists():
            time.sleep(0.05)
        with os.fdopen(config["readyFd"], "w") as ready:
            ready.write(json.dumps({"error": simulator.error}) + "\n")
        if simulator.error:
            sys.exit(1)
    lock = os.open(home / "spool" / "charge.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def main() -> int:
    """Runs as the engine's process would."""
    config = json.loads(os.environ["VEDETTE_ENGINE_CONFIG"])
    simulator = EngineSimulator(Path(config["engineDir"]))
    lock = take_charge(config, simulator)
    signal.pthread_sigmask(signal.SIG_BLOCK, TOLD)  # before the threads, which inherit it
    for listener in config["listeners"]:
        for number in listener["fds"]:
            public = socket.socket(fileno=number)
            public.setblocking(True)  # one thread each, here
            threading.Thread(target=serve_public, args=(public,), daemon=True).start()
    control = socket.socket(fileno=config["controlFd"])
    threading.Thread(target=serve_control, args=(control, simulator), daemon=True).start()
    print("simulated engine serves", flush=True)
    if signal.sigwait(TOLD) == signal.SIGUSR1:
        os.close(lock)
        while (Path(config["engineDir"]).parent / "deaf").exists():
            time.sleep(0.05)
    return 0


if __name__ == "__main__":
    sys.exit(main())
