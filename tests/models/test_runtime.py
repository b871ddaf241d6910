"""The library that runs models is found in a package that is never imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vedette.errors import CATALOGUE, ConfigError
from vedette.models.runtime import RUNTIMES, Runtime, library_in, library_of


def of(package: str) -> Runtime:
    return RUNTIMES["onnx"]._replace(package=package)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that must not be imported."""
    folder = tmp_path / "installed" / "some_runtime"
    (folder / "capi").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder


def test_the_library_is_the_file_behind_the_links(package: Path) -> None:
    library = package / "capi" / "libonnxruntime.so.1.32.0"
    library.write_bytes(b"")
    (package / "capi" / "libonnxruntime.so").symlink_to(library.name)
    (package / "capi" / "libonnxruntime_providers_shared.so").write_bytes(b"")
    assert library_in(of("some_runtime")) == library
    assert "some_runtime" not in sys.modules


@pytest.mark.parametrize("name", ["some_runtime", "no_such_package"])
def test_a_package_or_library_that_is_not_there_is_told_with_what_to_install(
    package: Path, name: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        library_in(of(name))
    assert caught.value.code == "runtime_missing"
    assert "pip install 'vedette[models]'" in CATALOGUE["runtime_missing"].hint


def test_a_package_that_is_installed_later_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError):
        library_in(of("late_runtime"))
    capi = tmp_path / "late_runtime" / "capi"
    capi.mkdir(parents=True)
    (capi.parent / "__init__.py").write_text("")
    (capi / "libonnxruntime.so.1").write_bytes(b"")
    assert library_in(of("late_runtime")) == capi / "libonnxruntime.so.1"


@pytest.mark.parametrize(
    ("format_", "file"), [("onnx", "libonnxruntime.so"), ("tflite", "libLiteRt.so")]
)
def test_each_format_has_its_library_in_a_package_that_stays_unimported(
    format_: str, file: str
) -> None:
    before = set(sys.modules)
    assert library_of(format_).name.startswith(file)
    assert RUNTIMES[format_].package not in set(sys.modules) - before


def test_what_is_missing_is_told_with_the_extra_of_that_format(package: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        library_in(RUNTIMES["tflite"]._replace(package="no_such_package"))
    assert "pip install 'vedette[models-tflite]'" in str(caught.value.hint)
