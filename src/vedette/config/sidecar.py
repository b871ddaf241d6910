"""Sidecars, as a snapshot says them: which programs the engine speaks for in the mesh, and how strictly.

Owns: the shape, and which hosts are the mesh's. Must not: say where a program answers or who may call it; routes and
policies do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from vedette.config.model import Model
from vedette.ids import NAME_PATTERN

MESH_SUFFIX: Final = ".mesh"
"""Hosts below it are for sidecars alone: no public listener answers to them."""
SidecarMode = Literal["Strict", "Permissive"]
OWN_PATHS: Final = frozenset({"gateway", "fn"})
"""Names that no sidecar has: its SPIFFE ID would be the node's own."""


def is_mesh(host: str) -> bool:
    """Whether a host in normal form, or a pattern such as `*.mesh`, is for sidecars alone."""
    return host.endswith(MESH_SUFFIX)


def mixes(hosts: Iterable[str]) -> bool:
    """Whether some are for sidecars alone and some are not. A policy names the route, so it could not tell a caller of
    the one from a caller of the other.
    """
    return len({is_mesh(host) for host in hosts}) > 1


class Sidecar(Model):
    """One program that the engine speaks for: it has the SPIFFE ID `/NAME`, and answers to `NAME.mesh`."""

    name: Annotated[str, StringConstraints(pattern=NAME_PATTERN)] = Field(
        description="Name of the sidecar, unique on the node."
    )
    mode: SidecarMode = Field(
        default="Strict",
        description="`Strict`: callers show an SVID and a policy permits them. `Permissive`: who does not "
        "is let in all the same, unless a policy forbids it, and told in the record (`wouldBreak`).",
    )
