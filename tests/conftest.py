"""Fixtures every test may use: the built guests and the checkout's own places."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.guests import GuestBuildError, Guests, build_guests

ROOT = Path(__file__).parents[1]


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
