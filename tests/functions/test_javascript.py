"""JavaScript: node and npm are stand-ins that say what they were asked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vedette.errors import ConfigError
from vedette.functions.build import build
from vedette.functions.scaffold import scaffold

_NPM = """#!{python}
import os, sys
open("calls", "a").write(" ".join(sys.argv[1:]) + "\\n")
if sys.argv[1] in ("ci", "install"):
    os.makedirs("node_modules", exist_ok=True)
    open("package-lock.json", "a").close()
elif os.path.exists("fail"):
    print("src/app.js:1: oops"); sys.exit(1)
elif not os.path.exists("lazy"):
    os.makedirs("dist", exist_ok=True); open("dist/mine.wasm", "w").write("wasm")
"""
_QUIET = "--no-audit --no-fund --no-update-notifier"
_CI = f"ci --ignore-scripts --omit-lockfile-registry-resolved=true {_QUIET}"
_RUN = f"run {_QUIET} build"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    _add(folder, "node", f"#!{sys.executable}\nprint('v20.1.0')\n")
    _add(folder, "npm", _NPM.format(python=sys.executable))
    return scaffold("mine", "js", tmp_path / "projects")


def _add(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def _calls(project: Path) -> list[str]:
    return (project / "calls").read_text().splitlines()


def _fail(project: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        build(project, lambda _: None)
    return caught.value


def test_packages_are_fetched_once_and_again_when_the_lock_file_changes(project: Path) -> None:
    assert build(project, lambda _: None) == project / "dist" / "mine.wasm"
    build(project, lambda _: None)
    assert _calls(project) == [_CI, _RUN, _RUN]
    (project / "package-lock.json").write_text("{}")
    build(project, lambda _: None)
    assert _calls(project)[3:] == [_CI, _RUN]


def test_packages_half_fetched_are_fetched_again(project: Path) -> None:
    (project / "node_modules").mkdir()
    build(project, lambda _: None)
    assert _calls(project) == [_CI, _RUN]


def test_a_project_without_a_lock_file_gets_one(project: Path) -> None:
    (project / "package-lock.json").unlink()
    build(project, lambda _: None)
    assert _calls(project)[0].startswith("install --ignore-scripts")
    build(project, lambda _: None)
    assert _calls(project)[1:] == [_RUN, _RUN]


def test_what_the_build_says_is_told(project: Path) -> None:
    (project / "fail").touch()
    error = _fail(project)
    assert error.code == "build_failed"
    assert "src/app.js:1: oops" in error.message


def test_a_build_that_makes_nothing_is_told(project: Path) -> None:
    (project / "lazy").touch()
    assert _fail(project).code == "component_missing"


@pytest.mark.parametrize("tool", ["node", "npm"])
def test_a_missing_tool_is_named(project: Path, tmp_path: Path, tool: str) -> None:
    (tmp_path / "bin" / tool).unlink()
    error = _fail(project)
    assert error.code == "tool_missing"
    assert tool in error.message
    assert "nodejs.org" in error.hint


def test_an_old_node_is_told(project: Path, tmp_path: Path) -> None:
    _add(tmp_path / "bin", "node", f"#!{sys.executable}\nprint('v18.20.0')\n")
    assert "older than 20" in _fail(project).message
