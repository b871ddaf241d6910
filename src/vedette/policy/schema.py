"""The Cedar schema that every policy of a node is checked against.

Owns: schema.cedarschema. Must not: hold a policy. The engine builds entities of exactly this shape;
a change here is a change of the snapshot's digest.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

SCHEMA_NAME: Final = "schema.cedarschema"


def schema_text() -> str:
    """The schema in Cedar's own syntax."""
    return files("vedette.policy").joinpath(SCHEMA_NAME).read_text(encoding="utf-8")
