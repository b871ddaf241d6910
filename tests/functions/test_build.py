"""Building: cargo's side is a stand-in that says what cargo says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from vedette.errors import ConfigError
from vedette.functions.build import BuildProgress, build
from vedette.functions.project import locate
from vedette.functions.scaffold import scaffold

_CARGO = """#!{python}
import json, os, sys
made = os.path.join(os.getcwd(), "made.wasm")
if sys.argv[1] == "metadata":
    print(json.dumps({{"resolve": {{"nodes": [1, 2]}}}}))
    sys.exit()
assert sys.argv[1:] == ["build", "--target=wasm32-wasip2", "--release", "--message-format=json-render-diagnostics"]
if os.path.exists("fail"):
    print("   Compiling x v0.1.0", file=sys.stderr)
    print("error[E0425]: cannot find value `y`", file=sys.stderr)
    sys.exit(101)
def artifact(package, kind, files):
    print(json.dumps({{"reason": "compiler-artifact", "package_id": package,
                       "target": {{"name": package, "kind": [kind]}}, "filenames": files}}))
artifact("dep", "custom-build", ["build"])
artifact("dep", "lib", ["libdep.rlib"])
print("not json")
open(made, "w").write("wasm")
artifact("own", "cdylib", [made])
"""
_RUSTC = """#!{python}
print({sysroot!r})
"""
_RUSTUP = """#!{python}
import os, sys
assert sys.argv[1:] == ["target", "add", "wasm32-wasip2"]
if {works}:
    os.makedirs({sysroot!r} + "/lib/rustlib/wasm32-wasip2/lib")
else:
    sys.exit("no network")
"""


class Tools:
    """A folder of programs that is all of PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "bin"
        self.sysroot = folder / "sysroot"
        self.folder.mkdir()
        self.sysroot.mkdir()

    def add(self, name: str, text: str, works: bool = True) -> None:
        filled = text.format(python=sys.executable, sysroot=str(self.sysroot), works=works)
        (self.folder / name).write_text(filled)
        (self.folder / name).chmod(0o755)

    def add_target(self) -> None:
        (self.sysroot / "lib/rustlib/wasm32-wasip2/lib").mkdir(parents=True)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    tools = Tools(tmp_path)
    monkeypatch.setenv("PATH", str(tools.folder))
    tools.add("cargo", _CARGO)
    tools.add("rustc", _RUSTC)
    return tools


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return scaffold("mine", "rust", tmp_path / "projects")


def _fail(project: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        build(project, lambda _: None)
    return caught.value


def test_a_build_reports_each_package_once_and_gives_the_component(
    tools: Tools, project: Path
) -> None:
    tools.add_target()
    steps: list[BuildProgress] = []
    assert build(project, steps.append) == project / "made.wasm"
    assert steps == [
        BuildProgress("reading the dependencies", 0, None),
        BuildProgress("compiled dep", 1, 2),
        BuildProgress("compiled own", 2, 2),
        BuildProgress("built made.wasm", 1, 1),
    ]


def test_the_compilers_words_come_through_without_the_noise(tools: Tools, project: Path) -> None:
    tools.add_target()
    (project / "fail").touch()
    error = _fail(project)
    assert error.code == "build_failed"
    assert error.message == "error[E0425]: cannot find value `y`"


def test_a_missing_target_is_added_and_said(tools: Tools, project: Path) -> None:
    tools.add("rustup", _RUSTUP)
    steps: list[BuildProgress] = []
    build(project, steps.append)
    assert steps[0].message == "adding the Rust target: rustup target add wasm32-wasip2"


@pytest.mark.parametrize("rustup", [True, False])
def test_a_target_that_cannot_be_added_has_a_hint(
    tools: Tools, project: Path, rustup: bool
) -> None:
    if rustup:
        tools.add("rustup", _RUSTUP, works=False)
    error = _fail(project)
    assert error.code == "tool_missing"
    assert error.hint == "Run: rustup target add wasm32-wasip2"


def test_a_missing_cargo_has_a_hint(tools: Tools, project: Path) -> None:
    (tools.folder / "cargo").unlink()
    error = _fail(project)
    assert error.code == "tool_missing"
    assert "rustup.rs" in error.hint


def _manifest(folder: Path, spec: dict[str, object]) -> Path:
    folder.mkdir()
    manifest = {
        "apiVersion": "vedette.dev/v1alpha1",
        "kind": "Function",
        "metadata": {"name": "own"},
        "spec": spec,
    }
    (folder / "vedette.yaml").write_text(json.dumps(manifest))
    return folder


def test_a_command_of_the_projects_own_is_run(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "open('out.wasm', 'w').write('x')"]
    folder = _manifest(tmp_path / "p", {"component": "out.wasm", "build": {"command": command}})
    assert not locate(folder).is_built
    assert build(folder, lambda _: None) == folder / "out.wasm"
    assert locate(folder).is_built


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ({}, "manifest_invalid"),
        ({"build": {"command": ["true"]}}, "manifest_invalid"),
        ({"component": "o", "build": {"command": ["/does/not/exist"]}}, "tool_missing"),
        (
            {"component": "o", "build": {"command": [sys.executable, "-c", "exit(3)"]}},
            "build_failed",
        ),
        ({"component": "o", "build": {"command": [sys.executable, "-c", ""]}}, "component_missing"),
    ],
)
def test_a_build_that_cannot_be_is_told(tmp_path: Path, spec: dict[str, object], code: str) -> None:
    assert _fail(_manifest(tmp_path / "p", spec)).code == code


def test_a_path_is_a_file_a_folder_or_a_mistake(tmp_path: Path, project: Path) -> None:
    (tmp_path / "a.wasm").write_text("x")
    assert locate(tmp_path / "a.wasm").component == tmp_path / "a.wasm"
    assert locate(project) == locate(project / "vedette.yaml")
    (tmp_path / "empty").mkdir()
    for path, code in (
        (tmp_path / "empty", "manifest_missing"),
        (tmp_path / "no", "component_missing"),
    ):
        with pytest.raises(ConfigError) as caught:
            locate(path)
        assert caught.value.code == code
    assert _fail(tmp_path / "a.wasm").code == "manifest_missing"
