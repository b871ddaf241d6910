"""Sidecars, as a snapshot says them: which programs the engine speaks for in the mesh, and how strictly.

Owns: the shape. Must not: say where a program answers or who may call it; routes and policies do.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from vedette.config.model import Model
from vedette.ids import NAME_PATTERN

MESH_SUFFIX: Final = ".mesh"
"""Hosts below it are for sidecars alone: no public listener answers to them."""
OWN_PATHS: Final = frozenset({"gateway", "fn"})
"""Names that no sidecar has: its SPIFFE ID would be the node's own."""


class Sidecar(Model):
    """One program that the engine speaks for: it has the SPIFFE ID `/NAME`, and answers to `NAME.mesh`."""

    name: Annotated[str, StringConstraints(pattern=NAME_PATTERN)] = Field(
        description="Name of the sidecar, unique on the node."
    )
    mode: Literal["Strict", "Permissive"] = Field(
        default="Strict",
        description="`Strict`: callers show an SVID and a policy permits them. `Permissive`: who does not "
        "is let in all the same, unless a policy forbids it, and told in the record (`wouldBreak`).",
    )
