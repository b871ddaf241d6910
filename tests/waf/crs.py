"""The Core Rule Set and its regression tests, where `make crs` put them."""

from __future__ import annotations

from vedette.policy.coreruleset import (
    CHECKSUM,
    FOLDER,
    MISSING,
    MODULE,
    RULES,
    SETUP,
    TESTS,
    VERSION,
    FetchError,
    content_checksum,
    unpack,
)

__all__ = [
    "CHECKSUM",
    "FOLDER",
    "MISSING",
    "MODULE",
    "RULES",
    "SETUP",
    "TESTS",
    "VERSION",
    "FetchError",
    "content_checksum",
    "unpack",
]
