"""go-spiffe v2, unmodified: it fetches, verifies, watches a rotation and is denied after redaction."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.components import MINUTES
from tests.control.workload.conftest import DOMAIN, Served


@pytest.fixture
def running(spiffe_go: Path, served: Served) -> Iterator[subprocess.Popen[str]]:
    # Eight minutes ago, so that the client, which has a clock of its own, finds both SVIDs valid.
    served.clock.ahead = timedelta(minutes=-8)
    served.put("shop", hint="internal", jwt_ttl_seconds=3_600)
    with subprocess.Popen(
        [str(spiffe_go)],
        env={**os.environ, "SPIFFE_ENDPOINT_SOCKET": served.address},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as started:
        yield started
        started.kill()


def next_line(running: subprocess.Popen[str]) -> dict[str, Any]:
    assert running.stdout is not None
    text = running.stdout.readline()
    assert text, "the program ended"
    told: dict[str, Any] = json.loads(text)
    return told


@pytest.mark.timeout(10 * MINUTES)
def test_it_fetches_verifies_and_watches(served: Served, running: subprocess.Popen[str]) -> None:
    shop = f"spiffe://{DOMAIN}/shop"
    fetched = next_line(running)
    assert fetched["event"] == "fetched", fetched
    assert (fetched["jwt"], fetched["domains"]) == (shop, [DOMAIN])
    assert "InvalidArgument" in fetched["refused"]
    first = next_line(running)
    assert (first["event"], first["ids"], first["hint"]) == ("x509", [shop], "internal"), first
    served.clock.ahead = timedelta()  # past half of fifteen minutes
    second = next_line(running)
    assert (second["event"], second["ids"]) == ("x509", [shop]), second
    assert second["serial"] != first["serial"]
    served.put("a-billing")
    assert next_line(running)["ids"] == [f"spiffe://{DOMAIN}/a-billing", shop]
    served.workloads.remove("shop")
    told = next_line(running)
    while told.get("ids") != [f"spiffe://{DOMAIN}/a-billing"]:
        told = next_line(running)
    served.workloads.remove("a-billing")
    told = next_line(running)
    while told["event"] == "x509":  # the CRL came too
        told = next_line(running)
    assert told["event"] == "error"
    assert "PermissionDenied" in told["error"]
