"""A set of manifests: every kind there is, read and checked together.

Owns: the list of kinds, from plain data to a typed manifest with its file and lines, and telling all
problems at once. Must not: look at the files a manifest names (`attachments`), or at what is active.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from pydantic import Field

from vedette.config.addresses_manifest import AddressListManifest
from vedette.config.egress_manifest import EgressPolicyManifest
from vedette.config.kinds import (
    ClientAuthorityManifest,
    IssuerManifest,
    LimitManifest,
    NodeManifest,
    PolicyManifest,
    UpstreamManifest,
)
from vedette.config.manifest import FunctionManifest
from vedette.config.model import Count, Model, Place, attempt
from vedette.config.model_manifest import ModelManifest
from vedette.config.routes import HttpRouteManifest, RouteManifest
from vedette.config.sidecar_manifest import SidecarManifest
from vedette.config.snapshot import API_VERSION, Digest, IssuerKey, StaticFile
from vedette.config.yaml_source import MAX_DOCUMENTS, Document
from vedette.errors import ConfigError

AnyManifest = (
    NodeManifest
    | RouteManifest
    | FunctionManifest
    | ModelManifest
    | UpstreamManifest
    | PolicyManifest
    | LimitManifest
    | AddressListManifest
    | EgressPolicyManifest
    | SidecarManifest
    | IssuerManifest
    | ClientAuthorityManifest
    | HttpRouteManifest
)
KINDS: Final[dict[str, type[AnyManifest]]] = {
    "Node": NodeManifest,
    "Route": RouteManifest,
    "Function": FunctionManifest,
    "Model": ModelManifest,
    "Upstream": UpstreamManifest,
    "Policy": PolicyManifest,
    "Limit": LimitManifest,
    "AddressList": AddressListManifest,
    "EgressPolicy": EgressPolicyManifest,
    "Sidecar": SidecarManifest,
    "Issuer": IssuerManifest,
    "ClientAuthority": ClientAuthorityManifest,
    "HTTPRoute": HttpRouteManifest,
}
_GATEWAY_VERSIONS: Final = ("gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1")
_SHOWN_PROBLEMS: Final = 100


class Component(Model):
    """The component of a function."""

    digest: Digest = Field(description="Digest of the component.")
    size: Count = Field(ge=0, description="Its size, in bytes.")


class Attachment(Model):
    """What stands in a file or folder that a manifest names, or how to know it: text and keys as they
    are, the rest by digest.
    """

    text: str | None = Field(default=None, max_length=1_000_000, description="The text.")
    keys: tuple[IssuerKey, ...] = Field(default=(), description="Public keys of an issuer.")
    component: Component | None = Field(
        default=None, description="A component; absent while it is still to be built."
    )
    files: tuple[StaticFile, ...] = Field(
        default=(), description="Files of a folder, by path; or the one file."
    )
    modified_at: str | None = Field(
        default=None, description="When the one file was last changed, RFC 3339."
    )


class LineOf(Model):
    """On which line something stands."""

    place: tuple[str | int, ...] = Field(description="Keys and indices that lead to it.")
    line: int = Field(description="The line, from 1.")


class ManifestObject(Model):
    """One manifest as it was read, with what it names."""

    file: str = Field(max_length=4_096, description="File it stands in.")
    data: dict[str, Any] = Field(description="The manifest.")
    lines: tuple[LineOf, ...] = Field(default=(), description="Where its parts stand.")
    texts: tuple[LineOf, ...] = Field(default=(), description="Where texts of several lines begin.")
    attachments: dict[str, Attachment] = Field(
        default_factory=dict, description="Files it names, by path as written."
    )

    @classmethod
    def of(cls, document: Document, file: str) -> ManifestObject:
        """The object of a YAML document."""
        if not isinstance(document.data, dict):
            line = document.lines.get(())
            message = "a manifest is a mapping with apiVersion, kind, metadata and spec"
            raise ConfigError("manifest_invalid", message, file=file, line=line)
        return cls.model_construct(
            file=file,
            data=document.data,
            lines=_lines(document.lines),
            texts=_lines(document.texts),
            attachments={},
        )


def _lines(lines: Mapping[Place, int]) -> tuple[LineOf, ...]:
    return tuple(LineOf.model_construct(place=place, line=line) for place, line in lines.items())


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend, and where."""

    file: str
    line: int | None
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}" if self.line else self.message


