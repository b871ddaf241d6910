"""The crate `spiffe`, unmodified: it fetches, validates, follows rotation, and is withdrawn after redaction."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509 import Certificate, load_der_x509_certificate
from tests.components import MINUTES
from tests.control.workload.conftest import DOMAIN, Served

pytestmark = pytest.mark.timeout(10 * MINUTES)
SHOP = f"spiffe://{DOMAIN}/shop"
BILLING = f"spiffe://{DOMAIN}/a-billing"


class Program:
    """The client while it runs, and what it says."""

    def __init__(self, started: subprocess.Popen[str]) -> None:
        self._started = started

    def next(self) -> dict[str, Any]:
        """The next line."""
        assert self._started.stdout is not None
        text = self._started.stdout.readline()
        assert text, "the program ended"
        told: dict[str, Any] = json.loads(text)
        return told

    def until(self, ids: list[str]) -> dict[str, Any]:
        """The first line with just these identities: a CRL makes a line of its own."""
        told = self.next()
        while told["event"] != "x509" or [each["id"] for each in told["svids"]] != ids:
            told = self.next()
        return told


@pytest.fixture
def started(spiffe_rust: Path, served: Served) -> Iterator[Program]:
    with subprocess.Popen(
        [str(spiffe_rust)],
        env={**os.environ, "SPIFFE_ENDPOINT_SOCKET": served.address},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        yield Program(child)
        child.kill()


@pytest.fixture
def program(served: Served, request: pytest.FixtureRequest) -> Program:
    """The client with an identity."""
    # Eight minutes ago, so that the client, which has a clock of its own, finds both SVIDs valid.
    served.clock.ahead = timedelta(minutes=-8)
    served.put("shop", hint="internal", jwt_ttl_seconds=3_600)
    running: Program = request.getfixturevalue("started")
    return running


def leaf(told: dict[str, Any]) -> Certificate:
    """The certificate of the default SVID, once it is proved to be of an authority told with it."""
    certificate = load_der_x509_certificate(bytes.fromhex(told["svids"][0]["chain"][0]))
    (authority,) = told["bundles"][DOMAIN]
    certificate.verify_directly_issued_by(load_der_x509_certificate(bytes.fromhex(authority)))
    return certificate


def test_it_fetches_and_validates(program: Program) -> None:
    fetched = program.next()
    assert fetched["event"] == "fetched", fetched
    (svid,) = fetched["x509"]["svids"]
    assert (svid["id"], svid["hint"]) == (SHOP, "internal")
    assert set(fetched["x509"]["bundles"]) == {DOMAIN}
    leaf(fetched["x509"])
    assert (fetched["jwt"], fetched["sourced"], fetched["hint"]) == (SHOP, SHOP, "internal")
    assert fetched["elsewhere"] == "AudienceMismatch"
    assert "another audience" in fetched["refused"]


def test_its_source_follows_rotation_and_is_withdrawn(program: Program, served: Served) -> None:
    program.next()
    first = program.until([SHOP])
    served.clock.ahead = timedelta()  # past half of fifteen minutes
    second = program.until([SHOP])
    assert leaf(second).serial_number != leaf(first).serial_number
    served.put("a-billing")
    program.until([BILLING, SHOP])
    served.workloads.remove("shop")
    program.until([BILLING])
    served.workloads.remove("a-billing")
    told = program.next()
    while told["event"] == "x509":
        told = program.next()
    assert told["event"] == "withdrawn"
    assert "no identity is issued" in told["error"]
    served.put("shop")
    assert leaf(program.until([SHOP])).serial_number != leaf(second).serial_number


def test_without_an_identity_it_is_denied(started: Program) -> None:
    failed = started.next()
    assert failed["event"] == "failed"
    assert failed["error"] == "permission denied: no identity is issued to this caller"
