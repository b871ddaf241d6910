"""What a path on the command line means: a component file, or a project folder with a manifest.

Owns: finding the manifest and the component. Must not: build, or change anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vedette.config.manifest import (
    MANIFEST_NAME,
    FunctionManifest,
    find_manifest,
    load_function_manifest,
)
from vedette.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Project:
    """What is there to deploy. `component` is where it is, or where the build will put it; None:
    not said.
    """

    folder: Path | None
    manifest: FunctionManifest | None
    component: Path | None

    @property
    def is_built(self) -> bool:
        """Whether the component file exists."""
        return self.component is not None and self.component.is_file()


def locate(path: Path, wanted: str = "a project folder or of a component (.wasm)") -> Project:
    """Finds what `path` names; `wanted` says what it should have been.

    Raises `ConfigError` component_missing, manifest_missing, or manifest_invalid with file and
    line.
    """
    if path.is_dir():
        return _project(path)
    if path.name == MANIFEST_NAME and path.is_file():
        return _project(path.parent)
    if path.is_file():
        return Project(None, None, path)
    hint = f"Give the path of {wanted}; `vedette new NAME` makes a project."
    raise ConfigError("component_missing", f"there is no {path}", hint)


def _project(folder: Path) -> Project:
    manifest_path = find_manifest(folder)
    if manifest_path is None:
        raise ConfigError("manifest_missing", f"{folder} holds no {MANIFEST_NAME}")
    return project_of(load_function_manifest(manifest_path), folder)


def project_of(manifest: FunctionManifest, folder: Path) -> Project:
    """The project of a manifest that stands in `folder`."""
    component = folder / manifest.spec.component if manifest.spec.component else None
    return Project(folder / manifest.spec.build.folder, manifest, component)
