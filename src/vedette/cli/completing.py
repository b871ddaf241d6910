"""What the shell offers when somebody presses Tab: names of models, their versions, and files beside them.

Owns: the question to the node, which is short and fails in silence. Must not: print, or start anything.
"""

from __future__ import annotations

from glob import escape, glob
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from vedette.cli.options import client_of
from vedette.errors import VedetteError

_PATIENCE: Final = 1.0  # seconds; somebody looks at a cursor that does not move


def model_names(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the node's models that begin so; none when the node does not answer."""
    return [one["name"] for one in _models(context) if one["name"].startswith(incomplete)]


def model_names_or_paths(context: typer.Context, incomplete: str) -> list[str]:
    """The same, and paths that begin so."""
    found = sorted(Path(each) for each in glob(f"{escape(incomplete)}*"))
    paths = [f"{each}/" if each.is_dir() else str(each) for each in found]
    return [*model_names(context, incomplete), *paths]


def model_versions(context: typer.Context, incomplete: str) -> list[str]:
    """Versions that the node keeps of the model that was named before."""
    # An option whose value is still to come ends the parsing, and what stood before it is left in `args`.
    named = {context.params.get("name"), context.params.get("target"), *context.args[:1]}
    kept = [one["versions"] for one in _models(context) if one["name"] in named]
    versions = [str(each["version"]) for each in kept[0]] if kept else []
    return [version for version in versions if version.startswith(incomplete)]


def _models(context: typer.Context) -> list[dict[str, Any]]:
    home = context.params.get("home")
    try:
        found = client_of(Path(home) if home else None).get("/v1/models", _PATIENCE)
    except (VedetteError, OSError):
        return []
    return list(found)


ModelArgument = Annotated[
    str, typer.Argument(help="Name of the model.", autocompletion=model_names)
]
