"""From names on the command line to a set of manifests with everything they name.

Owns: reading the files that manifests name, building what is to be built, and telling every problem
with its line. Must not: judge a manifest's meaning; control resolves it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vedette.cli.deploying import build_project, has_recipe, needs_build
from vedette.config.addresses import MAX_BLOB_BYTES
from vedette.config.addresses_manifest import AddressListManifest
from vedette.config.gather import Tree, place_of, read_blob, read_sources, read_text, read_tree
from vedette.config.kinds import (
    ClientAuthorityManifest,
    IssuerManifest,
    NodeManifest,
    PolicyManifest,
    UpstreamManifest,
)
from vedette.config.manifest import FunctionManifest
from vedette.config.manifests import Attachment, Component, Manifest, Problems, typed
from vedette.config.model import wire_value
from vedette.config.model_manifest import ModelManifest
from vedette.config.routes import RouteManifest
from vedette.config.served_media import MAX_MODEL_FILE_BYTES
from vedette.config.snapshot import StaticFile
from vedette.config.yaml_source import MAX_BYTES
from vedette.errors import ConfigError
from vedette.functions.admit import read_component
from vedette.functions.project import Project, project_of
from vedette.identity.keys import load_keys
from vedette.ids import is_digest
from vedette.models.admit import read_model


@dataclass
class Loaded:
    """Manifests, where the content they name lies, and what is to be built."""

    manifests: list[Manifest] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    judged: dict[str, Path] = field(default_factory=dict)
    """Those of the files that the engine reads whole: a plan asks it about them."""
    components: dict[str, Path] = field(default_factory=dict)
    models: dict[str, Path] = field(default_factory=dict)
    """Files of models: the node looks at them while it plans."""
    unbuilt: list[tuple[Manifest, Project]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def wish(self, *, prune: bool) -> dict[str, Any]:
        """The body of a request to plan."""
        return {"objects": [wire_value(one.source) for one in self.manifests], "prune": prune}

    def content(self, digest: str) -> bytes:
        """Content that a plan needs, as it was when it was read. Raises `ConfigError`
        digest_mismatch, component_missing.
        """
        path = self.components.get(digest) or self.models.get(digest) or self.files.get(digest)
        if path is None:
            raise ConfigError("blob_missing", f"no file has the digest {digest}")
        return path.read_bytes()


def load(names: Iterable[str]) -> Loaded:
    """Every manifest in the files and folders named, and what they name.

    Raises `ConfigError` with every problem at once.
    """
    manifests = typed(read_sources(names, _read_stdin))
    loaded, problems = Loaded(manifests), Problems()
    for manifest in manifests:
        _attach(manifest, loaded, problems)
    problems.require_none()
    return loaded


def build_all(loaded: Loaded) -> None:
    """Builds what is to be built, with progress. Raises `ConfigError` build_failed, tool_missing."""
    for manifest, project in loaded.unbuilt:
        _attach_component(manifest, build_project(project), loaded)
    loaded.unbuilt = []


def _read_stdin() -> bytes:
    return sys.stdin.buffer.read(MAX_BYTES + 1)


def _attach(manifest: Manifest, loaded: Loaded, problems: Problems) -> None:
    model = manifest.model
    waf = getattr(model.spec, "waf", None)
    for index, file in enumerate(waf.rule_files if waf else ()):
        _attach_text(manifest, file, problems, "spec", "waf", "ruleFiles", index)
    match model:
        case PolicyManifest():
            _attach_text(manifest, model.spec.cedar_file, problems, "spec", "cedarFile")
        case ClientAuthorityManifest():
            _attach_text(manifest, model.spec.ca_file, problems, "spec", "caFile")
        case UpstreamManifest():
            file = model.spec.tls.ca_file if model.spec.tls else None
            _attach_text(manifest, file, problems, "spec", "tls", "caFile")
        case IssuerManifest():
            spec = model.spec

            def keys(path: Path) -> Attachment:
                text = read_text(path, repr(spec.jwks_file))
                return Attachment(keys=tuple(load_keys(_as_text(text), spec.alg)))

            _put(manifest, spec.jwks_file, problems, keys, "spec", "jwksFile")
        case ModelManifest():
            if model.spec.file is not None:
                _attach_model(manifest, model.spec.file, loaded, problems)
            for written in model.spec.named_files():
                _attach_extra(manifest, written, loaded, problems)
        case AddressListManifest():
            _attach_blob(manifest, model.spec.file, loaded, problems, "file")
            file = model.spec.crowdsec.ca_file if model.spec.crowdsec else None
            _attach_text(manifest, file, problems, "spec", "crowdsec", "caFile")
        case NodeManifest():
            _attach_blob(manifest, model.spec.country_file, loaded, problems, "countryFile")
        case RouteManifest():
            _attach_folders(manifest, model, loaded, problems)
        case FunctionManifest():
            _attach_function(manifest, model, loaded, problems)
        case _:
            pass


def _as_text(text: str) -> str:
    """`load_keys` takes text that looks like keys for what it is, and anything else for a path."""
    if "-----BEGIN" not in text and not text.lstrip().startswith("{"):
        raise ConfigError("key_unreadable", "it is neither a JWKS nor PEM")
    return text


def _put(
    manifest: Manifest,
    written: str,
    problems: Problems,
    read: Callable[[Path], Attachment],
    *place: str | int,
) -> None:
    """Attaches what `read` makes of the file written at `place`."""
    try:
        attachment = read(place_of(manifest.source, written))
    except ConfigError as error:
        problems.add(manifest.problem(_said(error), *place))
        return
    manifest.source.attachments[written] = attachment


def _said(error: ConfigError) -> str:
    return f"{error.message}. {error.hint}" if error.code != "manifest_invalid" else error.message


def _attach_text(
    manifest: Manifest, file: str | None, problems: Problems, *place: str | int
) -> None:
    if file is None:
        return

    def text(path: Path) -> Attachment:
        return Attachment(text=read_text(path, repr(file)))

    _put(manifest, file, problems, text, *place)


def _attach_blob(
    manifest: Manifest, file: str | None, loaded: Loaded, problems: Problems, field_: str
) -> None:
    """A file that the engine reads: it is sent as it is, and known by its digest until then."""
    if file is None:
        return

    def blob(path: Path) -> Attachment:
        found, modified = read_blob(path, repr(file), MAX_BLOB_BYTES)
        loaded.files[found.blob] = loaded.judged[found.blob] = path
        return Attachment(files=(found,), modified_at=modified)

    _put(manifest, file, problems, blob, "spec", field_)


def _attach_model(manifest: Manifest, file: str, loaded: Loaded, problems: Problems) -> None:
    """A model's file, unless the node has it already and the manifest names its digest."""
    if is_digest(file):
        return

    def model(path: Path) -> Attachment:
        admitted = read_model(path)
        loaded.models[admitted.digest] = path
        found = StaticFile(
            path=path.name,
            blob=admitted.digest,
            size=admitted.size,
            content_type="application/octet-stream",
        )
        return Attachment(files=(found,))

    _put(manifest, file, problems, model, "spec", "file")


