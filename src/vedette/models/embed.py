"""One file of a model whose weights lie in others: those that are listed, each by its digest.

Owns: which files the process that makes it may read. Must not: import onnx: that process does (`embed_process`), in a
box, and ends.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from vedette.config.gather import require_inside
from vedette.errors import ConfigError
from vedette.ids import require_digest
from vedette.models import boxed
from vedette.models.boxed import Limits

TASK: Final = boxed.Task("vedette.models.embed_process", "model_invalid", "embed_ended")
_MOST_FILES: Final = 1_000


@contextmanager
def embedded(model: Path, data: Mapping[str, str], limits: Limits | None = None) -> Iterator[Path]:
    """The file that was made, which is gone when the `with` ends. `data`: digests by name, as the model says it: a path
    below its own folder.

    Raises `ConfigError` model_missing, model_invalid, model_reaches_outside (a file that is not listed),
    model_too_large, digest_mismatch, invalid_digest, request_invalid, tool_missing;
    `UnavailableError` box_refused, embed_ended.
    """
    if not model.is_file():
        raise ConfigError("model_missing", f"there is no file {model}")
    if len(data) > _MOST_FILES:
        raise ConfigError(
            "request_invalid", f"{len(data):,} files are listed; {_MOST_FILES:,} may be"
        )
    folder = model.resolve().parent
    listed = {
        name: {"path": str(_place(folder, name)), "digest": require_digest(digest)}
        for name, digest in data.items()
    }
    with tempfile.TemporaryDirectory(prefix="vedette-embed-") as made:
        wanted = {
            "model": str(model.resolve()),
            "data": listed,
            "folder": made,
            "reads": [str(model.resolve()), *(each["path"] for each in listed.values())],
        }
        told = boxed.run(TASK, wanted, limits or Limits())
        yield Path(made, told["file"])


def _place(folder: Path, name: str) -> Path:
    """Raises `ConfigError` model_missing, model_reaches_outside."""
    place = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ConfigError("model_reaches_outside", f"{name!r} lies outside the model's folder")
    try:
        place = require_inside(place, folder, repr(name))
    except ConfigError as error:
        raise ConfigError("model_reaches_outside", error.message) from None
    if not place.is_file():
        raise ConfigError("model_missing", f"there is no file {name!r} beside the model")
    return place