@dataclass(frozen=True)
class Manifest:
    """A manifest that has its right shape."""

    model: AnyManifest
    source: ManifestObject

    @property
    def kind(self) -> str:
        """Its kind, as written."""
        return self.model.kind

    @property
    def name(self) -> str:
        """Its name."""
        return self.model.metadata.name

    @property
    def file(self) -> str:
        """The file it stands in."""
        return self.source.file

    @cached_property
    def _places(self) -> dict[Place, int]:
        return {each.place: each.line for each in self.source.lines}

    def line(self, *place: str | int) -> int | None:
        """The line of `place`, or of the nearest place around it."""
        return Document(None, self._places).line_of(place)

    def text_line(self, *place: str | int) -> int | None:
        """The line where the text at `place` begins."""
        texts = {each.place: each.line for each in self.source.texts}
        return texts.get(place) or self.line(*place)

    def problem(self, message: str, *place: str | int) -> Problem:
        """A problem with `place`."""
        return Problem(self.file, self.line(*place), message)

    def attachment(self, path: str) -> Attachment:
        """What is in the file it names; empty when nobody read it."""
        return self.source.attachments.get(path) or Attachment()


@dataclass
class Problems:
    """Everything wrong so far."""

    found: list[Problem] = field(default_factory=list)

    def add(self, problem: Problem) -> None:
        """One more."""
        self.found.append(problem)

    def require_none(self, code: str = "manifest_invalid") -> None:
        """Raises `ConfigError` with every problem; the place is the first one's."""
        if not self.found:
            return
        found = list(dict.fromkeys(self.found))
        first = found[0]
        text = first.message
        if len(found) > 1:
            rows = [str(each) for each in found[:_SHOWN_PROBLEMS]]
            if len(found) > _SHOWN_PROBLEMS:
                rows.append(f"and {len(found) - _SHOWN_PROBLEMS} more")
            text = "\n  ".join([f"{len(found)} problems:", *rows])
        raise ConfigError(code, text, file=first.file, line=first.line)


def typed(objects: Sequence[ManifestObject]) -> list[Manifest]:
    """Every manifest in its type. Raises `ConfigError` manifest_invalid with all problems at once."""
    problems = Problems()
    if len(objects) > MAX_DOCUMENTS:
        problems.add(Problem(objects[0].file, None, f"more than {MAX_DOCUMENTS:,} manifests"))
        problems.require_none()
    manifests = [each for one in objects if (each := _typed(one, problems)) is not None]
    _require_unique(manifests, problems)
    problems.require_none()
    return manifests


def _typed(source: ManifestObject, problems: Problems) -> Manifest | None:
    lines = {each.place: each.line for each in source.lines}
    line_of = Document(None, lines).line_of
    model = _model_of(source, line_of, problems)
    if model is None:
        return None
    value, failures = attempt(model, source.data)
    for failure in failures:
        problems.add(Problem(source.file, line_of(failure.place), failure.sentence))
    return None if value is None else Manifest(value, source)


def _model_of(
    source: ManifestObject, line_of: Callable[[Place], int | None], problems: Problems
) -> type[AnyManifest] | None:
    kind, version = source.data.get("kind"), source.data.get("apiVersion")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        said = "kind is missing" if kind is None else f"unknown kind {kind!r}"
        said += nearest(str(kind), KINDS, f"; known are {', '.join(KINDS)}")
        problems.add(Problem(source.file, line_of(("kind",)), said))
        return None
    known = _GATEWAY_VERSIONS if kind == "HTTPRoute" else (API_VERSION,)
    if version not in known:
        said = "apiVersion is missing" if version is None else f"unknown apiVersion {version!r}"
        message = f"{said}; {kind} is of {known[0]}"
        problems.add(Problem(source.file, line_of(("apiVersion",)), message))
        return None
    return model


def nearest(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """`; did you mean …?` for the known name nearest to `name`, else `otherwise`."""
    folded = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), list(folded), n=1, cutoff=0.6)
    return f"; did you mean {folded[near[0]]!r}?" if near else otherwise


def _require_unique(manifests: Iterable[Manifest], problems: Problems) -> None:
    seen: dict[tuple[str, str], Manifest] = {}
    for manifest in manifests:
        family = "Route" if manifest.kind == "HTTPRoute" else manifest.kind
        first = seen.setdefault((family, "" if family == "Node" else manifest.name), manifest)
        if first is not manifest:
            where = f"{first.file}:{first.line()}"
            message = f"{manifest.kind} {manifest.name!r} is there already, in {where}"
            if family == "Node":
                message = f"there is one Node at most; another is in {where}"
            problems.add(manifest.problem(message, "metadata", "name"))
