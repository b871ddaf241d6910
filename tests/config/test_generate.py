"""Generated files are what the models say."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.config.samples import snapshot

from vedette.config import rust
from vedette.config.drift import drifted, main
from vedette.config.generate import artifacts
from vedette.config.model import Model
from vedette.config.schema import MODELS, schema_of


def test_no_generated_file_drifted(checkout: Path) -> None:
    assert drifted(artifacts(), checkout) == []


def test_check_names_what_drifted_and_write_mends_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(artifacts, ["--check", "--root", str(tmp_path)]) == 1
    assert "crates/engine/src/snapshot.rs drifted" in capsys.readouterr().err
    assert main(artifacts, ["--write", "--root", str(tmp_path)]) == 0
    assert main(artifacts, ["--check", "--root", str(tmp_path)]) == 0


def test_a_current_file_is_not_touched(tmp_path: Path) -> None:
    main(artifacts, ["--write", "--root", str(tmp_path)])
    before = (tmp_path / rust.TARGET).stat().st_mtime_ns
    main(artifacts, ["--write", "--root", str(tmp_path)])
    assert (tmp_path / rust.TARGET).stat().st_mtime_ns == before


def test_the_rust_text_is_as_rustfmt_likes_it(checkout: Path) -> None:
    command = ["rustfmt", "--check", "--edition", "2024", "--config-path", "/dev/null"]
    ended = subprocess.run(
        [*command, str(checkout / rust.TARGET)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_struct_refuses_unknown_fields() -> None:
    text = rust.render()
    assert text.count("pub struct ") == text.count("deny_unknown_fields")
    assert "#[serde(default)]\n    pub kid: Option<String>" in text
    assert "pub limits: FunctionLimits" in text


def test_a_shape_without_a_rust_spelling_is_an_error() -> None:
    class Odd(Model):
        """Odd."""

        value: float

    with pytest.raises(TypeError):
        rust._emit_model(Odd, {})


def _fields(schema: dict[str, Any]) -> list[dict[str, Any]]:
    shapes = [schema, *schema["$defs"].values()]
    return [field for shape in shapes for field in shape.get("properties", {}).values()]


@pytest.mark.parametrize("name", MODELS)
def test_every_field_says_what_it_is(name: str) -> None:
    schema = schema_of(MODELS[name], name)
    assert all(field.get("description") for field in _fields(schema))
    closed = [shape for each, shape in schema["$defs"].items() if each != "KubernetesMetadata"]
    assert all(shape.get("additionalProperties") is False for shape in closed)


def test_the_schema_knows_the_snapshot_as_it_is_on_the_wire() -> None:
    schema = schema_of(MODELS["snapshot"], "snapshot")
    written = set(json.loads(snapshot().canonical_bytes()))
    assert written | {"waf", "addresses", "egress", "sidecars", "models", "remoteModels"} == set(
        schema["properties"]
    ), "what is absent is not written"
