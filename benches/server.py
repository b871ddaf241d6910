"""The words every server under test shares: where it runs, what it answers on, what it costs.

Owns: Place, Endpoint, Server, and the answer all servers give.
Must not: start anything; `peers`, `envoy` and `node` do.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from credentials import Credentials
from processes import CORES

GREETING = "Hello from Vedette\n"
KILOBYTE = "0123456789abcde\n" * 64
"""What the service behind the servers answers: 1,024 bytes."""
MESH_NAME = "service.mesh"
"""What a client asks its own sidecar for."""


class Mode(enum.Enum):
    """How the cores are shared between the server and the load."""

    PINNED = "pinned"
    """Server on one core, load on another: the mode CPU per request is read in (design 9)."""
    SHARED = "shared"
    """Both on both cores, as the kernel likes: the mode of the field notes' requests/s."""

    @property
    def server_cores(self) -> list[int]:
        """The cores the server may use."""
        return CORES[:1] if self is Mode.PINNED else CORES

    @property
    def load_cores(self) -> list[int]:
        """The cores the load generator may use."""
        return CORES[-1:] if self is Mode.PINNED else CORES


@dataclass(frozen=True)
class Place:
    """What a server needs to start: its mode, a folder of its own, and what to serve.

    `origin` is the loopback port of the service that it has behind it, on the load's core; `service` that of the
    same on the server's core.
    """

    mode: Mode
    workers: int
    folder: Path
    cache: Path
    component: Path
    component_3: Path
    """The same for WASI 0.3."""
    credentials: Credentials
    origin: int
    service: int


@dataclass(frozen=True)
class Endpoint:
    """What the load asks for, and the answer. Several paths or tokens are taken in turn, one a request."""

    url: str
    tokens: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    body: str = GREETING
    fields: Mapping[str, str] = field(default_factory=dict)
    """Further header fields of each request."""
    judged: bool | None = None
    """Whether a firewall is before it, where that is measured: then an attack is asked too."""


@dataclass(frozen=True)
class Server:
    """A running server. `roots` are asked anew each time: a restarted engine has a new pid."""

    name: str
    version: str
    command: str
    endpoints: Mapping[str, Endpoint]
    roots: Callable[[], tuple[int, ...]]
    stop: Callable[[], None]
    whole: Callable[[], tuple[int, ...]] | None = field(default=None)
    """Roots of everything the product runs, when that is more than what serves the request."""
