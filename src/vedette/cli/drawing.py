"""Boxes drawn into a picture.

Owns: colours, and what is written beside a box. Pillow is needed for this alone, and imported when it is. Must not: ask
a model.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vedette.errors import ConfigError

Box = tuple[tuple[float, float, float, float], str, float]
_COLOURS: Final = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324")


def require_drawing(out: Path) -> None:
    """What drawing needs is there. Raises `ConfigError` tool_missing, file_unwritable."""
    if importlib.util.find_spec("PIL") is None:
        hint = "Run: pip install 'vedette[models]'"
        raise ConfigError("tool_missing", "drawing needs Pillow, which is not installed", hint)
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise ConfigError("file_unwritable", f"cannot write {out}")
    if out.suffix.lower() != ".png":
        raise ConfigError("file_unwritable", f"{out}: what is drawn is a PNG", "Call it .png.")


def draw(picture: bytes, boxes: Sequence[Box], out: Path) -> None:
    """Writes the picture, turned upright as its EXIF says, with boxes. Raises `ConfigError` file_unwritable."""
    import io

    from PIL import Image, ImageDraw, ImageOps

    with Image.open(io.BytesIO(picture), formats=("JPEG", "PNG")) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    drawing = ImageDraw.Draw(image)
    width = max(1, round(max(image.size) / 400))
    labels = sorted({label for _, label, _ in boxes})
    for (x1, y1, x2, y2), label, score in boxes:
        colour = _COLOURS[labels.index(label) % len(_COLOURS)]
        drawing.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=colour, width=width)
        text = f"{label} {score:.2f}"
        left, top, right, bottom = drawing.textbbox((x1 + width, y1 + width), text)
        drawing.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill=colour)
        drawing.text((x1 + width, y1 + width), text, fill="white")
    try:
        image.save(out, format="PNG")
    except OSError as error:
        raise ConfigError("file_unwritable", f"cannot write {out}: {error.strerror}") from None
