"""Building a project from source, with progress.

Owns: running the project's build command, or its language's usual build, and finding the component
that made. Must not: deploy, or run anything through a shell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vedette.errors import ConfigError
from vedette.functions import cargo, javascript, python
from vedette.functions.project import Project, locate
from vedette.functions.tools import Report, run_step


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """One step: what happens, how many steps are done, and of how many when that is known."""

    message: str
    done: int
    total: int | None


OnProgress = Callable[[BuildProgress], None]


def build(folder: Path, on_progress: OnProgress, quick: bool = False) -> Path:
    """Builds the project in `folder` and returns the path of its component.

    `quick` asks for a build that is soon done rather than small, where the language knows one.
    Raises `ConfigError` manifest_missing, manifest_invalid, tool_missing, build_failed or
    component_missing.
    """
    return build_project(locate(folder), on_progress, quick)


def build_project(project: Project, on_progress: OnProgress, quick: bool = False) -> Path:
    """Builds a project that was found. Raises as `build`."""
    if project.folder is None or project.manifest is None:
        raise ConfigError("manifest_missing", f"{project.component} is no project folder")
    component = _build(project.folder.absolute(), project, _reporter(on_progress), quick)
    on_progress(BuildProgress(f"built {component.name}", 1, 1))
    return component


def _build(folder: Path, project: Project, report: Report, quick: bool) -> Path:
    assert project.manifest is not None
    recipe = project.manifest.spec.build
    if recipe.command is not None:
        return _run_command(folder, recipe.command, project, report)
    if recipe.language == "python":
        return python.build(folder, _required_component(folder, project), report)
    if recipe.language == "js":
        return javascript.build(folder, _required_component(folder, project), report)
    if recipe.language == "rust" or (folder / "Cargo.toml").is_file():
        return cargo.build(folder, report, quick)
    raise ConfigError(
        "manifest_invalid",
        "it does not say how to build: set spec.build.language or spec.build.command",
        file=str(folder / "vedette.yaml"),
    )


def _reporter(on_progress: OnProgress) -> Report:
    return lambda message, done, total: on_progress(BuildProgress(message, done, total))


def _run_command(folder: Path, command: tuple[str, ...], project: Project, report: Report) -> Path:
    component = _required_component(folder, project)
    report(f"running {' '.join(command)}", 0, None)
    run_step(command, folder, lambda line: report(line, 0, None))
    if not component.is_file():
        raise ConfigError("component_missing", f"the build made no {component}")
    return component


def _required_component(folder: Path, project: Project) -> Path:
    if project.component is None:
        raise ConfigError(
            "manifest_invalid",
            "this build needs spec.component, the file that it makes",
            file=str(folder / "vedette.yaml"),
        )
    return project.component.absolute()
