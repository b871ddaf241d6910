"""The admin API: HTTP to operations of the node, and errors to answers.

Owns: paths, status codes, body limits. Must not: decide anything; every handler is one call on `Node`. Handlers are
plain functions (run in a thread) because the node's operations wait for disk and engine.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import Body, Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse

from vedette import __version__
from vedette.config.snapshot import ClientAuthority
from vedette.control.admin_records import NOTE, Recorded
from vedette.control.api_federation import add_federation
from vedette.control.api_firewall import add_firewall
from vedette.control.api_models import add_models
from vedette.control.api_sidecars import add_sidecars
from vedette.control.api_workloads import add_workloads
from vedette.control.limits import BodyLimit
from vedette.control.messages import (
    Activation,
    Adopted,
    AuthorityWish,
    CertificateStatus,
    CertificateWish,
    CredentialStatus,
    CredentialWish,
    Deployed,
    DiffAnswer,
    ErrorAnswer,
    Explained,
    ExplainWish,
    FactStatus,
    FactWish,
    ForgetWish,
    FunctionStatus,
    FunctionWish,
    Granted,
    GrantStatus,
    GrantWish,
    HistoryEntry,
    IssuerStatus,
    IssuerWish,
    LiftWish,
    ManifestSetWish,
    NodeStatus,
    PlanAnswer,
    PlanWish,
    PolicyChecked,
    PolicyText,
    PolicyWish,
    RevocationStatus,
    RevocationWish,
    RevokedToken,
    RevokeWish,
    RollbackWish,
    SerialWish,
    SnapshotAnswer,
    StaticRouteWish,
    Stored,
    Token,
    TokenWish,
)
from vedette.control.node import Node
from vedette.control.traffic_messages import RouteStatus, UpstreamStatus
from vedette.control.uploads import receive
from vedette.errors import ConfigError, UnavailableError, VedetteError
from vedette.observability import metrics, spool
from vedette.store.atomic import disk_error
from vedette.store.blobs import MAX_BLOB_BYTES

FOLLOW_INTERVAL = 0.1  # seconds between looks at the spool
_NOT_FOUND = (
    "function_unknown",
    "model_unknown",
    "route_unknown",
    "policy_unknown",
    "issuer_unknown",
    "authority_unknown",
    "certificate_unknown",
    "credential_unknown",
    "workload_unknown",
    "model_version_unknown",
    "model_signer_absent",
    "box_unknown",
    "bundle_unknown",
    "bundle_not_followed",
    "join_token_unknown",
    "grant_unknown",
    "posture_unknown",
    "sidecar_unknown",
    "snapshot_unknown",
)
_TOO_LARGE = ("blob_too_large", "component_too_large", "model_too_large")


def create_app(node: Node) -> FastAPI:
    """The application that uvicorn serves on the admin socket."""
    app = FastAPI(
        title="Vedette admin API",
        version=__version__,
        description="Served on the Unix socket run/admin.sock of a node, to its own user and root.",
        responses={"4XX": {"model": ErrorAnswer}, "5XX": {"model": ErrorAnswer}},
        docs_url=None,
        redoc_url=None,
    )
    app.add_exception_handler(VedetteError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(OSError, _answer_disk)
    app.add_middleware(BodyLimit)
    app.add_middleware(Recorded, log_of=lambda: node.admin)
    _reading(app, node)
    _functions(app, node)
    _policies(app, node)
    _identity(app, node)
    _manifests(app, node)
    _authorities(app, node)
    _certificates(app, node)
    _credentials(app, node)
    add_firewall(app, node, _actor)
    add_workloads(app, node, _actor)
    add_sidecars(app, node, _actor)
    add_models(app, node, _actor)
    add_federation(app, node)
    _streams(app, node)
    return app


def metrics_text(node: Node) -> bytes:
    """The body of `GET /metrics`."""
    return metrics.render(metrics.NodeCollector(node.metric_facts, node.engine_metrics))


def status_of(error: VedetteError) -> int:
    """The HTTP status of an error of the node."""
    if error.code in _NOT_FOUND:
        return 404
    if error.code in _TOO_LARGE:
        return 413
    return 503 if isinstance(error, UnavailableError) else 422


async def _answer_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, VedetteError)
    return JSONResponse({"error": error.to_dict()}, status_of(error))


async def _answer_disk(_request: Request, error: Exception) -> Response:
    assert isinstance(error, OSError)
    unavailable = disk_error(error, Path(error.filename or "the home folder"))
    return JSONResponse({"error": unavailable.to_dict()}, status_of(unavailable))


async def _answer_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "body")
    mistake = ConfigError("request_invalid", f"{place}: {first['msg']}" if place else first["msg"])
    return JSONResponse({"error": mistake.to_dict()}, 422)


def _actor(request: Request) -> str:
    return request.client.host if request.client else "unknown"


def _note(request: Request) -> dict[str, str]:
    note: dict[str, str] = request.scope[NOTE]
    return note


Actor = Annotated[str, Depends(_actor)]
Note = Annotated[dict[str, str], Depends(_note)]
"""What the record of a request says beside its path: `target`."""


def _reading(app: FastAPI, node: Node) -> None:
    @app.get("/v1/status")
    def status() -> NodeStatus:
        """Everything about the node now."""
        return node.status()

    @app.get("/v1/history")
    def history(limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> list[HistoryEntry]:
        """Activations, newest first."""
        return node.history(limit)

    @app.get("/v1/routes")
    def routes() -> list[RouteStatus]:
        """Routes: which requests they take, who answers, and who may call."""
        return node.routes()

    @app.get("/v1/upstreams")
    def upstreams() -> list[UpstreamStatus]:
        """Services behind the node, and how their endpoints do."""
        return node.upstreams()

    @app.post("/v1/rollback")
    def rollback(
        actor: Actor, note: Note, wish: Annotated[RollbackWish | None, Body()] = None
    ) -> Activation:
        """Activates an older snapshot; without a digest, the one active before this one."""
        note["target"] = (wish and wish.digest) or "previous"
        return node.roll_back(None if wish is None else wish.digest, actor)

    @app.post("/v1/adopt")
    def adopt(actor: Actor) -> Adopted:
        """Puts in force what this installation brings and an older one did not: `vedette upgrade` asks."""
        return node.adopt(actor)

    @app.get("/metrics", response_class=Response)
    def metrics_() -> Response:
        """Metrics in Prometheus' text form."""
        return Response(metrics_text(node), media_type=metrics.CONTENT_TYPE)


