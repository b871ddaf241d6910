"""Python: what is made when, without a network; tests/examples runs the real tool."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from vedette.errors import ConfigError
from vedette.functions.build import build
from vedette.functions.scaffold import scaffold
from vedette.functions.stamps import stamp

_TOOL = """#!{python}
import sys
open("calls", "a").write(" ".join(sys.argv[1:]) + "\\n")
open(sys.argv[sys.argv.index("-o") + 1], "w").write("wasm")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose tool is there already: a stand-in that says what it was asked."""
    project = scaffold("mine", "python", tmp_path)
    place = project / ".vedette" / "python"
    (place / "bin").mkdir(parents=True)
    tool = place / "bin" / "componentize-py"
    tool.write_text(_TOOL.format(python=sys.executable))
    tool.chmod(0o755)
    stamp(place, project / "requirements-build.txt", sys.version)
    return project


def test_the_component_is_made_of_the_world_and_the_module(project: Path) -> None:
    assert build(project, lambda _: None) == project / "dist" / "mine.wasm"
    (call,) = (project / "calls").read_text().splitlines()
    assert call.startswith(f"-d wit -w function componentize -p{project / 'src'} ")
    assert call.endswith(" app")


def test_a_build_works_from_any_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.parent)
    assert build(Path("mine"), lambda _: None).is_file()
    assert not (project / "mine").exists()


def test_other_pins_make_the_tool_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    (project / "requirements-build.txt").write_text("no-such-package-of-ours==1\n")
    with pytest.raises(ConfigError) as caught:
        build(project, lambda _: None)
    assert caught.value.code == "build_failed"
    assert "no-such-package-of-ours" in caught.value.message
    assert not (project / ".vedette" / "python" / ".vedette-stamp").exists()


def test_a_project_without_pins_is_told(project: Path) -> None:
    (project / "requirements-build.txt").unlink()
    with pytest.raises(ConfigError) as caught:
        build(project, lambda _: None)
    assert caught.value.file == str(project / "requirements-build.txt")
