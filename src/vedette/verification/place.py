"""What is attacked: a running node, its addresses, its admin socket and the records it writes.

Owns: finding all of that from a home folder. Must not: attack.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from vedette.control.client import ControlClient
from vedette.control.supervisor.launch import read_node_state
from vedette.errors import UnavailableError
from vedette.store.home import Home
from vedette.verification.records import Records
from vedette.verification.web import Listener

_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(slots=True)
class Place:
    """A node that runs. Addresses are those at which this machine reaches it."""

    home: Home
    client: ControlClient
    status: dict[str, Any]
    listeners: list[tuple[str, tuple[str, int]]] = field(default_factory=list)
    """Scheme and address of each public listener."""

    @classmethod
    def of(cls, home: Home) -> Place:
        """The node at `home`. Raises `UnavailableError` node_not_running, control_away."""
        client = ControlClient(home)
        status = client.get("/v1/status")
        listeners = [
            (one["url"].partition("://")[0], reached(one["address"])) for one in status["listeners"]
        ]
        return cls(home, client, status, listeners)

    @property
    def tls(self) -> Listener:
        """The first TLS listener. Raises `UnavailableError` when there is none."""
        for scheme, (host, port) in self.listeners:
            if scheme == "https":
                return Listener(host, port, self.home.ca_certificate)
        raise UnavailableError("node_start_failed", "the node has no TLS listener to attack")

    @property
    def trust_domain(self) -> str:
        """The node's own."""
        return str(self.status["trustDomain"])

    @property
    def issuer(self) -> str:
        """The `iss` of the node's own tokens."""
        return f"spiffe://{self.trust_domain}"

    @property
    def metrics(self) -> tuple[str, int] | None:
        """Where the metrics are."""
        netloc = self.status["metrics"]["url"].partition("://")[2].partition("/")[0]
        return reached(netloc) if netloc else None

    def pids(self) -> dict[str, int]:
        """The processes of the node, by role."""
        state = read_node_state(self.home)
        roles = ("guardian", "supervisor", "engine", "control", "models")
        found = {role: getattr(state, role).pid for role in roles}
        return {role: pid for role, pid in found.items() if pid is not None}

    def records(self) -> Records:
        """The records that are written from now on."""
        return Records(self.home.spool_requests)


def reached(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`; every address of the machine is reached over loopback."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    return _ANYWHERE.get(host, host), int(port)
