"""Deploying a path: build when needed, upload, activate; with progress.

Owns: what is taken from the manifest and what from options. Must not: decide limits or routes; the manifest's model and
control do.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from vedette.cli.render import say_if_away
from vedette.clock import parse_duration, to_milliseconds
from vedette.config.manifest import FunctionManifest
from vedette.config.model import wire_value
from vedette.config.quantities import parse_size
from vedette.config.snapshot import FunctionLimits
from vedette.control.client import ControlClient, segment
from vedette.errors import ConfigError
from vedette.functions.admit import read_component
from vedette.functions.build import BuildProgress, build
from vedette.functions.project import Project, locate
from vedette.ids import require_name


@dataclass(frozen=True, slots=True)
class DeployOptions:
    """What was said on the command line; None and empty mean: as the manifest says, else the default."""

    name: str | None = None
    domains: list[str] = field(default_factory=list)
    route: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    config: dict[str, str] = field(default_factory=dict)
    memory: str | None = None
    timeout: str | None = None
    cpu: str | None = None
    concurrency: int | None = None
    public: bool | None = None
    allow_hosts: list[str] = field(default_factory=list)


def deploy_path(
    client: ControlClient, path: Path, options: DeployOptions | None = None
) -> dict[str, Any]:
    """Deploys a component file or a project folder and prints where it answers. Raises `VedetteError`."""
    options = options or DeployOptions()
    project = locate(path)
    component = build_project(project) if needs_build(project) else project.component
    if component is None:
        raise ConfigError("component_missing", f"{path}: nothing was built")
    started = time.monotonic()
    admitted = read_component(component)
    name = function_name(options.name, project.manifest, component)
    with _progress() as progress:
        task = progress.add_task(f"Uploading {name}", total=admitted.size)
        client.upload(admitted.digest, component, lambda count: progress.advance(task, count))
        progress.update(task, description=f"Compiling and activating {name}", total=None)
        wish = function_wish(admitted.digest, project.manifest, options)
        answer: dict[str, Any] = client.put(f"/v1/functions/{segment(name)}", wish)
    say_if_away(answer)
    seconds = time.monotonic() - started
    Console(stderr=True, highlight=False).print(
        f"Deployed {name} in {seconds:.2f} s (generation {answer['generation']})"
    )
    return answer


def function_name(given: str | None, manifest: FunctionManifest | None, component: Path) -> str:
    """`--name`, else the manifest's, else the file's. Raises `ConfigError` invalid_name."""
    if given is not None:
        return require_name(given)
    if manifest is not None:
        return manifest.metadata.name
    return require_name(component.stem.lower().replace("_", "-").replace(".", "-"))


def function_wish(
    digest: str, manifest: FunctionManifest | None, options: DeployOptions
) -> dict[str, Any]:
    """The body of the request: the manifest, with what the command line says on top."""
    spec = manifest.spec if manifest else None
    limits = spec.limits.resolve() if spec else FunctionLimits()
    public = options.public if options.public is not None else bool(spec and spec.public)
    wish: dict[str, Any] = {
        "component": digest,
        "domains": options.domains or list(spec.domains if spec else ()),
        "env": {**(spec.env if spec else {}), **options.env},
        "config": {**(spec.config if spec else {}), **options.config},
        "limits": {**wire_value(limits), **_limit_options(options)},
        "allowedHosts": options.allow_hosts or list(spec.allowed_hosts if spec else ()),
        "public": public,
    }
    if spec and spec.reuse:
        wish["reuse"] = wire_value(spec.reuse.resolve())
    route = options.route or (spec.route if spec else None)
    return wish if route is None else {**wish, "route": route}


def _limit_options(options: DeployOptions) -> dict[str, int]:
    given: dict[str, int] = {}
    if options.memory is not None:
        given["memoryBytes"] = parse_size(options.memory)
    if options.timeout is not None:
        given["wallMillis"] = to_milliseconds(parse_duration(options.timeout))
    if options.cpu is not None:
        given["cpuMillis"] = to_milliseconds(parse_duration(options.cpu))
    if options.concurrency is not None:
        given["concurrency"] = options.concurrency
    return given


def needs_build(project: Project) -> bool:
    """Whether a project's component is missing or older than a source; a component file is taken as it is."""
    if project.folder is None:
        return False
    if project.component is None or not project.component.is_file():
        return True
    if not _has_recipe(project):
        return False  # made elsewhere; there is nothing to make it with here
    built = project.component.stat().st_mtime
    return any(source.stat().st_mtime > built for source in _sources(project.folder))


def _has_recipe(project: Project) -> bool:
    folder, manifest = project.folder, project.manifest
    if folder is None or manifest is None:
        return False
    build = manifest.spec.build
    return bool(build.command or build.language) or (folder / "Cargo.toml").is_file()


def _sources(folder: Path) -> list[Path]:
    skipped = {"target", ".git", "node_modules", "dist"}
    return [
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.suffix != ".wasm"
        and not skipped & set(path.relative_to(folder).parts[:-1])
    ]


def build_project(project: Project) -> Path:
    """Builds with a progress bar and returns the component. Raises `ConfigError` build_failed, tool_missing."""
    assert project.folder is not None
    with _progress() as progress:
        task = progress.add_task(f"Building {project.folder.name}", total=None)

        def on_progress(step: BuildProgress) -> None:
            progress.update(task, description=step.message, completed=step.done, total=step.total)

        return build(project.folder, on_progress)


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
