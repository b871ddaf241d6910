"""The admin API's part of workloads and trust domains.

Owns: its paths. Must not: decide anything; every handler is one call on `Node.workloads` or `Node.identities`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.responses import Response

from vedette.control.admin_records import NOTE
from vedette.control.messages import KeyStatus, RotateWish
from vedette.control.node import Node
from vedette.control.workload.messages import (
    BoxStatus,
    BoxWish,
    BundleStatus,
    BundleWish,
    JoinToken,
    JoinTokenStatus,
    JoinTokenWish,
    WorkloadStatus,
    WorkloadWish,
)

_log = logging.getLogger(__name__)


def add_workloads(app: FastAPI, node: Node, actor_of: Callable[[Request], str]) -> None:
    """Adds the paths to the admin API. Who changes an entry is in control's log: the history is of snapshots."""

    @app.get("/v1/workloads")
    def workloads() -> list[WorkloadStatus]:
        """Workload entries, by name."""
        return node.workloads.list()

    @app.put("/v1/workloads/{name}")
    def put_workload(name: str, wish: WorkloadWish, request: Request) -> WorkloadStatus:
        """Gives callers an identity, in the place of what had that name."""
        status = node.workloads.put(name, wish)
        _log.info("%s put the workload %s: %s", actor_of(request), name, status.spiffe_id)
        return status

    @app.delete("/v1/workloads/{name}")
    def delete_workload(name: str, request: Request) -> list[WorkloadStatus]:
        """Takes an identity away; its certificates are revoked. Answers those that are left."""
        node.workloads.remove(name)
        _log.info("%s removed the workload %s", actor_of(request), name)
        return node.workloads.list()

    @app.get("/v1/join-tokens")
    def join_tokens() -> list[JoinTokenStatus]:
        """Join tokens that are known; never the tokens themselves."""
        return node.joining.list()

    @app.post("/v1/join-tokens")
    def create_join_token(wish: JoinTokenWish, request: Request) -> JoinToken:
        """Makes a join token; only its hash is kept."""
        request.scope[NOTE]["target"] = wish.name
        return node.joining.create(wish)

    @app.delete("/v1/join-tokens/{token_id}")
    def delete_join_token(token_id: str, request: Request) -> list[JoinTokenStatus]:
        """Forgets a join token; answers those that are left."""
        request.scope[NOTE]["target"] = token_id
        node.joining.remove(token_id)
        return node.joining.list()

    @app.get("/v1/ca/keys")
    def ca_keys() -> list[KeyStatus]:
        """The keys of the CA and of JWT-SVIDs that are trusted, and what becomes of each."""
        return node.rotation.statuses()

    @app.post("/v1/ca/rotate")
    def rotate_key(wish: RotateWish, request: Request) -> list[KeyStatus]:
        """Prepares the next key of the CA or of JWT-SVIDs, or brings it forward."""
        request.scope[NOTE]["target"] = "jwt-svid" if wish.jwt else "ca"
        return node.rotation.rotate(wish)

    @app.get("/v1/boxes")
    def boxes() -> list[BoxStatus]:
        """Programs that `vedette run` has started, oldest first."""
        return node.boxes.list()

    @app.post("/v1/boxes")
    def open_box(wish: BoxWish, request: Request) -> BoxStatus:
        """Opens the Workload API for a program in a box, until its launcher ends."""
        status = node.boxes.open(wish)
        _log.info(
            "%s runs %s in a box (process %d)", actor_of(request), status.workload, status.pid
        )
        return status

    @app.delete("/v1/boxes/{name}")
    def close_box(name: str) -> list[BoxStatus]:
        """Closes the Workload API of a box; answers those that are left."""
        node.boxes.close(name)
        return node.boxes.list()

    @app.get("/v1/bundles")
    def bundles() -> list[BundleStatus]:
        """Trust domains whose bundles are known, the node's own first."""
        return node.identities.statuses()

    @app.get("/v1/bundle", response_class=Response)
    def bundle() -> Response:
        """The node's own trust bundle, for others: a SPIFFE bundle (JWKS)."""
        return Response(node.identities.own_bundle().to_jwks(), media_type="application/json")

    @app.put("/v1/bundles/{trust_domain}")
    def put_bundle(trust_domain: str, wish: BundleWish, request: Request) -> BundleStatus:
        """Takes a newer bundle of another trust domain."""
        status = node.identities.put_bundle(trust_domain, wish.document.encode())
        _log.info("%s put the bundle of %s", actor_of(request), status.trust_domain)
        return status

    @app.delete("/v1/bundles/{trust_domain}")
    def delete_bundle(trust_domain: str, request: Request) -> list[BundleStatus]:
        """Forgets another trust domain, and follows it no more; answers those that are left."""
        was_followed = node.following.forget(trust_domain)
        if not was_followed or trust_domain in node.identities.federation.bundles():
            node.identities.remove_bundle(trust_domain)
        _log.info("%s removed the bundle of %r", actor_of(request), trust_domain)
        return node.identities.statuses()
