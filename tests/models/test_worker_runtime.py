"""A library of ONNX Runtime that is not the one that is needed: told in our own words, before it is used."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.models import onnx_files
from tests.models.test_worker import add_model
from tests.models.workers import WAIT, inspect, worker

SOURCE = """
struct base { const void *(*api)(unsigned); const char *(*version)(void); };
static const void *api(unsigned wanted) { (void)wanted; for (;;) {} }
static const char *version(void) { return "%s"; }
static const struct base it = {api, version};
const struct base *OrtGetApiBase(void) { return %s; }
"""
"""All that is asked of a library before it is believed (`onnxruntime_c_api.h`). Who asks it for more, hangs."""


def library(folder: Path, version: str, base: str = "&it") -> Path:
    """A library that says it is this version of ONNX Runtime."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    source, made = folder / "runtime.c", folder / "libonnxruntime.so"
    source.write_text(SOURCE % (version, base))
    subprocess.run([compiler, "-shared", "-fPIC", "-o", made, source], check=True)
    return made


@pytest.mark.parametrize(
    ("version", "code", "said"),
    [
        ("1.18.1", "runtime_too_old", "is ONNX Runtime 1.18.1; 1.22 or newer is needed"),
        ("1.21.9", "runtime_too_old", "is ONNX Runtime 1.21.9; 1.22 or newer is needed"),
        ("2.0.0", "runtime_invalid", 'says that it is version "2.0.0"'),
        ("", "runtime_invalid", 'says that it is version ""'),
        ("nightly", "runtime_invalid", 'says that it is version "nightly"'),
    ],
)
def test_an_older_or_unknown_runtime_is_told_by_worker_and_inspection_and_nothing_hangs(
    tmp_path: Path, version: str, code: str, said: str
) -> None:
    runtime = library(tmp_path, version)
    with worker(tmp_path, onnx_files.add(), add_model(), runtime=runtime) as started:
        assert started.ready["ready"] is False
        assert started.ready["error"]["code"] == code
        assert said in started.ready["error"]["message"]
        assert started.process.wait(WAIT) == 1
    assert inspect(tmp_path / "blob.onnx", library=str(runtime))["error"] == started.ready["error"]


def test_a_runtime_that_gives_no_interface_is_told(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(onnx_files.add())
    said = inspect(file, library=str(library(tmp_path, "1.22.0", base="(void *)0")))
    assert said["error"]["code"] == "runtime_invalid"
