"""A Workload API of real sockets, keys and files, with entries of the test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.control.conftest import Clock

from vedette.control.bootstrap import Wish, bootstrap, open_keys, read_facts
from vedette.control.supervisor import sockets
from vedette.control.workload.entries import Workloads
from vedette.control.workload.identities import Identities
from vedette.control.workload.messages import WorkloadWish
from vedette.control.workload.server import WorkloadServer
from vedette.store.home import Home

ME = f"unix:uid:{os.getuid()}"
DOMAIN = "test-node.vedette.local"


@dataclass
class Served:
    """A node's Workload API and what is behind it."""

    home: Home
    workloads: Workloads
    identities: Identities
    server: WorkloadServer
    clock: Clock

    @property
    def address(self) -> str:
        return f"unix://{self.home.workload_socket}"

    def put(self, name: str, *selectors: str, **more: object) -> None:
        """Keeps an entry for `/NAME`; without selectors for this user."""
        wish = {"path": f"/{name}", "selectors": selectors or (ME,), **more}
        self.workloads.put(name, WorkloadWish(**wish))  # type: ignore[arg-type]


@pytest.fixture
def served(home: Home) -> Iterator[Served]:
    """The API on its socket, its clock ten times a second."""
    bootstrap(home, Wish(name="test-node"))
    facts = read_facts(home)
    assert facts is not None
    clock = Clock()
    identities = Identities(home, open_keys(home, facts), clock)
    workloads = Workloads(identities.store, identities.trust_domain)
    server = WorkloadServer(home, workloads, identities, tick=0.1)
    server.start(sockets.bind_unix(home.workload_socket, 0o666))
    yield Served(home, workloads, identities, server, clock)
    server.stop()
    identities.close()
