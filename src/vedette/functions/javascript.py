"""JavaScript projects: npm, with what the project's lock file pins.

Owns: `node_modules` of a project and every call of npm. Must not: install anything outside the
project, run a package's install script, or fetch anything when the lock file has not changed.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

from vedette.errors import ConfigError
from vedette.functions.stamps import is_fresh, stamp
from vedette.functions.tools import Report, require_tool, run_step

MIN_NODE: Final = 20
_STEPS: Final = 2
_HINT: Final = f"Install Node.js {MIN_NODE} or newer, which brings npm, from https://nodejs.org."
_QUIET: Final = ("--no-audit", "--no-fund", "--no-update-notifier")


def build(folder: Path, component: Path, report: Report) -> Path:
    """Runs the script `build` of package.json, which makes `component`.

    The first build fetches the packages; later ones need no network. Raises `ConfigError`
    tool_missing, build_failed or component_missing.
    """
    npm = _require_node(folder)
    _install(npm, folder, report)
    report("npm run build", 1, _STEPS)
    before = _written(component)
    run_step([npm, "run", *_QUIET, "build"], folder, lambda line: report(f"npm: {line}", 1, _STEPS))
    if _written(component) in (None, before):
        raise ConfigError("component_missing", f"`npm run build` made no {component}")
    return component


def _require_node(folder: Path) -> str:
    node = require_tool("node", _HINT)
    told = subprocess.run([node, "--version"], cwd=folder, capture_output=True, check=False)
    version = re.match(r"v(\d+)\.", told.stdout.decode(errors="replace"))
    if version is None or int(version[1]) < MIN_NODE:
        raise ConfigError("tool_missing", f"node is older than {MIN_NODE}", _HINT)
    return require_tool("npm", _HINT)


def _install(npm: str, folder: Path, report: Report) -> None:
    """Packages as the lock file pins them. Without one npm makes it, and the project keeps it."""
    lock, place = folder / "package-lock.json", folder / "node_modules"
    if lock.is_file() and is_fresh(place, lock):
        return
    verb = "ci" if lock.is_file() else "install"
    report(f"npm {verb}: fetching the packages", 0, _STEPS)
    run_step(
        [npm, verb, "--ignore-scripts", "--omit-lockfile-registry-resolved=true", *_QUIET],
        folder,
        lambda line: report(f"npm: {line}", 0, _STEPS),
    )
    stamp(place, lock)


def _written(component: Path) -> int | None:
    try:
        return component.stat().st_mtime_ns
    except FileNotFoundError:
        return None
