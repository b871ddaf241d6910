"""The admin API's part of trust bundles over the network.

Owns: its paths. Must not: decide anything; every handler is one call on `Node.serving` or `Node.following`.
"""

from __future__ import annotations

from fastapi import FastAPI, Request

from vedette.control.admin_records import NOTE
from vedette.control.federation.messages import (
    EndpointStatus,
    FederationStatus,
    FollowStatus,
    FollowWish,
    ServeWish,
)
from vedette.control.node import Node


def add_federation(app: FastAPI, node: Node) -> None:
    """Adds the paths to the admin API."""

    @app.get("/v1/federation")
    def federation() -> FederationStatus:
        """Where the node serves its trust bundle, and whose it fetches."""
        return node.federation()

    @app.put("/v1/federation/endpoint")
    def put_bundle_endpoint(wish: ServeWish, request: Request) -> EndpointStatus:
        """Serves the node's trust bundle over HTTPS."""
        request.scope[NOTE]["target"] = f"{wish.listen} {wish.profile}"
        return node.serving.put(wish)

    @app.delete("/v1/federation/endpoint")
    def delete_bundle_endpoint() -> FederationStatus:
        """Serves it no more."""
        node.serving.remove()
        return node.federation()

    @app.put("/v1/federation/followed/{trust_domain}")
    def follow_bundle(trust_domain: str, wish: FollowWish, request: Request) -> FollowStatus:
        """Fetches the bundle of another trust domain, now and again and again."""
        request.scope[NOTE]["target"] = f"{trust_domain} {wish.url}"
        return node.following.follow(trust_domain, wish)

    @app.post("/v1/federation/followed/{trust_domain}/refresh")
    def refresh_bundle(trust_domain: str, request: Request) -> FollowStatus:
        """Fetches it now."""
        request.scope[NOTE]["target"] = trust_domain
        return node.following.refresh(trust_domain)

    @app.delete("/v1/federation/followed/{trust_domain}")
    def unfollow_bundle(trust_domain: str, request: Request) -> FederationStatus:
        """Fetches it no more; its bundle stays."""
        request.scope[NOTE]["target"] = trust_domain
        node.following.unfollow(trust_domain)
        return node.federation()
