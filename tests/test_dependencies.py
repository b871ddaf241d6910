"""What the package imports is what it declares, so that nothing comes only because something else brings it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

# crates/models loads their libraries from where they lie; their Python modules, second copies, are imported by no node.
_LOADED = {"ai-edge-litert", "onnxruntime"}
# Run in a process of its own, which serves nothing.
_APART = "quantize_"


def _imported(source: Path) -> set[str]:
    """The first words of all imports in a file, also those within functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_package_that_is_imported_is_declared(checkout: Path) -> None:
    project = tomllib.loads((checkout / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    declared = {_normal(re.split(r"[^\w.-]", line)[0]) for line in lines}
    sources = list((checkout / "src/vedette").rglob("*.py"))
    apart = {source for source in sources if source.name.startswith(_APART)}
    assert not _used(set(sources) - apart) & _LOADED
    assert _used(sources) | _LOADED == declared


def _used(sources: Iterable[Path]) -> set[str]:
    """The packages that files import."""
    modules = set().union(*map(_imported, sources))
    owners = packages_distributions()
    foreign = modules - sys.stdlib_module_names - {"vedette"}
    return {_normal(owner) for module in foreign for owner in owners[module]}
