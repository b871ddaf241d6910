"""The admin API's part of models.

Owns: its paths. Must not: decide anything; every handler is one call on `Node.models`.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from vedette.clock import from_rfc3339
from vedette.control.admin_records import NOTE
from vedette.control.messages import Activation, Stored
from vedette.control.model_messages import (
    ModelAdded,
    ModelStatus,
    ModelWish,
    PromoteWish,
    SignatureStatus,
    SignerStatus,
    SignerWish,
    SigningWish,
)
from vedette.control.node import Node, activation
from vedette.control.resolve_models import ModelFile
from vedette.control.sample_messages import ModelSamples, SamplesRemoved
from vedette.control.uploads import receive
from vedette.errors import ConfigError
from vedette.ids import require_name
from vedette.models.admit import MAX_MODEL_BYTES
from vedette.models.signing import MAX_SIGNATURE_BYTES


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

    @app.put("/v1/model-files/{digest}/signature")
    async def put_model_signature(digest: str, request: Request) -> SignatureStatus:
        """Keeps the signature of a stored file (OpenSSF Model Signing, raw bytes), once it holds."""
        too_large = ConfigError("model_too_large", "the signature is larger than 4 MiB")
        with tempfile.TemporaryDirectory(dir=node.home.run, prefix="upload-") as folder:
            file = Path(folder) / "signature"
            await receive(request, file, MAX_SIGNATURE_BYTES, too_large)
            node.models.stored(digest)
            return await asyncio.to_thread(node.models.signatures.put, digest, file.read_bytes())

    @app.delete("/v1/model-files/{digest}/signature")
    def delete_model_signature(digest: str) -> Stored:
        """Has a stored file count as unsigned."""
        size = node.models.stored(digest)
        node.models.signatures.forget(digest)
        return Stored(digest=digest, size=size)

    @app.get("/v1/model-signers")
    def model_signers() -> list[SignerStatus]:
        """Whose signatures of models count."""
        return node.models.signatures.signers()

    @app.put("/v1/model-signers")
    def put_model_signer(wish: SignerWish, request: Request) -> list[SignerStatus]:
        """Has signatures by these certificates, or those that they issue, count."""
        added = node.models.signatures.trust(wish.pem, actor_of(request))
        request.scope[NOTE]["target"] = " ".join(each.fingerprint[:16] for each in added)
        return added

    @app.delete("/v1/model-signers/{fingerprint}")
    def delete_model_signer(fingerprint: str) -> SignerStatus:
        """Has a signer count no more."""
        return node.models.signatures.distrust(fingerprint)

    @app.post("/v1/model-signatures")
    def sign_model_files(wish: SigningWish) -> Response:
        """A signature of files by the node's CA, as `model.sig` has it."""
        signed = node.models.signatures.sign(wish.name, wish.files)
        return Response(signed, media_type="application/json")

    @app.get("/v1/models/{name}/signature", response_class=Response)
    def model_signature(name: str, version: int | None = None) -> Response:
        """The signature of a version, or of the one that serves."""
        file = node.models.digest_of_version(name, version)
        return Response(node.models.signatures.get(file), media_type="application/json")

    @app.post("/v1/models/{name}/signed")
    def sign_model(name: str, version: int | None = None) -> SignatureStatus:
        """Signs a version by the node's CA."""
        file = node.models.digest_of_version(name, version)
        return node.models.signatures.sign_file(name, file)

    @app.post("/v1/models/{name}/verified")
    def verify_model(name: str, version: int | None = None) -> SignatureStatus:
        """Whether the file of a version is whole, and signed by somebody who is trusted."""
        return node.models.signatures.verify(node.models.digest_of_version(name, version))

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
        return activation(
            node.models.promote(name, wish.version, actor_of(request), wish.max_drift)
        )

    @app.post("/v1/models/{name}/rollback")
    def roll_back_model(name: str, request: Request) -> Activation:
        """Serves the version that served before."""
        return activation(node.models.roll_back(name, actor_of(request)))

    @app.get("/v1/models/{name}/samples")
    def model_samples(name: str) -> ModelSamples:
        """What is kept of what a model is asked, without what is in it."""
        require_name(name, "model")
        return node.models.samples.show(name)

    @app.post("/v1/models/{name}/samples/exported", response_class=FileResponse)
    def export_model_samples(
        name: str, since: str | None = None, version: int | None = None
    ) -> Response:
        """Samples as `.npz`: those that came from a time (RFC 3339) on, of all versions or of one."""
        require_name(name, "model")
        begins = 0 if since is None else int(from_rfc3339(since).timestamp())
        with ExitStack() as stack:
            folder = stack.enter_context(node.models.samples.room_for_export())
            file = folder / "samples.npz"
            exported = node.models.samples.export(name, file, begins, version)
            headers = {f"x-vedette-{key}": str(value) for key, value in asdict(exported).items()}
            sent = BackgroundTask(stack.pop_all().close)
            return FileResponse(
                file, media_type="application/octet-stream", headers=headers, background=sent
            )

    @app.delete("/v1/models/{name}/samples")
    def delete_model_samples(name: str) -> SamplesRemoved:
        """Removes all that is kept of what a model was asked."""
        return node.models.samples.forget(require_name(name, "model"))

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
