"""Builds the Python and JavaScript projects that tests deploy, once for each content of their sources.

Owns: the cache beside the guests' (outside the checkout). Must not: start a node, or build in a checkout.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from tests.e2e.node import vedette

from vedette.functions.project import locate
from vedette.functions.sources import sources

MINUTES = 60.0


def with_component(project: Path) -> str:
    """Makes `project` (a test's own copy) hold its component, and returns what the build said, "" when cached."""
    component = locate(project).component
    assert component is not None
    kept = _cache() / f"{_content(project)}.wasm"
    said = ""
    if not kept.is_file():
        said = vedette("build", str(project), timeout=8 * MINUTES).stderr
        _keep(component, kept)
    component.parent.mkdir(exist_ok=True)
    shutil.copyfile(kept, component)
    return said


def _cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vedette"
    (folder / "components").mkdir(parents=True, exist_ok=True)
    return folder / "components"


def _content(project: Path) -> str:
    told = hashlib.sha256()
    for source in sources(project):
        if source.name != "README.md":
            name = str(source.relative_to(project)).encode()
            data = source.read_bytes()
            told.update(b"%d %b %d %b" % (len(name), name, len(data), data))
    return told.hexdigest()


def _keep(component: Path, kept: Path) -> None:
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        shutil.copyfile(component, Path(folder, "new"))
        Path(folder, "new").replace(kept)
