"""Pictures that are drawn here, and their bytes.

Owns: what is on them. Must not: read a file.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def picture(width: int, height: int) -> Image.Image:
    """Curves and edges in colours, so that a wrong filter shows."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    red = 127 + 120 * np.sin(x / 7) * np.cos(y / 11)
    green = ((x // 9 + y // 13) % 2) * 200 + 20
    blue = 255 * (x + y) / (width + height)
    channels = np.stack([red, green, blue], -1).clip(0, 255)
    return Image.fromarray(channels.astype(np.uint8))


def encoded(image: Image.Image, form: str = "PNG", **more: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, form, **more)
    return data.getvalue()
