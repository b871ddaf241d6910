"""The client of the engine's socket: apply a snapshot, revoke ahead of one, reload TLS, read services and metrics.

Owns: HTTP over a Unix socket with the standard library only (`UnixHTTPConnection`, also used by the CLI to reach
control), and what a refusal of the engine becomes. Must not: retry; the reconcile loop does that.
"""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from vedette.errors import ConfigError, UnavailableError

READ_TIMEOUT = 5.0  # seconds; answered from memory
CHANGE_TIMEOUT = 30.0  # a snapshot of thousands of functions is loaded


class EngineListener(TypedDict):
    """One address the engine accepts on; `scheme` is https or http."""

    name: str
    address: str
    scheme: str


class EngineStatus(TypedDict):
    """The answer of `GET /status`; `error` says why no snapshot is served, or is null."""

    pid: int
    version: str
    digest: str | None
    generation: int | None
    error: str | None
    engineKey: str
    allocator: str
    allocatorReason: str | None
    pagemapScan: bool
    landlock: str
    seccomp: str
    listeners: list[EngineListener]
    inFlight: int
    draining: bool
    uptimeSeconds: float
    unreadyUpstreams: list[str]
    revokedAhead: NotRequired[int]
    posture: NotRequired[int]
    policyHolds: NotRequired[bool]
    addressLists: NotRequired[list[dict[str, Any]]]
    countries: NotRequired[dict[str, Any] | None]
    pressure: NotRequired[dict[str, Any] | None]
    sources: NotRequired[dict[str, Any] | None]
    offenders: NotRequired[dict[str, Any] | None]


class UnixHTTPConnection(http.client.HTTPConnection):
    """An HTTP/1.1 connection to a Unix socket; `timeout` is in seconds and counts per system call."""

    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connects. Raises `OSError`."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.sock.close()
            raise


class EngineClient:
    """One engine, named by its socket. Each call is one connection, so a restarted engine needs no care.

    `timeout` in seconds replaces the usual ones.
    """

    def __init__(self, socket_path: Path, timeout: float | None = None) -> None:
        self._path = socket_path
        self._timeout = timeout

    def status(self) -> EngineStatus:
        """What the engine serves now. Raises `UnavailableError` engine_away."""
        return cast("EngineStatus", self._call("GET", "/status"))

    def look(self) -> EngineStatus:
        """The same, asked by control, so that its policy holds on (ADR 0039). Raises `UnavailableError` engine_away."""
        return cast("EngineStatus", self._call("GET", "/status?control"))

    def metrics(self) -> dict[str, Any]:
        """The engine's counters since it started. Raises `UnavailableError` engine_away."""
        return self._call("GET", "/metrics")

    def upstreams(self) -> list[dict[str, Any]]:
        """What is known of each service. Raises `UnavailableError` engine_away."""
        return cast("list[dict[str, Any]]", self._call("GET", "/upstreams")["upstreams"])

    def apply(self, digest: str, generation: int) -> None:
        """Activates a snapshot that lies in the engine's folder; returns when new requests see it.

        Raises `ConfigError` engine_refused (it keeps serving the old one), `UnavailableError` engine_away.
        """
        self._call("POST", "/apply", {"digest": digest, "generation": generation})

    def revoke(self, rows: list[dict[str, str]]) -> None:
        """Refuses what `rows` name, ahead of a snapshot that does; in force when it returns.

        Raises `ConfigError` engine_refused for too many, `UnavailableError` engine_away.
        """
        self._call("POST", "/revoke", {"revoke": rows})

    def revoked(self) -> list[dict[str, str]]:
        """What is refused ahead of a snapshot. Raises `UnavailableError` engine_away."""
        return cast("list[dict[str, str]]", self._call("GET", "/revoked")["revoked"])

    def reload_posture(self) -> None:
        """Has the facts count that lie in the engine's folder; in force when it returns. Raises as `apply` does."""
        self._call("POST", "/posture")

    def reload_svids(self) -> None:
        """Shows the SVIDs that lie in the engine's folder. Raises as `apply` does."""
        self._call("POST", "/svids")

    def reload_tls(self) -> None:
        """Serves the certificate that lies in the engine's folder. Raises as `apply` does."""
        self._call("POST", "/tls")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        usual = READ_TIMEOUT if method == "GET" else CHANGE_TIMEOUT
        connection = UnixHTTPConnection(self._path, self._timeout or usual)
        data = b"" if body is None else json.dumps(body).encode()
        try:
            connection.request(method, path, data, {"content-type": "application/json"})
            response = connection.getresponse()
            answer = response.read()  # no limit: a limit would hide an answer cut short
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError("engine_away", f"the engine does not answer: {error}") from error
        finally:
            connection.close()
        return _decode(response.status, answer)


def _decode(status: int, answer: bytes) -> dict[str, Any]:
    try:
        body = json.loads(answer) if answer else {}
    except ValueError as error:
        raise UnavailableError("engine_away", "the engine's answer is not JSON") from error
    if status == 200 and isinstance(body, dict):
        return body
    if status == 422 and isinstance(body, dict):
        reason = f"{body.get('message', 'no reason given')} ({body.get('error', 'unknown')})"
        raise ConfigError("engine_refused", f"the engine refused: {reason}")
    raise UnavailableError("engine_away", f"the engine answered {status}")
