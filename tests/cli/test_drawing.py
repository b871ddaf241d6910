"""Boxes drawn into a picture."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from vedette.cli import drawing
from vedette.cli.drawing import draw, require_drawing
from vedette.errors import ConfigError


def test_boxes_are_where_they_are_said_to_be_in_the_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    data = io.BytesIO()
    Image.new("RGB", (200, 100), "white").save(data, "JPEG", exif=exif)
    out = tmp_path / "out.png"
    draw(data.getvalue(), [((10.0, 60.0, 80.0, 190.0), "cat", 0.5)], out)
    with Image.open(out) as image:
        assert (image.format, image.size) == ("PNG", (100, 200))
        colour = image.getpixel((10, 120))
        assert colour != (255, 255, 255)
        assert image.getpixel((80, 150)) == colour
        assert image.getpixel((50, 190)) == colour
        assert image.getpixel((50, 120)) == (255, 255, 255), "inside there is nothing"
        assert image.getpixel((5, 20)) == (255, 255, 255), "nor outside"


def test_a_box_with_its_corners_the_wrong_way_round_is_no_failure(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.new("L", (9, 9)).save(data, "PNG")
    draw(data.getvalue(), [((8.0, 8.0, 1.0, 1.0), "x", 1.0)], tmp_path / "out.png")


def test_what_drawing_needs_is_asked_for_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_drawing(tmp_path / "out.png")
    for out in (tmp_path, tmp_path / "none" / "out.png", tmp_path / "out.jpg"):
        with pytest.raises(ConfigError) as caught:
            require_drawing(out)
        assert caught.value.code == "file_unwritable"
    monkeypatch.setattr(drawing.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError) as caught:
        require_drawing(tmp_path / "out.png")
    assert "vedette[models]" in str(caught.value.hint)
