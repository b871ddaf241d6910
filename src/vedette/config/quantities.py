"""Sizes as people write them, and as bytes.

Owns: the spelling of sizes. Here 1 KB = 1 KiB = 1024 bytes, as for memory in every tool beside us
(JVM, PHP, nginx); nothing in this product is sold by the decimal megabyte. Must not: know which
setting a size belongs to.
"""

from __future__ import annotations

import re
from typing import Final

from vedette.errors import ConfigError

_UNITS: Final = {"G": 1 << 30, "M": 1 << 20, "K": 1 << 10}
_SIZE = re.compile(r"(\d{1,15})\s?(?:([KMG])(?:i?B)?|B)?\Z", re.IGNORECASE | re.ASCII)


def parse_size(text: str) -> int:
    """The bytes of a size such as 512KB, 64MB, 1GiB or 1048576. Raises `ConfigError` invalid_size."""
    match = _SIZE.match(text)
    if match is None:
        raise ConfigError("invalid_size", f"{text!r} is not a size")
    amount, unit = match.groups()
    return int(amount) * _UNITS.get((unit or "").upper(), 1)


def format_size(size: int) -> str:
    """The shortest exact text for `size` bytes: 67108864 is `64MB`, 1000 is `1000B`."""
    for unit, scale in _UNITS.items():
        if size and size % scale == 0:
            return f"{size // scale}{unit}B"
    return f"{size}B"
