"""A home folder for tests, and what to put into it."""

from __future__ import annotations

from pathlib import Path

from vedette.ids import digest_of
from vedette.store.home import Home


def home_in(folder: Path) -> Home:
    """A home with every folder made."""
    home = Home(folder / "home")
    home.create()
    return home


def envelope(number: int) -> tuple[str, bytes]:
    """Distinct content and its digest; the store does not look inside."""
    data = b'{"envelope":%d}' % number
    return digest_of(data), data