def _functions(app: FastAPI, node: Node) -> None:
    @app.get("/v1/functions")
    def functions() -> list[FunctionStatus]:
        """Deployed functions, by name."""
        return node.functions()

    @app.put("/v1/blobs/{digest}")
    async def put_blob(digest: str, request: Request) -> Stored:
        """Stores a component (raw bytes, at most 64 MiB) under its digest."""
        with tempfile.TemporaryDirectory(dir=node.home.run, prefix="upload-") as folder:
            file = Path(folder) / "component"
            await _receive(request, file)
            return await asyncio.to_thread(node.store_component, digest, file)

    @app.put("/v1/functions/{name}")
    def put_function(name: str, wish: FunctionWish, actor: Actor) -> Deployed:
        """Deploys an uploaded component, replacing what had that name; answers when it is active."""
        return node.deploy(name, wish, actor)

    @app.delete("/v1/functions/{name}")
    def delete_function(name: str, actor: Actor) -> Activation:
        """Removes a function with its routes and its public policy."""
        return node.remove(name, actor)

    @app.put("/v1/routes/{name}")
    def put_route(name: str, wish: StaticRouteWish, actor: Actor) -> Activation:
        """Makes the node itself answer a path."""
        return node.put_static_route(name, wish, actor)

    @app.delete("/v1/routes/{name}")
    def delete_route(name: str, actor: Actor) -> Activation:
        """Removes a route."""
        return node.remove_route(name, actor)


def _policies(app: FastAPI, node: Node) -> None:
    @app.get("/v1/policies")
    def policies() -> list[PolicyText]:
        """The active policy files."""
        return node.policies()

    @app.get("/v1/policies/{name}")
    def policy(name: str) -> PolicyText:
        """One policy file."""
        return node.policy(name)

    @app.put("/v1/policies/{name}")
    def put_policy(name: str, wish: PolicyWish, actor: Actor) -> Activation:
        """Checks and activates a policy file."""
        return node.put_policy(name, wish.text, actor)

    @app.post("/v1/policies/{name}/check")
    def check_policy(name: str, wish: PolicyWish) -> PolicyChecked:
        """Checks a policy file beside the active ones, and activates nothing."""
        return PolicyChecked(warnings=tuple(node.check_policy(name, wish.text)))

    @app.post("/v1/explain")
    def explain(wish: ExplainWish) -> Explained:
        """What would be decided about requests, and why."""
        return node.explain(wish.requests, wish.policies)

    @app.delete("/v1/policies/{name}")
    def delete_policy(name: str, actor: Actor) -> Activation:
        """Removes a policy file."""
        return node.remove_policy(name, actor)


