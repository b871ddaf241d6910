"""Building a project from source, with progress.

Owns: running the project's build command, or cargo for Rust, and finding the component it made.
Must not: deploy, or run anything through a shell.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vedette.errors import ConfigError
from vedette.functions import cargo
from vedette.functions.project import Project, locate


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """One step: what happens, how many steps are done, and of how many when that is known."""

    message: str
    done: int
    total: int | None


OnProgress = Callable[[BuildProgress], None]


def build(folder: Path, on_progress: OnProgress) -> Path:
    """Builds the project in `folder` and returns the path of its component.

    Raises `ConfigError` manifest_missing, manifest_invalid, tool_missing, build_failed or
    component_missing.
    """
    return build_project(locate(folder), on_progress)


def build_project(project: Project, on_progress: OnProgress) -> Path:
    """Builds a project that was found. Raises as `build`."""
    if project.folder is None or project.manifest is None:
        raise ConfigError("manifest_missing", f"{project.component} is no project folder")
    recipe = project.manifest.spec.build
    if recipe.command is not None:
        return _run_command(project.folder, recipe.command, project, on_progress)
    if recipe.language == "rust" or (project.folder / "Cargo.toml").is_file():
        component = cargo.build(project.folder, _reporter(on_progress))
        on_progress(BuildProgress(f"built {component.name}", 1, 1))
        return component
    raise ConfigError(
        "manifest_invalid",
        "it does not say how to build: set spec.build.language or spec.build.command",
        file=str(project.folder / "vedette.yaml"),
    )


def _reporter(on_progress: OnProgress) -> cargo.Report:
    return lambda message, done, total: on_progress(BuildProgress(message, done, total))


def _run_command(
    folder: Path, command: tuple[str, ...], project: Project, on_progress: OnProgress
) -> Path:
    if project.component is None:
        raise ConfigError(
            "manifest_invalid",
            "spec.build.command needs spec.component, the file that the command makes",
            file=str(folder / "vedette.yaml"),
        )
    on_progress(BuildProgress(f"running {' '.join(command)}", 0, None))
    try:
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ConfigError("tool_missing", f"cannot run {command[0]}: {error.strerror}") from None
    if ended.returncode != 0:
        output = (ended.stdout + ended.stderr).strip()[-4_000:]
        raise ConfigError("build_failed", f"{command[0]} ended with {ended.returncode}\n{output}")
    if not project.component.is_file():
        raise ConfigError("component_missing", f"the build made no {project.component}")
    on_progress(BuildProgress(f"built {project.component.name}", 1, 1))
    return project.component
