"""Python projects: componentize-py, in an environment of the project's own.

Owns: `.vedette/` of a project (the pinned tool, the function's packages) and every call of pip and
componentize-py. Must not: install anything outside the project, or fetch anything when the pins
have not changed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from vedette.errors import ConfigError
from vedette.functions.stamps import is_fresh, stamp
from vedette.functions.tools import Report, run_step

TOOL_PINS: Final = "requirements-build.txt"
PACKAGES: Final = "requirements.txt"
WORLD: Final = "function"
MODULE: Final = "app"
_STEPS: Final = 3
_VENV_HINT: Final = "On Debian or Ubuntu: apt-get install python3-venv; then build again."


def build(folder: Path, component: Path, report: Report) -> Path:
    """Makes `component` of the module `src/app.py` and the world in `wit/`.

    The first build fetches the tool; later ones need no network. Raises `ConfigError` tool_missing,
    build_failed or component_missing.
    """
    own = folder / ".vedette"
    tool = _tool(folder, own / "python", report)
    packages = _packages(folder, own / "packages", tool, report)
    report("making the component", 2, _STEPS)
    component.parent.mkdir(parents=True, exist_ok=True)
    made = component.with_name(f".{component.name}.new")
    paths = [f"-p{path}" for path in (folder / "src", packages) if path.is_dir()]
    program = str(tool / "bin" / "componentize-py")
    run_step(
        [program, "-d", "wit", "-w", WORLD, "componentize", *paths, "-o", str(made), MODULE],
        folder,
        lambda line: report(f"componentize-py: {line}", 2, _STEPS),
        {"VIRTUAL_ENV": str(tool), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    if not made.is_file():
        raise ConfigError("component_missing", "componentize-py made no component")
    made.replace(component)
    return component


def _tool(folder: Path, place: Path, report: Report) -> Path:
    """The environment with what `requirements-build.txt` pins."""
    pins = folder / TOOL_PINS
    if not pins.is_file():
        raise ConfigError(
            "build_failed",
            f"there is no {TOOL_PINS}",
            "Make it with one line that pins the tool, as `vedette new --lang python` does.",
            file=str(pins),
        )
    if is_fresh(place, pins, sys.version):
        return place
    report(f"making an environment for the tool in {place.relative_to(folder)}", 0, _STEPS)
    _make_environment(place, folder)
    _pip(
        place, ["install", "-r", TOOL_PINS], folder, lambda line: report(f"pip: {line}", 0, _STEPS)
    )
    stamp(place, pins, sys.version)
    return place


def _make_environment(place: Path, folder: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    made = subprocess.run(
        [sys.executable, "-m", "venv", str(place)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise ConfigError("tool_missing", "this Python cannot make environments", _VENV_HINT)


def _packages(folder: Path, place: Path, tool: Path, report: Report) -> Path:
    """What the function itself imports. Wheels for any machine only: native code of this one cannot run in Wasm."""
    wanted = folder / PACKAGES
    if not wanted.is_file() or is_fresh(place, wanted, sys.version):
        return place
    report("fetching the function's packages", 1, _STEPS)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    if _names_packages(wanted):
        portable = ["--only-binary=:all:", "--platform=any", "--abi=none", "--implementation=py"]
        _pip(
            tool,
            ["install", f"--target={place}", *portable, "-r", PACKAGES],
            folder,
            lambda line: report(f"pip: {line}", 1, _STEPS),
        )
    stamp(place, wanted, sys.version)
    return place


def _names_packages(requirements: Path) -> bool:
    lines = requirements.read_text("utf-8").splitlines()
    return any(line.strip() and not line.lstrip().startswith("#") for line in lines)


def _pip(tool: Path, arguments: list[str], folder: Path, on_line: Callable[[str], None]) -> None:
    command = [str(tool / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    run_step([*command, *arguments], folder, on_line)
