"""What is a component by its first bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from vedette.errors import ConfigError
from vedette.functions.admit import MAX_COMPONENT_BYTES, admit, read_component
from vedette.ids import digest_of

COMPONENT = b"\0asm\x0d\x00\x01\x00"


def test_a_component_is_admitted_with_its_digest() -> None:
    admitted = admit(COMPONENT + b"rest")
    assert admitted.digest == digest_of(COMPONENT + b"rest")
    assert admitted.size == 12
    assert "rest" not in repr(admitted)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "not_a_component"),
        (b"hello", "not_a_component"),
        (b"(component)", "not_a_component"),
        (b"\0asm", "not_a_component"),
        (b"\0asm\x0d\x00\x02\x00", "not_a_component"),
        (b"\0asm\x01\x00\x00\x00", "core_module"),
        (b"\x7fELF\x02\x01\x01\x00" + b"\0" * 56, "native_binary"),
        (b"\x7fELF\x02\x01\x01\xc8" + b"\0" * 56, "precompiled_refused"),
        (b"\x7fELF", "native_binary"),
    ],
)
def test_anything_else_is_refused_by_name(data: bytes, code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        admit(data, "thing.wasm")
    assert caught.value.code == code
    assert "thing.wasm" in caught.value.message


def test_two_hundred_megabytes_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "big.wasm"
    with path.open("wb") as file:
        file.write(COMPONENT)
        file.truncate(200 << 20)
    with pytest.raises(ConfigError) as caught:
        read_component(path)
    assert caught.value.code == "component_too_large"
    assert str(200 << 20) in caught.value.message


def test_the_limit_itself_is_allowed() -> None:
    assert admit(COMPONENT.ljust(MAX_COMPONENT_BYTES, b"\0")).size == MAX_COMPONENT_BYTES
    with pytest.raises(ConfigError):
        admit(COMPONENT.ljust(MAX_COMPONENT_BYTES + 1, b"\0"))


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.wasm", tmp_path):
        with pytest.raises(ConfigError) as caught:
            read_component(path)
        assert caught.value.code == "component_missing"