def _attach_extra(manifest: Manifest, file: str, loaded: Loaded, problems: Problems) -> None:
    """A file that a model needs beside its own."""

    def extra(path: Path) -> Attachment:
        found, _ = read_blob(path, repr(file), MAX_MODEL_FILE_BYTES)
        loaded.files[found.blob] = path
        return Attachment(files=(found,))

    _put(manifest, file, problems, extra, "spec")


def _attach_folders(
    manifest: Manifest, model: RouteManifest, loaded: Loaded, problems: Problems
) -> None:
    for index, rule in enumerate(model.spec.rules):
        if rule.files is None:
            continue
        folder = rule.files.folder

        def tree(path: Path, folder: str = folder) -> Attachment:
            found = read_tree(path, repr(folder))
            loaded.files.update(found.paths)
            loaded.notes.extend(_hidden(found, folder))
            return Attachment(files=tuple(found.files))

        place = ("spec", "rules", index, "files", "folder")
        _put(manifest, folder, problems, tree, *place)


def _hidden(tree: Tree, folder: str) -> list[str]:
    if not tree.hidden:
        return []
    shown = ", ".join(tree.hidden[:5]) + (" and more" if len(tree.hidden) > 5 else "")
    return [f"hidden files in {folder} are not served: {shown}"]


def _attach_function(
    manifest: Manifest, model: FunctionManifest, loaded: Loaded, problems: Problems
) -> None:
    place = ("spec", "component") if model.spec.component else ("metadata", "name")
    try:
        for written in (model.spec.component, model.spec.build.folder):
            if written is not None:
                place_of(manifest.source, written)
        project = project_of(model, place_of(manifest.source, "."))
        if needs_build(project):
            if not has_recipe(project):
                missing = model.spec.component or "a component"
                message = f"there is no {missing}, and nothing says how to build it"
                problems.add(manifest.problem(message, *place))
                return
            loaded.unbuilt.append((manifest, project))
        elif project.component is not None:
            _attach_component(manifest, project.component, loaded)
    except ConfigError as error:
        problems.add(manifest.problem(_said(error), *place))


def _attach_component(manifest: Manifest, file: Path, loaded: Loaded) -> None:
    assert isinstance(manifest.model, FunctionManifest)
    admitted = read_component(file)
    loaded.components[admitted.digest] = file
    written = manifest.model.spec.component or ""
    component = Component(digest=admitted.digest, size=admitted.size)
    manifest.source.attachments[written] = Attachment(component=component)
