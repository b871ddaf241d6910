"""`vedette model embed`: what it is given and what it says; what it does is in tests/models/test_embed.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.models import test_embed
from typer.testing import CliRunner

from vedette.cli.main import app


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "model.onnx"
    test_embed.save(test_embed.product(), file)
    return file


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["model", "embed", *map(str, arguments)])


def test_one_file_is_written_and_named_by_its_digest(model: Path, tmp_path: Path) -> None:
    listed = test_embed.digest(tmp_path / test_embed.DATA)
    out = tmp_path / "whole.onnx"
    done = run(model, "--data", f"{test_embed.DATA}={listed}", "--out", out, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told == {"out": str(out), "digest": test_embed.digest(out), "bytes": out.stat().st_size}
    # As `sha256sum` prints it, too.
    bare = listed.removeprefix("sha256:")
    done = run(model, "--data", f"{test_embed.DATA}={bare}", "--out", out)
    assert done.exit_code == 0, done.output
    assert f"{out}: {out.stat().st_size:,} bytes, {test_embed.digest(out)}" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--data", "model.onnx.data"), "request_invalid", "no NAME=DIGEST"),
        (("--data", "=sha256:00"), "request_invalid", "no NAME=DIGEST"),
        (("--data", "model.onnx.data=sha256:00"), "invalid_digest", "sha256:00"),
        (("--data", f"absent={'0' * 64}"), "model_missing", "'absent'"),
        ((), "model_reaches_outside", "not listed"),
    ],
)
def test_a_wrong_wish_is_told_and_nothing_is_written(
    model: Path, tmp_path: Path, arguments: tuple[str, ...], code: str, words: str
) -> None:
    out = tmp_path / "whole.onnx"
    done = run(model, *arguments, "--out", out)
    assert done.exit_code != 0
    assert getattr(done.exception, "code", code) == code
    assert words in str(done.exception) + done.output
    assert not out.exists()


def test_the_model_itself_stays(model: Path) -> None:
    before = model.read_bytes()
    assert run(model, "--out", model).exit_code != 0
    assert model.read_bytes() == before
