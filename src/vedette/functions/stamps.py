"""Whether a folder of fetched packages is whole, and made from the pins of now.

Owns: the stamp, written last: a folder that was broken off has none and is made again. Must not:
fetch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from vedette.ids import digest_of

_STAMP: Final = ".vedette-stamp"


def is_fresh(folder: Path, pins: Path, also: str = "") -> bool:
    """Whether `folder` was finished with these pins; `also` is what else it depends on."""
    try:
        return (folder / _STAMP).read_text("utf-8") == _key(pins, also)
    except OSError:
        return False


def stamp(folder: Path, pins: Path, also: str = "") -> None:
    """Says that `folder` is whole."""
    (folder / _STAMP).write_text(_key(pins, also), "utf-8")


def _key(pins: Path, also: str) -> str:
    return digest_of(pins.read_bytes() + also.encode())
