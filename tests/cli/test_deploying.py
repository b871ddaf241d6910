"""When a project is built before it is deployed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vedette.cli.deploying import needs_build
from vedette.functions.project import locate

MANIFEST = """apiVersion: vedette.dev/v1alpha1
kind: Function
metadata: {name: hello}
spec:
  component: hello.wasm
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project whose component is older than its manifest."""
    component = tmp_path / "hello.wasm"
    component.write_bytes(b"")
    os.utime(component, (0, 0))
    (tmp_path / "vedette.yaml").write_text(MANIFEST, "utf-8")
    return tmp_path


def test_a_component_made_elsewhere_is_taken_as_it_is(folder: Path) -> None:
    assert not needs_build(locate(folder))


def test_a_project_with_a_recipe_is_built_when_a_source_is_newer(folder: Path) -> None:
    (folder / "Cargo.toml").write_text("", "utf-8")
    assert needs_build(locate(folder))
