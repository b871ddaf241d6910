"""Sizes, hosts and paths as people write them."""

from __future__ import annotations

import pytest

from vedette.config.quantities import format_size, parse_size
from vedette.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64MB", 64 << 20),
        ("64MiB", 64 << 20),
        ("64m", 64 << 20),
        ("1 GB", 1 << 30),
        ("512K", 512 << 10),
        ("7", 7),
        ("7B", 7),
    ],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "1.5GB", "1TB", "1MBs", "٣MB", "1MB\n"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_size(text)
    assert caught.value.code == "invalid_size"


def test_a_size_is_written_exactly() -> None:
    assert [format_size(size) for size in (0, 1_000, 1_024, 64 << 20)] == [
        "0B",
        "1000B",
        "1KB",
        "64MB",
    ]
