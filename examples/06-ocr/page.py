"""Draws page.png: a delivery note, as a scanner would give it."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

LINES = (
    ("DELIVERY NOTE", 44),
    ("Order 4711 of 12 March 2026", 26),
    ("Pump housing, cast iron", 26),
    ("Quantity: 24", 26),
    ("Received by Jane Doe", 26),
)


def main(file: Path) -> None:
    """Writes the picture to `file`."""
    picture = Image.new("RGB", (720, 420), "white")
    draw = ImageDraw.Draw(picture)
    top = 40
    for text, size in LINES:
        draw.text((60, top), text, fill=(40, 40, 40), font=ImageFont.load_default(size))
        top += size + 36
    picture.save(file)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("page.png"))
