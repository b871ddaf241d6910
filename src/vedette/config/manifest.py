"""Manifests: what people write. `vedette.yaml` in a project folder says how a function is built and
deployed.

Owns: the shape of manifests and reading them from YAML with file and line. Must not: read a
component, or know what is deployed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from vedette.clock import parse_duration, to_milliseconds
from vedette.config.countries_manifest import CountriesSpec
from vedette.config.invariants import settings_problems
from vedette.config.model import Count, Flag, Model, build
from vedette.config.quantities import parse_size
from vedette.config.snapshot import FunctionLimits, Name, Reuse
from vedette.config.waf_manifest import WafSpec
from vedette.config.written import Destination, Duration, FileReference, Host, RoutePath, Size
from vedette.config.yaml_source import Document, read_yaml
from vedette.errors import ConfigError

MANIFEST_NAME: Final = "vedette.yaml"


class Metadata(Model):
    """What the thing is called."""

    name: Name = Field(description="Name of the object, unique among its kind.")
    namespace: str | None = Field(
        default=None, max_length=253, description="Kept by other tools; a node has no namespaces."
    )
    labels: dict[str, str] = Field(
        default_factory=dict, description="Words for people and other tools; the node ignores them."
    )
    annotations: dict[str, str] = Field(
        default_factory=dict, description="Notes of people and other tools; the node ignores them."
    )


class Build(Model):
    """How the component is built from source."""

    language: Literal["rust", "python", "js"] | None = Field(
        default=None,
        description="Language of the project; its usual build is run when there is no command.",
    )
    command: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="Program and arguments, run in the project folder, no shell.",
    )
    folder: FileReference = Field(
        default=".", description="The project folder, relative to the manifest."
    )


class ManifestLimits(Model):
    """What one request may use, in the units people write."""

    cpu: Duration = Field(default="1s", description="Time on the CPU, such as `500ms` or `1s`.")
    memory: Size = Field(
        default="128MB", description="Linear memory, such as `64MB` (1 MB = 1024 KB)."
    )
    timeout: Duration = Field(default="30s", description="Time from the start to the last byte.")
    request_size: Size = Field(default="10MB", description="Largest request body.")
    response_size: Size = Field(default="10MB", description="Largest answer body.")
    concurrency: Count = Field(default=256, description="Requests the function answers at once.")

    @model_validator(mode="after")
    def _require_bounds(self) -> Self:
        try:
            self.resolve()
        except ConfigError as error:
            raise ValueError(error.message) from None
        return self

    def resolve(self) -> FunctionLimits:
        """The same limits in milliseconds and bytes. Raises `ConfigError` when one is out of
        bounds.
        """
        return build(
            FunctionLimits,
            {
                "cpuMillis": to_milliseconds(parse_duration(self.cpu)),
                "wallMillis": to_milliseconds(parse_duration(self.timeout)),
                "memoryBytes": parse_size(self.memory),
                "requestBytes": parse_size(self.request_size),
                "responseBytes": parse_size(self.response_size),
                "concurrency": self.concurrency,
            },
            code="manifest_invalid",
        )


class ManifestReuse(Model):
    """How often and how long one instance may be used; state then outlives a request."""

    max_requests: Count = Field(default=1_000, description="Requests an instance answers at most.")
    max_age: Duration = Field(default="1m", description="Age at which it takes no more requests.")

    @model_validator(mode="after")
    def _require_bounds(self) -> Self:
        try:
            self.resolve()
        except ConfigError as error:
            raise ValueError(error.message) from None
        return self

    def resolve(self) -> Reuse:
        """The same in milliseconds. Raises `ConfigError` when a value is out of bounds."""
        age = to_milliseconds(parse_duration(self.max_age))
        values = {"maxRequests": self.max_requests, "maxAgeMillis": age}
        return build(Reuse, values, code="manifest_invalid")


class FunctionSpec(Model):
    """How a function is built, reached and limited."""

    component: str | None = Field(
        default=None, min_length=1, description="Path of the component, relative to the manifest."
    )
    build: Build = Field(default_factory=Build, description="How the component is built.")
    route: RoutePath | None = Field(
        default=None,
        description="Path prefix that reaches the function; default `/NAME`, or `/` on `domains`.",
    )
    domains: tuple[Host, ...] = Field(
        default=(), description="Hosts that reach the function; empty: every host of the node."
    )
    public: Flag = Field(
        default=False,
        description="Whether anybody may call it, without a token. An explicit policy says so.",
    )
    env: dict[str, str] = Field(
        default_factory=dict, description="Environment variables the function sees."
    )
    config: dict[str, str] = Field(
        default_factory=dict, description="Values the function reads through `wasi:config/store`."
    )
    limits: ManifestLimits = Field(
        default_factory=ManifestLimits, description="What one request may use."
    )
    allowed_hosts: tuple[Destination, ...] = Field(
        default=(),
        description="Where it may send HTTP requests: `https://api.example.com`, "
        "`https://*.example.com`, `http://10.0.0.7:8080`, `http://10.0.0.0/8:8080`; none: nowhere.",
    )
    reuse: ManifestReuse | None = Field(
        default=None, description="Whether instances are used again; absent: a fresh one each time."
    )
    waf: WafSpec | None = Field(
        default=None, description="How its requests are inspected; absent: as the node says."
    )
    countries: CountriesSpec | None = Field(
        default=None,
        description="From which countries; absent: from everywhere. See `countryFile` of the Node.",
    )

    @model_validator(mode="after")
    def _require_settings(self) -> Self:
        problems = list(settings_problems("spec", self.env, self.config))
        if problems:
            raise ValueError("; ".join(problems))
        return self


class FunctionManifest(Model):
    """A function as people write it, in `vedette.yaml`."""

    api_version: Literal["vedette.dev/v1alpha1"] = Field(description="Version of this shape.")
    kind: Literal["Function"] = Field(description="Always `Function`.")
    metadata: Metadata = Field(
        description="What the function is called; its name is also its default route, `/NAME`."
    )
    spec: FunctionSpec = Field(
        default_factory=FunctionSpec, description="How it is built, reached and limited."
    )


def load_function_manifest(path: Path) -> FunctionManifest:
    """Reads a `vedette.yaml`. Raises `ConfigError` that names file, line and, for a misspelt field,
    the nearest one.
    """
    return manifest_of(read_yaml(path), str(path))


def manifest_of(document: Document, file: str) -> FunctionManifest:
    """The manifest that a YAML document spells. Raises `ConfigError` manifest_invalid with file and
    line.
    """
    if not isinstance(document.data, dict):
        raise ConfigError("manifest_invalid", "the manifest is empty or not a mapping", file=file)
    return build(
        FunctionManifest,
        document.data,
        code="manifest_invalid",
        file=file,
        line_of=document.line_of,
    )


def find_manifest(folder: Path) -> Path | None:
    """The manifest of a project folder, when it has one."""
    path = folder / MANIFEST_NAME
    return path if path.is_file() else None
