"""Deploying a path: build when needed, upload, activate; with progress.

Owns: what is taken from the manifest and what from options. Must not: decide limits or routes; the manifest's model and
control do.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from vedette.cli.render import say, say_if_away
from vedette.clock import parse_duration, to_milliseconds
from vedette.config.manifest import FunctionManifest, ManifestReuse
from vedette.config.model import build, wire_value
from vedette.config.quantities import parse_size
from vedette.config.snapshot import FunctionLimits
from vedette.control.client import ControlClient, segment
from vedette.errors import ConfigError
from vedette.functions import build as functions_build
from vedette.functions.admit import read_component
from vedette.functions.build import BuildProgress
from vedette.functions.project import Project, locate
from vedette.functions.sources import state_of
from vedette.ids import require_name

_LARGE: Final = (
    4 << 20
)  # bytes; above this somebody's language comes along, and compiling takes long
_LINE: Final = 100  # characters of a tool's line that a progress bar shows


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
    reuse: bool | None = None
    reuse_max_requests: int | None = None
    reuse_max_age: str | None = None


@dataclass(frozen=True, slots=True)
class Deployed:
    """What came of it: the node's answer, and how long building and deploying took, in seconds."""

    name: str
    answer: dict[str, Any]
    built: float
    deployed: float


def deploy_path(
    client: ControlClient, path: Path, options: DeployOptions | None = None
) -> dict[str, Any]:
    """Deploys a component file or a project folder and prints where it answers. Raises `VedetteError`."""
    project = locate(path)
    done = deploy_project(client, project, options or DeployOptions(), needs_build(project))
    say_if_away(done.answer)
    say(f"Deployed {done.name} in {done.deployed:.2f} s (generation {done.answer['generation']})")
    return done.answer


def deploy_project(
    client: ControlClient,
    project: Project,
    options: DeployOptions,
    builds: bool,
    quick: bool = False,
) -> Deployed:
    """Builds when told to, uploads and activates. `quick`: see `build`. Raises `VedetteError`."""
    started = time.monotonic()
    component = build_project(project, quick) if builds else project.component
    if component is None:
        raise ConfigError("component_missing", f"{project.folder}: nothing was built")
    built = time.monotonic()
    admitted = read_component(component)
    name = function_name(options.name, project.manifest, component)
    with progress_bar() as progress:
        task = progress.add_task(f"Uploading {name}", total=admitted.size)
        client.upload(admitted.digest, component, lambda count: progress.advance(task, count))
        progress.update(task, description=_activation(name, admitted.size), total=None)
        wish = function_wish(admitted.digest, project.manifest, options)
        for host in wish["allowedHosts"]:
            if "//localhost" in host:
                say(f"{host}: no name leads a function to this machine; name its address")
        answer: dict[str, Any] = client.put(f"/v1/functions/{segment(name)}", wish)
    return Deployed(name, answer, built - started, time.monotonic() - built)


def _activation(name: str, size: int) -> str:
    if size < _LARGE:
        return f"Compiling and activating {name}"
    told = f"Compiling and activating {name}: {size >> 20} MB, tens of seconds the first time"
    if not sys.stderr.isatty():
        say(told)
    return told


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
    reuse = _reuse(spec.reuse if spec else None, options)
    if reuse is not None:
        wish["reuse"] = wire_value(reuse.resolve())
    route = options.route or (spec.route if spec else None)
    return wish if route is None else {**wish, "route": route}


def _reuse(written: ManifestReuse | None, options: DeployOptions) -> ManifestReuse | None:
    """The manifest's reuse with what the command line says on top; a bound asks for reuse as well."""
    bounds = {"maxRequests": options.reuse_max_requests, "maxAge": options.reuse_max_age}
    given = {name: value for name, value in bounds.items() if value is not None}
    asked = options.reuse if options.reuse is not None else bool(given or written)
    if not asked:
        return None
    before = wire_value(written) if written else {}
    return build(ManifestReuse, {**before, **given}, code="manifest_invalid")


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
    if not has_recipe(project):
        return False  # made elsewhere; there is nothing to make it with here
    built = project.component.stat().st_mtime_ns
    return any(time_ns > built for time_ns, _ in state_of(project.folder).values())


def has_recipe(project: Project) -> bool:
    """Whether there is something to build the component with here."""
    folder, manifest = project.folder, project.manifest
    if folder is None or manifest is None:
        return False
    build = manifest.spec.build
    return bool(build.command or build.language) or (folder / "Cargo.toml").is_file()


def build_project(project: Project, quick: bool = False) -> Path:
    """Builds with a progress bar, or a line for each step where there is no terminal, and returns the component.

    Raises `ConfigError` build_failed, tool_missing.
    """
    assert project.folder is not None
    with progress_bar() as progress:
        task = progress.add_task(f"Building {project.folder.name}", total=None)

        def on_progress(step: BuildProgress) -> None:
            text = step.message[:_LINE]
            progress.update(task, description=text, completed=step.done, total=step.total)
            if progress.disable and not quick:
                say(step.message)

        return functions_build.build_project(project, on_progress, quick)


def progress_bar() -> Progress:
    """A bar on stderr that is gone when it is done."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
