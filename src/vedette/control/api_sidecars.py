"""The admin API's part of sidecars.

Owns: its paths. Must not: decide anything; every handler is one call on `Node.sidecars`.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI, Request

from vedette.control.messages import Activation
from vedette.control.node import Node, activation
from vedette.control.sidecar_messages import SidecarStatus, SidecarWish


def add_sidecars(app: FastAPI, node: Node, actor_of: Callable[[Request], str]) -> None:
    """Adds the paths to the admin API."""

    @app.get("/v1/sidecars")
    def sidecars() -> list[SidecarStatus]:
        """Programs that the engine speaks for in the mesh, by name."""
        return node.sidecars.list()

    @app.put("/v1/sidecars/{name}")
    def put_sidecar(name: str, wish: SidecarWish, request: Request) -> Activation:
        """Speaks for a program; changes nothing when it is so already, and not what a manifest says otherwise."""
        return activation(node.sidecars.put(name, wish, actor_of(request)))

    @app.delete("/v1/sidecars/{name}")
    def delete_sidecar(name: str, request: Request) -> Activation:
        """Speaks for a program no more; its identity is taken back."""
        return activation(node.sidecars.remove(name, actor_of(request)))
