"""Deploying a path: build when needed, upload, activate; with progress.

Owns: what is taken from the manifest and what from options. Must not: decide limits or routes; the manifest's model and
control do.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from vedette.cli.changes_text import changed_settings
from vedette.cli.interrupting import Interrupted
from vedette.cli.render import say, say_if_away
from vedette.clock import format_duration
from vedette.config.countries_manifest import CountriesSpec
from vedette.config.gather import read_text
from vedette.config.manifest import FunctionManifest, ManifestReuse
from vedette.config.model import bounds, build, wire_name, wire_value
from vedette.config.quantities import format_size, parse_size
from vedette.config.snapshot import FunctionLimits
from vedette.config.waf_manifest import WafSpec
from vedette.config.written import millis
from vedette.control.client import ControlClient, segment
from vedette.errors import ConfigError
from vedette.functions import build as functions_build
from vedette.functions.admit import read_component
from vedette.functions.build import BuildProgress
from vedette.functions.project import Project, locate
from vedette.functions.sources import state_of
from vedette.ids import digest_of, require_name

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
    waf: str | None = None
    waf_paranoia: int | None = None
    allow_countries: list[str] = field(default_factory=list)
    block_countries: list[str] = field(default_factory=list)


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
    say_changes(done.answer)
    return done.answer


def say_changes(answer: dict[str, Any]) -> None:
    """The settings that are not what they were (a flag of last time that was left out is gone), and notes."""
    for line in changed_settings(answer["changes"]):
        say(f"  {line}")
    for note in answer["notes"]:
        say(f"note: {note}")


def deploy_project(
    client: ControlClient,
    project: Project,
    options: DeployOptions,
    builds: bool,
    quick: bool = False,
) -> Deployed:
    """Builds when told to, uploads and activates. `quick`: see `build`. Raises `VedetteError`."""
    rule_files = _rule_files(project)
    digests = {file: digest_of(text) for file, text in rule_files.items()}
    # A wrong flag is told before a long build.
    wish = function_wish("", project.manifest, options, digests)
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
        for file, text in rule_files.items():
            client.upload_bytes(digests[file], text)
        progress.update(task, description=_activation(name, admitted.size), total=None)
        for host in wish["allowedHosts"]:
            if "//localhost" in host:
                say(f"{host}: a name leads to this machine only within a range that is listed too")
        answer = _activate(client, name, {**wish, "component": admitted.digest})
    return Deployed(name, answer, built - started, time.monotonic() - built)


def _rule_files(project: Project) -> dict[str, bytes]:
    """The texts of the firewall's rule files that the manifest names, by path as written."""
    spec = project.manifest.spec.waf if project.manifest else None
    folder = project.folder or Path()
    return {
        file: read_text(folder / file, repr(file)).encode()
        for file in (spec.rule_files if spec else ())
    }


def _activate(client: ControlClient, name: str, wish: dict[str, Any]) -> dict[str, Any]:
    """The node's answer. Once it was told, it goes on whatever becomes of this command."""
    try:
        answer: dict[str, Any] = client.put(f"/v1/functions/{segment(name)}", wish)
    except KeyboardInterrupt:
        told = (
            f"Stopped waiting; the deployment of {name} goes on on the node: see `vedette history`"
        )
        raise Interrupted(told) from None
    return answer


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
    digest: str,
    manifest: FunctionManifest | None,
    options: DeployOptions,
    rule_files: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The body of the request: the manifest, with what the command line says on top. `rule_files`:
    digests of the firewall's rule files that the manifest names.
    """
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
    waf = _waf(spec.waf if spec else None, options)
    if waf is not None:
        wish["waf"] = wire_value(waf.override(rule_files or {}))
    countries = _countries(spec.countries if spec else None, options)
    if countries is not None:
        wish["countries"] = wire_value(countries.rule())
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


def _waf(written: WafSpec | None, options: DeployOptions) -> WafSpec | None:
    """How the function is inspected: the manifest's, with what the command line says on top."""
    flags = {"mode": options.waf, "paranoiaLevel": options.waf_paranoia}
    given = {name: value for name, value in flags.items() if value is not None}
    if written is None and not given:
        return None
    before = wire_value(written) if written else {}
    return build(WafSpec, {**before, **given}, code="manifest_invalid")


def _countries(written: CountriesSpec | None, options: DeployOptions) -> CountriesSpec | None:
    """From which countries: as the command line says, else the manifest. Raises `ConfigError`."""
    flags = {"allow": options.allow_countries, "block": options.block_countries}
    given = {name: [each.upper() for each in codes] for name, codes in flags.items() if codes}
    for name, codes in given.items():
        for code in codes:
            if not (len(code) == 2 and code.isascii() and code.isalpha()):
                message = f"--{name}-country: {code!r} is no country; write two letters, such as CH"
                raise ConfigError("request_invalid", message)
    if len(given) > 1:
        message = "--allow-country and --block-country exclude each other"
        raise ConfigError("request_invalid", message)
    return build(CountriesSpec, given, code="manifest_invalid") if given else written


def _limit_options(options: DeployOptions) -> dict[str, int]:
    """What flags say of limits. Raises `ConfigError` in the words of the flag."""
    given: dict[str, int] = {}
    for flag, field_, written, read, shown in (
        ("--memory", "memory_bytes", options.memory, parse_size, format_size),
        ("--timeout", "wall_millis", options.timeout, millis, _shown_millis),
        ("--cpu", "cpu_millis", options.cpu, millis, _shown_millis),
    ):
        if written is not None:
            given[wire_name(FunctionLimits, field_)] = _within(flag, field_, written, read, shown)
    if options.concurrency is not None:
        concurrency = _within("--concurrency", "concurrency", str(options.concurrency), int, str)
        given["concurrency"] = concurrency
    return given


def _within(
    flag: str, field_: str, written: str, read: Callable[[str], int], shown: Callable[[int], str]
) -> int:
    """The value of a flag that stands for a field of the limits."""
    try:
        value = read(written)
    except ConfigError as error:
        raise ConfigError(error.code, f"{flag} {written}: {error.message}") from None
    least, most = bounds(FunctionLimits, field_)
    if not least <= value <= most:
        range_ = f"between {shown(least)} and {shown(most)}"
        raise ConfigError(
            "request_invalid", f"{flag} {written} is not taken", f"Write a value {range_}."
        )
    return value


def _shown_millis(value: int) -> str:
    return format_duration(timedelta(milliseconds=value))


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
