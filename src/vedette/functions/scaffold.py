"""New projects: a folder that builds, tests and deploys as it is.

Owns: the templates. Must not: overwrite anything, or fetch anything.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from vedette.errors import ConfigError, UnavailableError
from vedette.ids import require_name

LANGUAGES: Final = ("rust", "python", "js")
_WITH_WIT: Final = {"python", "js"}  # their tools read the interfaces from the project
_SUFFIX: Final = ".tmpl"
_HIDDEN: Final = {"gitignore": ".gitignore"}


def scaffold(name: str, language: str, parent: Path) -> Path:
    """Makes the project folder `parent/name` and returns it.

    Raises `ConfigError` invalid_name, language_unknown or already_exists, `UnavailableError` when
    the disk refuses; a folder that could not be finished is removed.
    """
    require_name(name)
    if language not in LANGUAGES:
        raise ConfigError(
            "language_unknown",
            f"there is no template for {language!r}; there is one for: {', '.join(LANGUAGES)}",
        )
    project = parent / name
    try:
        project.mkdir(parents=True)
    except FileExistsError:
        raise ConfigError("already_exists", f"{project} exists already") from None
    except OSError as error:
        raise UnavailableError("disk_failed", f"cannot make {project}: {error.strerror}") from error
    try:
        templates = files("vedette.functions").joinpath("templates")
        _fill(project, templates.joinpath(language), name)
        if language in _WITH_WIT:
            _fill(project / "wit", templates.joinpath("wit"), name)
    except OSError as error:
        shutil.rmtree(project, ignore_errors=True)
        raise UnavailableError("disk_failed", f"cannot fill {project}: {error.strerror}") from error
    return project


def crate_name(name: str) -> str:
    """The name of the Rust library: no hyphens, and never a Rust keyword or the name of a known
    crate.
    """
    return f"{name.replace('-', '_')}_function"


def _fill(project: Path, template: Traversable, name: str) -> None:
    for relative, text in _template_files(template):
        target = project.joinpath(*relative)
        target.parent.mkdir(parents=True, exist_ok=True)
        filled = text.replace("{{name}}", name).replace("{{crate}}", crate_name(name))
        target.write_text(filled, encoding="utf-8")


def _template_files(
    folder: Traversable, prefix: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _template_files(entry, (*prefix, entry.name))
        elif entry.name.endswith(_SUFFIX):
            name = entry.name.removesuffix(_SUFFIX)
            yield (*prefix, _HIDDEN.get(name, name)), entry.read_text(encoding="utf-8")
