"""A manifest of kind Model as a snapshot says it.

Owns: which version it means, and putting what was found in the file beside what the manifest says. Pure. Must not: open
the file; `control.models` has had it inspected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import Field

from vedette.config.manifests import Manifest
from vedette.config.media_manifest import Extra
from vedette.config.model import Count, Model
from vedette.config.model_manifest import ModelSpec
from vedette.config.served import ModelFormat, ServedModel, Tensor, served_model
from vedette.config.served_media import FileRole, ModelExtra
from vedette.errors import ConfigError
from vedette.ids import is_digest
from vedette.models.registry import Registered, declared_version


class ModelFile(Model):
    """What was found in a model's file."""

    format: ModelFormat = Field(description="What the file is.")
    size: Count = Field(ge=1, description="Its size, in bytes.")
    inputs: tuple[Tensor, ...] = Field(description="What it takes.")
    outputs: tuple[Tensor, ...] = Field(description="What it gives.")
    load_millis: float = Field(description="How long loading took, in milliseconds.")
    runtime: str = Field(description="What loaded it.")


@dataclass(frozen=True, slots=True)
class KnownModels:
    """What the node knows of models besides the snapshot: versions by name, and files by digest."""

    registered: Mapping[str, Registered] = field(default_factory=dict)
    files: Mapping[str, ModelFile] = field(default_factory=dict)


def blob_of(manifest: Manifest, spec: ModelSpec) -> str:
    """The digest of the file that a manifest names. Raises `ConfigError` manifest_invalid when it was not sent."""
    if spec.file is None:
        raise ConfigError("manifest_invalid", "it has no file")
    if is_digest(spec.file):
        return spec.file
    files = manifest.attachment(spec.file).files
    if len(files) != 1:
        raise ConfigError("manifest_invalid", "the file was not sent")
    return files[0].blob


def served_of(manifest: Manifest, spec: ModelSpec, known: KnownModels) -> ServedModel:
    """The model that a manifest says. Raises `ConfigError` manifest_invalid, model_downgrade."""
    blob = blob_of(manifest, spec)
    file = known.files.get(blob)
    if file is None:
        raise ConfigError("manifest_invalid", f"the node has no model {blob}")
    registered = known.registered.get(manifest.name, Registered())
    version = declared_version(manifest.name, registered, blob, spec.version)

    def extra(written: str, role: FileRole) -> ModelExtra:
        files = manifest.attachment(written).files
        if len(files) != 1:
            raise ConfigError("manifest_invalid", f"the file {written!r} was not sent")
        return ModelExtra(role=role, blob=files[0].blob, size=files[0].size)

    return served_of_file(manifest.name, version, (blob, file), spec, extra)


def served_of_file(
    name: str, version: int, content: tuple[str, ModelFile], spec: ModelSpec, extra: Extra
) -> ServedModel:
    """One version of a model, run, fed and read as `spec` says; `content`: its digest and what is in it. Raises
    `ConfigError` manifest_invalid.
    """
    blob, file = content
    found = {
        "size": file.size,
        "format": file.format,
        "inputs": [each.model_dump(by_alias=True) for each in file.inputs],
        "outputs": [each.model_dump(by_alias=True) for each in file.outputs],
    }
    media = spec.resolve(file.inputs, file.outputs, extra)
    said = {"name": name, "version": version, "blob": blob, **found, **spec.settings(), **media}
    return served_model(said, code="manifest_invalid")
