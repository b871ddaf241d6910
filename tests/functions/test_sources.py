"""What counts as a source, and when a change is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from vedette.functions.sources import sources, state_of, wait_for_change


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("src/a.py", "vedette.yaml", "dist/x", "node_modules/m/i.js", ".venv/bin/p"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    for name in ("target/y", ".vedette/z", "src/__pycache__/a.pyc", "out.wasm", "src/.a.py.swp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1")
    return tmp_path


def test_what_builds_and_tools_make_is_no_source(project: Path) -> None:
    assert {str(path.relative_to(project)) for path in sources(project)} == {
        "src/a.py",
        "vedette.yaml",
    }


def test_a_component_file_is_watched_itself(project: Path) -> None:
    assert list(sources(project / "out.wasm")) == [project / "out.wasm"]


class Sleeps:
    """A clock whose nth sleep does the nth thing."""

    def __init__(self, *things: object) -> None:
        self.things = list(things)
        self.count = 0

    def __call__(self, _: float) -> None:
        self.count += 1
        thing = self.things.pop(0) if self.things else None
        if callable(thing):
            thing()


def test_a_change_counts_once_it_has_settled(project: Path) -> None:
    before = state_of(project)
    file = project / "src" / "a.py"
    sleep = Sleeps(None, lambda: file.write_text("12"), lambda: file.write_text("123"), None)
    after = wait_for_change(project, before, sleep)
    assert after[file][1] == 3
    assert sleep.count == 4


@pytest.mark.parametrize("kind", ["added", "removed"])
def test_a_file_that_comes_or_goes_is_a_change(project: Path, kind: str) -> None:
    before = state_of(project)
    file = project / "src" / ("b.py" if kind == "added" else "a.py")
    change = file.touch if kind == "added" else file.unlink
    assert wait_for_change(project, before, Sleeps(change)) != before


def test_what_is_built_is_no_change(project: Path) -> None:
    before = state_of(project)
    (project / "dist" / "new").write_text("1")
    (project / "out.wasm").write_text("22")
    assert state_of(project) == before
