"""Two whole nodes of real processes: one serves, the other follows, over a rotation and the death of control."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from tests.control.conftest import simulated_options

from vedette.control.client import ControlClient
from vedette.control.supervisor import launch
from vedette.errors import VedetteError
from vedette.store.home import Home

PATIENCE = 120.0


@pytest.fixture
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ControlClient, ...]]:
    with contextlib.ExitStack() as started:
        clients = []
        for name in ("edge-1", "edge-2"):
            home = Home(tmp_path_factory.mktemp("n"))
            started.callback(launch.stop, home, patience=10.0)
            launch.launch(home, simulated_options(name=name))
            launch.wait_until_ready(home)
            clients.append(ControlClient(home))
        yield tuple(clients)


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(VedetteError):
            if holds():
                return
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_one_node_follows_another(nodes: tuple[ControlClient, ...]) -> None:
    one, two = nodes
    domain = one.get("/v1/status")["trustDomain"]
    wish = {"listen": "127.0.0.1:0", "profile": "https_spiffe"}
    served = one.put("/v1/federation/endpoint", wish)
    url = f"https://{served['address']}/bundle"
    document = one.get_bytes("/v1/bundle").decode()
    two.put(f"/v1/bundles/{domain}", {"document": document})
    followed = two.put(f"/v1/federation/followed/{domain}", {"url": url, "profile": "https_spiffe"})
    assert followed["error"] is None

    def authorities() -> int:
        two.post(f"/v1/federation/followed/{domain}/refresh", {})
        (found,) = [each for each in two.get("/v1/bundles") if each["trustDomain"] == domain]
        return int(found["x509Authorities"])

    assert authorities() == 1
    one.post("/v1/ca/rotate", {"now": True})
    assert authorities() == 2
    pid = one.get("/v1/status")["processes"]["control"]["pid"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: one.get("/v1/status")["processes"]["control"]["pid"] != pid)
    eventually(lambda: one.get("/v1/federation")["endpoint"]["error"] is None)
    eventually(lambda: authorities() == 2)
    status = two.get("/v1/status")["federation"]
    assert [each["url"] for each in status["followed"]] == [url]
    lines = [json.loads(line) for line in two.get_bytes("/v1/records?kind=admin").splitlines()]
    assert ("follow bundle", f"{domain} {url}") in [
        (line["action"], line.get("target")) for line in lines
    ]
    two.delete(f"/v1/bundles/{domain}")
    assert two.get("/v1/federation")["followed"] == []
