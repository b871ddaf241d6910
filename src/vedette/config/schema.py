"""JSON Schemas of what people write and what the engine loads, for editors and other tools.

Owns: docs/reference/*.schema.json. Must not: say anything the models do not say.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from vedette.config.drift import Artifact, main
from vedette.config.manifest import FunctionManifest
from vedette.config.model import Model
from vedette.config.snapshot import Snapshot

FOLDER: Final = Path("docs/reference")
MODELS: Final[dict[str, type[Model]]] = {"function": FunctionManifest, "snapshot": Snapshot}


def schema_of(model: type[Model], name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of `model`, by wire names."""
    schema = model.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"https://vedette.dev/schema/v1alpha1/{name}.schema.json",
        **schema,
    }


def artifacts() -> list[Artifact]:
    """One file per model."""
    return [
        Artifact(
            FOLDER / f"{name}.schema.json",
            json.dumps(schema_of(model, name), indent=2, ensure_ascii=False) + "\n",
        )
        for name, model in MODELS.items()
    ]


if __name__ == "__main__":
    raise SystemExit(main(artifacts))
