"""How a model that is taken in by command is fed and read.

Owns: which of it stays as it was. Pure but for asking whether a file was uploaded. Must not: read that file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from vedette.config.media_manifest import MediaSpec
from vedette.config.model import wire_value
from vedette.config.served import ServedModel
from vedette.config.served_media import MAX_MODEL_FILE_BYTES, FileRole, ModelExtra
from vedette.control.resolve_models import ModelFile
from vedette.errors import ConfigError
from vedette.ids import is_digest
from vedette.store.models import KeptVersion

_FIELDS = ("input", "output", "stream", "files")


def media_of(
    said: MediaSpec | None,
    found: ModelFile,
    before: ServedModel | None,
    stored: Callable[[str], int],
) -> Mapping[str, Any]:
    """`input`, `output`, `stream` and `files` of the next version, as a snapshot says them: what is said, else those of
    `before`. `stored`: the size of an uploaded file.

    Raises `ConfigError` request_invalid, blob_missing.
    """
    if said is None:
        wire = wire_value(before) if before is not None else {}
        return {name: wire[name] for name in _FIELDS if name in wire}

    def extra(written: str, role: FileRole) -> ModelExtra:
        if not is_digest(written):
            raise ConfigError("request_invalid", f"{written[:80]!r} is no digest of an upload")
        size = stored(written)
        if not 1 <= size <= MAX_MODEL_FILE_BYTES:
            message = (
                f"the file for {role} has {size:,} bytes; 1 to {MAX_MODEL_FILE_BYTES:,} are allowed"
            )
            raise ConfigError("request_invalid", message)
        return ModelExtra(role=role, blob=written, size=size)

    return said.resolve(found.inputs, found.outputs, extra)


def extras_of(versions: Iterable[KeptVersion]) -> frozenset[str]:
    """Digests of the files that versions need beside their own."""
    return frozenset(
        extra["blob"]
        for each in versions
        for extra in json.loads(each.definition).get("files") or ()
    )
