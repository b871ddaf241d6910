"""`vedette model quantize` of files; of models of a node it is in tests/e2e/test_model_formats.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.models import digits_files
from typer.testing import CliRunner

from vedette.cli.main import app
from vedette.cli.quantizing import part
from vedette.errors import ConfigError


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "digits.onnx"
    file.write_bytes(digits_files.perceptron())
    return file


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["model", "quantize", *arguments])


def test_a_file_becomes_a_smaller_one_and_what_was_measured_is_shown(
    model: Path, tmp_path: Path
) -> None:
    samples = digits_files.save_samples(tmp_path / "s.npz", 1300, 1797, (64,), labels=True)
    out = tmp_path / "int8.onnx"
    done = run(str(model), "--out", str(out), "--samples", str(samples))
    assert done.exit_code == 0, done.output
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert rows[0] == ["what", "before", "after", "is"]
    assert [row[0] for row in rows[1:]] == ["size", "a run, one thread"]
    assert "On 497 samples scores is right about" in done.stderr
    assert f"Wrote {out}" in done.stderr
    assert 0 < out.stat().st_size < model.stat().st_size
    told = json.loads(run(str(model), "--out", str(out), "--json").stdout)
    assert (told["method"], told["accuracy"], told["version"]) == ("dynamic", None, None)
    assert told["out"] == str(out)
    assert "accuracy was not measured" in run(str(model), "--out", str(out)).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), "request_invalid", "give --out"),
        (("--out", "o.onnx", "--promote"), "request_invalid", "no --promote"),
        (("--out", "o.onnx", "--max-drop", "x%"), "request_invalid", "'x%' is no part"),
        (("--out", "/none/o.onnx"), "file_unwritable", "/none/o.onnx"),
        (("--out", "o.onnx", "--samples", "/none"), "samples_invalid", "/none"),
        (("--out", "digits.onnx"), "request_invalid", "is the model itself, which stays"),
    ],
)
def test_a_wrong_wish_is_told_and_nothing_is_written(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    code: str,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(str(model), *arguments)
    assert isinstance(done.exception, ConfigError)
    assert (done.exception.code, words in done.exception.message) == (code, True), done.exception
    assert [each.name for each in tmp_path.iterdir()] == [model.name]


@pytest.mark.parametrize(
    ("text", "value"), [("1%", 0.01), ("0.02", 0.02), ("0", 0.0), ("100%", 1.0), ("12.5%", 0.125)]
)
def test_a_part_is_a_percentage_or_a_fraction(text: str, value: float) -> None:
    assert part(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "%", "-1%", "101%", "nan", "one"])
def test_what_is_no_part_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match=r"1% or 0\.01"):
        part(text)
