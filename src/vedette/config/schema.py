"""JSON Schemas of what people write and what the engine loads, for editors and other tools.

Owns: docs/reference/*.schema.json. Must not: say anything the models do not say.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from vedette.config.drift import Artifact, main
from vedette.config.manifests import KINDS
from vedette.config.model import Model
from vedette.config.snapshot import Snapshot

FOLDER: Final = Path("docs/reference")
MODELS: Final[dict[str, type[Model]]] = {
    **{kind.lower(): model for kind, model in KINDS.items()},
    "snapshot": Snapshot,
}
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_ID: Final = "https://vedette.dev/schema/v1alpha1"


def schema_of(model: type[Model], name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of `model`, by wire names."""
    schema = model.model_json_schema(by_alias=True)
    return {"$schema": _DIALECT, "$id": f"{_ID}/{name}.schema.json", **schema}


def manifest_schema(kind: str) -> dict[str, Any]:
    """The JSON Schema of one kind of manifest. Raises `KeyError` for an unknown one."""
    return schema_of(KINDS[kind], kind.lower())


def manifests_schema() -> dict[str, Any]:
    """One JSON Schema for every kind, told apart by `kind`."""
    definitions: dict[str, Any] = {}
    for model in KINDS.values():
        schema = model.model_json_schema(by_alias=True)
        definitions.update(schema.pop("$defs", {}))
        definitions[model.__name__] = schema
    options = [{"$ref": f"#/$defs/{model.__name__}"} for model in KINDS.values()]
    return {
        "$schema": _DIALECT,
        "$id": f"{_ID}/manifests.schema.json",
        "title": "Manifest",
        "description": "A manifest of any kind.",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata"],
        "properties": {"kind": {"enum": list(KINDS)}},
        "oneOf": options,
        "$defs": definitions,
    }


def _text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def artifacts() -> list[Artifact]:
    """One file per model, and one for all manifests."""
    files = {f"{name}.schema.json": schema_of(model, name) for name, model in MODELS.items()}
    files["manifests.schema.json"] = manifests_schema()
    return [Artifact(FOLDER / name, _text(schema)) for name, schema in files.items()]


if __name__ == "__main__":
    raise SystemExit(main(artifacts))
