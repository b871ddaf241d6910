"""The admin API's part of models.

Owns: its paths. Must not: decide anything; every handler is one call on `Node.models`.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI, Request

from vedette.control.admin_records import NOTE
from vedette.control.messages import Activation, Stored
from vedette.control.model_messages import ModelAdded, ModelStatus, ModelWish, PromoteWish
from vedette.control.node import Node, activation
from vedette.control.resolve_models import ModelFile
from vedette.control.uploads import receive
from vedette.errors import ConfigError
from vedette.models.admit import MAX_MODEL_BYTES


def add_models(app: FastAPI, node: Node, actor_of: Callable[[Request], str]) -> None:
    """Adds the paths to the admin API."""

    @app.get("/v1/models")
    def models() -> list[ModelStatus]:
        """Models of the node, by name: what serves, which versions are kept, how the worker is."""
        return node.models.list()

    @app.get("/v1/models/{name}")
    def model(name: str) -> ModelStatus:
        """One model."""
        return node.models.show(name)

    @app.get("/v1/model-files/{digest}")
    def model_file(digest: str) -> Stored:
        """Whether the node has a file of that digest."""
        return Stored(digest=digest, size=node.models.stored(digest))

    @app.put("/v1/model-files/{digest}")
    async def put_model_file(digest: str, request: Request) -> Stored:
        """Stores a model's file (raw bytes, less than 2 GiB) under its digest."""
        too_large = ConfigError("model_too_large", "the model is larger than 2 GiB")
        with tempfile.TemporaryDirectory(dir=node.home.run, prefix="upload-") as folder:
            file = Path(folder) / "model"
            await receive(request, file, MAX_MODEL_BYTES, too_large)
            size = await asyncio.to_thread(node.models.store_file, digest, file)
        return Stored(digest=digest, size=size)

    @app.get("/v1/model-files/{digest}/content")
    def model_content(digest: str) -> ModelFile:
        """What is in an uploaded file: what goes in and comes out. It is looked at unless it was."""
        return node.models.file(digest)

    @app.put("/v1/models/{name}")
    def put_model(name: str, wish: ModelWish, request: Request) -> ModelAdded:
        """Takes in an uploaded file as a version; answers when it serves, unless it is not to be promoted."""
        return node.models.add(name, wish, actor_of(request))[0]

    @app.post("/v1/models/{name}/promoted")
    def promote_model(name: str, wish: PromoteWish, request: Request) -> Activation:
        """Serves a version that is kept."""
        request.scope[NOTE]["target"] = f"{name} {wish.version}"
        return activation(node.models.promote(name, wish.version, actor_of(request)))

    @app.post("/v1/models/{name}/rollback")
    def roll_back_model(name: str, request: Request) -> Activation:
        """Serves the version that served before."""
        return activation(node.models.roll_back(name, actor_of(request)))

    @app.delete("/v1/models/{name}")
    def delete_model(name: str, request: Request) -> list[ModelStatus]:
        """Removes a model, every version of it, and the routes to it; answers those that are left."""
        node.models.remove(name, None, actor_of(request))
        return node.models.list()

    @app.delete("/v1/models/{name}/versions/{version}")
    def delete_model_version(name: str, version: int, request: Request) -> ModelStatus:
        """Forgets a version that does not serve."""
        request.scope[NOTE]["target"] = f"{name} {version}"
        node.models.remove(name, version, actor_of(request))
        return node.models.show(name)
