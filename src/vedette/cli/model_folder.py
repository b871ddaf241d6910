"""A folder that is taken in as a model: its file, `model.yaml`, and the files that names.

Owns: reading them, within limits, and sending what the node has not. Must not: look into a model, or read what lies
outside the folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vedette.config.gather import read_blob, require_inside
from vedette.config.media_manifest import MediaSpec
from vedette.config.model import build
from vedette.config.model_manifest import FolderSpec
from vedette.config.served_media import MAX_MODEL_FILE_BYTES
from vedette.config.yaml_source import read_yaml
from vedette.control.client import ControlClient
from vedette.errors import ConfigError
from vedette.ids import is_digest
from vedette.models.admit import find_model

SPEC: Final = "model.yaml"
_SETTINGS: Final = ("task", "sessions", "threads", "limits", "idle", "samples")


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """The model's file, what a wish says of it besides, and the files beside it by digest."""

    file: Path
    wish: dict[str, Any] = field(default_factory=dict)
    extras: dict[str, Path] = field(default_factory=dict)

    def send(self, client: ControlClient) -> None:
        """Sends the files beside the model's own. Raises `VedetteError`."""
        for digest, path in self.extras.items():
            client.upload_bytes(digest, path.read_bytes(), "files")


def model_folder(path: Path) -> ModelFolder:
    """What `vedette model add` takes in. Raises `ConfigError` model_missing, manifest_invalid."""
    place = path / SPEC
    if not path.is_dir():
        return ModelFolder(find_model(path))
    if not place.exists():
        return ModelFolder(_found(path))
    document = read_yaml(require_inside(place, path, str(place)))
    spec = build(
        FolderSpec,
        document.data,
        code="manifest_invalid",
        file=str(place),
        line_of=document.line_of,
    )
    if spec.file is not None and is_digest(spec.file):
        raise ConfigError("manifest_invalid", "`file` is a path in the folder", file=str(place))
    file = _found(path) if spec.file is None else _inside(path, spec.file)
    extras: dict[str, Path] = {}
    digests: dict[str, str] = {}
    for written in spec.named_files():
        extra = _inside(path, written)
        found, _ = read_blob(extra, repr(written), MAX_MODEL_FILE_BYTES)
        extras[found.blob], digests[written] = extra, found.blob
    said = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    wish: dict[str, Any] = {name: said[name] for name in _SETTINGS if name in said}
    wish["media"] = _by_digest(spec, digests)
    return ModelFolder(file, wish, extras)


def _found(folder: Path) -> Path:
    """The one model in it; a folder that somebody else packed takes in nothing but itself."""
    found = find_model(folder)
    require_inside(found, folder, repr(found.name))
    return found


def _inside(folder: Path, written: str) -> Path:
    return require_inside(folder / written, folder, repr(written))


def _by_digest(spec: MediaSpec, digests: dict[str, str]) -> dict[str, Any]:
    """How it is fed and read, the files named by their digests."""
    said = spec.model_dump(
        mode="json", by_alias=True, include={"input", "output", "stream"}, exclude_none=True
    )
    text = said.get("input", {}).get("text")
    if text:
        text["tokenizer"] = digests[text["tokenizer"]]
    for read in said.get("output", {}).values():
        if isinstance(read.get("names"), str):
            read["names"] = digests[read["names"]]
    return said