def _identity(app: FastAPI, node: Node) -> None:
    @app.get("/v1/issuers")
    def issuers() -> list[IssuerStatus]:
        """Trusted issuers."""
        return node.issuers()

    @app.put("/v1/issuers/{name}")
    def put_issuer(name: str, wish: IssuerWish, actor: Actor) -> Activation:
        """Trusts an issuer."""
        return node.put_issuer(name, wish, actor)

    @app.delete("/v1/issuers/{name}")
    def delete_issuer(name: str, actor: Actor) -> Activation:
        """Stops trusting an issuer."""
        return node.remove_issuer(name, actor)

    @app.post("/v1/issuers/{name}/refresh")
    def refresh_issuer(name: str, actor: Actor) -> IssuerStatus:
        """Fetches the keys of an issuer now."""
        return node.refresh_issuer(name, actor)

    @app.get("/v1/revocations")
    def revocations() -> list[RevocationStatus]:
        """What counts no more: tokens, certificates, SPIFFE IDs, trust domains."""
        return node.revocations.list()

    @app.post("/v1/revocations")
    def revoke(wish: RevocationWish, actor: Actor, note: Note) -> Activation:
        """Refuses from the next request on, and ends what goes on; answers when that is in force and durable."""
        note["target"] = wish.what
        note["reason"] = wish.reason or ""
        return node.revoke(wish, actor)

    @app.post("/v1/revocations/lifted")
    def lift_revocation(wish: LiftWish, actor: Actor, note: Note) -> Activation:
        """Takes a revocation back."""
        note["target"] = wish.what
        return node.lift(wish, actor)

    @app.get("/v1/posture")
    def posture() -> list[FactStatus]:
        """Facts about principals that have not ended."""
        return node.posture.statuses()

    @app.put("/v1/posture")
    def set_fact(wish: FactWish, actor: Actor, note: Note) -> FactStatus:
        """Says that a fact is so, or is not, for a while; answers when that is in force."""
        note["target"] = f"{wish.subject} {wish.fact}{'' if wish.value else '=false'}"
        note["reason"] = wish.reason or ""
        return node.set_fact(wish, actor)

    @app.post("/v1/posture/removed")
    def forget_fact(wish: ForgetWish, note: Note) -> list[FactStatus]:
        """Forgets a fact of a principal, or all; answers those that are left."""
        note["target"] = f"{wish.subject} {wish.fact or ''}".strip()
        return node.forget_fact(wish)

    @app.get("/v1/grants")
    def grants() -> list[GrantStatus]:
        """Permits that end."""
        return node.grants.list()

    @app.post("/v1/grants")
    def grant(wish: GrantWish, actor: Actor, note: Note) -> Granted:
        """Permits somebody something for a while."""
        note["target"] = f"{wish.principal} {wish.target}"
        note["reason"] = wish.reason or ""
        return node.grant(wish, actor)

    @app.delete("/v1/grants/{name}")
    def end_grant(name: str, actor: Actor) -> Activation:
        """Ends a grant before its time."""
        return node.end_grant(name, actor)

    @app.get("/v1/tokens/revoked")
    def revoked_tokens() -> list[RevokedToken]:
        """Tokens that count no more."""
        return node.revoked_tokens()

    @app.post("/v1/tokens/revoked")
    def revoke_token(wish: RevokeWish, actor: Actor, note: Note) -> Activation:
        """Refuses a token from the next request on."""
        note["target"] = wish.jti
        return node.revoke_token(wish, actor)

    @app.post("/v1/tokens")
    def mint_token(wish: TokenWish, note: Note) -> Token:
        """Mints a token; it is neither kept nor logged, and recorded without itself."""
        note["target"] = wish.subject
        return node.mint(wish)

    @app.get("/v1/ca", response_class=Response)
    def ca() -> Response:
        """The certificates of the node's CAs that are trusted, PEM; the active one first."""
        return Response(node.ca_certificate(), media_type="application/x-pem-file")


def _manifests(app: FastAPI, node: Node) -> None:
    @app.put("/v1/files/{digest}")
    async def put_file(digest: str, request: Request) -> Stored:
        """Stores any file (raw bytes, at most 64 MiB) under its digest."""
        with tempfile.TemporaryDirectory(dir=node.home.run, prefix="upload-") as folder:
            file = Path(folder) / "file"
            await _receive(request, file)
            return await asyncio.to_thread(node.store_file, digest, file)

    @app.post("/v1/plan")
    def plan(wish: ManifestSetWish) -> PlanAnswer:
        """Says what applying manifests would do, and does nothing."""
        return node.plan(wish)

    @app.post("/v1/apply")
    def apply(wish: PlanWish, actor: Actor) -> Activation:
        """Applies a plan as it is; refused when another snapshot is active by now."""
        return node.apply(wish, actor)

    @app.get("/v1/snapshots/{name}")
    def snapshot(name: str) -> SnapshotAnswer:
        """A snapshot of the history: `active`, `previous` or a digest (at least 6 digits)."""
        return node.snapshot(name)

    @app.get("/v1/diff")
    def diff(before: str = "previous", after: str = "active") -> DiffAnswer:
        """The difference of two snapshots of the history."""
        return node.diff(before, after)


