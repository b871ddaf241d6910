"""A twin whose control has defences that can be switched off, and how long a check took to see it."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.verification.dishonest import Dishonest

from vedette.verification.listening import tcp_listeners
from vedette.verification.place import Place
from vedette.verification.twin import Twin, TwinOptions, running, scratch_folder

CONTROL = [sys.executable, "-P", str(Path(__file__).with_name("spoiled_control.py"))]


@pytest.fixture(scope="session")
def twin() -> Iterator[Twin]:
    """One twin for all tests of checks; each puts back what it took away."""
    with scratch_folder() as folder, running(folder, TwinOptions(control_command=CONTROL)) as twin:
        yield twin


@contextmanager
def switched_off(twin: Twin, defence: str) -> Iterator[None]:
    """One of control's defences is off for a while."""
    file = twin.place.home.root / "spoil"
    file.touch(0o600)
    file.write_text(defence, "utf-8")
    try:
        if defence == "listeners":
            _wait_for_a_listener(twin)
        yield
    finally:
        file.unlink()


def _wait_for_a_listener(twin: Twin) -> None:
    """Control's thread opens it when it next looks at the file."""
    deadline = time.monotonic() + 60
    while len(tcp_listeners([twin.place.pids()["control"]])) < 2:  # the metrics are the first
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def replaced(twin: Twin, address: tuple[str, int]) -> Iterator[Place]:
    """Something else stands where the twin's TLS listener should."""
    honest = twin.place
    twin.place = dataclasses.replace(honest, listeners=[("https", address)])
    try:
        yield twin.place
    finally:
        twin.place = honest


@pytest.fixture
def dishonest(twin: Twin) -> Iterator[Dishonest]:
    """A TLS server under the twin's certificate that allows everything."""
    server = Dishonest(twin.place.home.tls_certificate, twin.place.home.tls_key)
    yield server
    server.close()
