"""A new project is complete and says its own name everywhere."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from vedette.config.manifest import load_function_manifest
from vedette.errors import ConfigError
from vedette.functions.scaffold import LANGUAGES, scaffold


def _files(project: Path) -> set[str]:
    return {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}


def test_a_rust_project_has_all_it_needs(tmp_path: Path) -> None:
    project = scaffold("my-fn", "rust", tmp_path)
    assert project == tmp_path / "my-fn"
    assert _files(project) == {
        ".gitignore",
        "Cargo.toml",
        "README.md",
        "src/greeting.rs",
        "src/lib.rs",
        "vedette.yaml",
    }
    assert not any("{{" in path.read_text() for path in project.rglob("*") if path.is_file())


def test_its_manifest_points_at_what_cargo_will_make(tmp_path: Path) -> None:
    project = scaffold("my-fn", "rust", tmp_path)
    manifest = load_function_manifest(project / "vedette.yaml")
    cargo = tomllib.loads((project / "Cargo.toml").read_text())
    assert manifest.metadata.name == cargo["package"]["name"] == "my-fn"
    assert manifest.spec.component == f"target/wasm32-wasip2/release/{cargo['lib']['name']}.wasm"
    assert manifest.spec.route == "/my-fn"
    assert manifest.spec.build.language == "rust"
    assert cargo["lib"]["crate-type"] == ["cdylib"]


@pytest.mark.parametrize("name", ["fn", "std", "test", "wstd", "a"])
def test_no_name_collides_with_rust(tmp_path: Path, name: str) -> None:
    project = scaffold(name, "rust", tmp_path)
    cargo = tomllib.loads((project / "Cargo.toml").read_text())
    assert cargo["lib"]["name"] == f"{name}_function"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError) as caught:
        scaffold("mine", "rust", tmp_path)
    assert caught.value.code == "already_exists"
    assert list((tmp_path / "mine").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "language", "code"),
    [
        ("../x", "rust", "invalid_name"),
        ("a", "cobol", "language_unknown"),
        ("a", "..", "language_unknown"),
    ],
)
def test_an_odd_wish_makes_nothing(tmp_path: Path, name: str, language: str, code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        scaffold(name, language, tmp_path)
    assert caught.value.code == code
    assert list(tmp_path.iterdir()) == []


def test_every_language_has_a_template(tmp_path: Path) -> None:
    for language in LANGUAGES:
        assert (scaffold(f"in-{language}", language, tmp_path) / "vedette.yaml").is_file()


WIT = {f"wit/deps/wasi-{name}.wit" for name in ("cli", "clocks", "http", "io", "random")}
SHARED = {".gitignore", "README.md", "vedette.yaml", "wit/world.wit", "wit/deps/NOTICE", *WIT}


def test_a_python_project_has_all_it_needs(tmp_path: Path) -> None:
    project = scaffold("my-fn", "python", tmp_path)
    own = {"requirements-build.txt", "requirements.txt", "src/app.py", "src/greeting.py"}
    assert _files(project) == SHARED | own | {"tests/test_greeting.py"}
    pins = (project / "requirements-build.txt").read_text().splitlines()
    assert [line for line in pins if not line.startswith("#")] == ["componentize-py==0.25.1"]


def test_a_js_project_has_all_it_needs(tmp_path: Path) -> None:
    project = scaffold("my-fn", "js", tmp_path)
    own = {"package.json", "package-lock.json", "src/app.js", "src/component.js"}
    assert _files(project) == SHARED | own | {"test/app.test.js"}
    package = json.loads((project / "package.json").read_text())
    pinned = {**package["dependencies"], **package["devDependencies"]}
    assert all(version[0].isdigit() for version in pinned.values())


def test_the_lock_file_fits_the_package_and_names_no_registry(tmp_path: Path) -> None:
    project = scaffold("my-fn", "js", tmp_path)
    package = json.loads((project / "package.json").read_text())
    lock = json.loads((project / "package-lock.json").read_text())["packages"]
    assert lock[""]["name"] == "my-fn"
    assert lock[""]["dependencies"] == package["dependencies"]
    assert lock[""]["devDependencies"] == package["devDependencies"]
    packages = {name: told for name, told in lock.items() if name}
    assert all("integrity" in told for told in packages.values())
    assert not any("resolved" in told for told in packages.values())


@pytest.mark.parametrize("language", ["python", "js"])
def test_its_manifest_names_its_language(tmp_path: Path, language: str) -> None:
    manifest = load_function_manifest(scaffold("my-fn", language, tmp_path) / "vedette.yaml")
    assert manifest.spec.build.language == language
    assert manifest.spec.component == "dist/my-fn.wasm"
