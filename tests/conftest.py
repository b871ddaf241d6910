"""Fixtures every test may use: the built guests and the checkout's own places."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from tests.guests import GuestBuildError, Guests, build_guests

ROOT = Path(__file__).parents[1]

# A shell that runs the tests in the background has them ignore SIGINT, and what they start would inherit that.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Every command and every process of a node is a Python of its own: without kept bytecode each compiles all of Vedette.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the checkout under test."""
    return ROOT


@pytest.fixture(scope="session")
def guests() -> Guests:
    """The guest components, built once."""
    try:
        return build_guests()
    except GuestBuildError as error:
        pytest.fail(str(error), pytrace=False)