def _authorities(app: FastAPI, node: Node) -> None:
    @app.get("/v1/authorities")
    def authorities() -> list[ClientAuthority]:
        """Authorities of client certificates."""
        return node.authorities()

    @app.put("/v1/authorities/{name}")
    def put_authority(name: str, wish: AuthorityWish, actor: Actor) -> Activation:
        """Trusts an authority of client certificates."""
        return node.put_authority(name, wish, actor)

    @app.delete("/v1/authorities/{name}")
    def delete_authority(name: str, actor: Actor) -> Activation:
        """Stops trusting an authority."""
        return node.remove_authority(name, actor)

    @app.post("/v1/authorities/{name}/revoked")
    def revoke_certificate(name: str, wish: SerialWish, actor: Actor, note: Note) -> Activation:
        """Refuses a certificate of an authority from the next request on."""
        note["target"] = f"{name} {wish.serial}"
        return node.revoke_certificate(name, wish.serial, actor)


def _credentials(app: FastAPI, node: Node) -> None:
    @app.get("/v1/credentials")
    def credentials() -> list[CredentialStatus]:
        """Credentials that the node adds to calls; never what they are."""
        return node.credentials.list()

    @app.put("/v1/credentials/{name}")
    def put_credential(name: str, wish: CredentialWish, actor: Actor) -> Activation:
        """Keeps a credential."""
        return node.put_credential(name, wish, actor)

    @app.delete("/v1/credentials/{name}")
    def delete_credential(name: str) -> list[CredentialStatus]:
        """Forgets a credential; answers those that are left."""
        node.credentials.remove(name)
        return node.credentials.list()


def _certificates(app: FastAPI, node: Node) -> None:
    @app.get("/v1/certificates")
    def certificates() -> list[CertificateStatus]:
        """Client certificates that services are shown."""
        return node.certificates.list()

    @app.put("/v1/certificates/{name}")
    def put_certificate(name: str, wish: CertificateWish, actor: Actor) -> Activation:
        """Keeps a client certificate and its key."""
        return node.put_certificate(name, wish, actor)

    @app.delete("/v1/certificates/{name}")
    def delete_certificate(name: str) -> list[CertificateStatus]:
        """Forgets a client certificate; answers those that are left."""
        node.certificates.remove(name)
        return node.certificates.list()


def _streams(app: FastAPI, node: Node) -> None:
    @app.get("/v1/functions/{name}/logs", response_class=StreamingResponse)
    def logs(
        name: str, follow: bool = False, tail: Annotated[int, Query(ge=0, le=100_000)] = 100
    ) -> StreamingResponse:
        """What a function wrote to stdout and stderr, JSON lines."""
        node.require_function(name)
        return _stream(
            node.home.spool_logs, lambda line: line.get("function") == name, tail, follow
        )

    @app.get("/v1/records", response_class=StreamingResponse)
    def records(
        follow: bool = False,
        tail: Annotated[int, Query(ge=0, le=100_000)] = 100,
        request_id: Annotated[str | None, Query(alias="id", max_length=128)] = None,
        failed: bool = False,
        kind: Annotated[str | None, Query(max_length=16)] = None,
    ) -> StreamingResponse:
        """Request records, JSON lines; of one request, only what was refused or failed, or of one kind."""
        keep = spool.records_like(request_id, failed, kind)
        folder = node.home.admin_records if kind == "admin" else node.home.spool_requests
        return _stream(folder, keep, tail, follow)


def _stream(folder: Path, keep: spool.Keep, tail: int, follow: bool) -> StreamingResponse:
    return StreamingResponse(_lines(folder, keep, tail, follow), media_type="application/x-ndjson")


async def _lines(folder: Path, keep: spool.Keep, tail: int, follow: bool) -> AsyncIterator[bytes]:
    """The last lines and, when following, those that come. Following begins first, so that no line falls between."""
    follower = await asyncio.to_thread(spool.Follower, folder, keep) if follow else None
    last = await asyncio.to_thread(spool.last_lines, folder, tail, keep)
    yield _encode(last)
    while follower is not None:
        for line in await asyncio.to_thread(follower.poll):
            if line in last:
                last.remove(line)
            else:
                yield _encode([line])
        await asyncio.sleep(FOLLOW_INTERVAL)


def _encode(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)


async def _receive(request: Request, file: Path) -> None:
    """Streams the body to `file`. Raises `ConfigError` blob_too_large at once, `UnavailableError` disk_full."""
    too_large = ConfigError("blob_too_large", "the component is larger than 64 MiB")
    await receive(request, file, MAX_BLOB_BYTES, too_large)
