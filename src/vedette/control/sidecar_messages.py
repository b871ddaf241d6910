"""What the admin API takes and gives of sidecars.

Owns: these shapes in docs/reference/openapi.json and of `vedette sidecar --list --json`. Must not: hold behaviour.
"""

from __future__ import annotations

from pydantic import Field

from vedette.config.egress import SpiffeIdText
from vedette.config.model import Model
from vedette.config.sidecar import SidecarMode
from vedette.config.sidecar_manifest import SidecarPort
from vedette.control.traffic_messages import RouteCaller


class SidecarWish(Model):
    """A program to speak for; what is not said is as in a manifest of kind Sidecar."""

    port: SidecarPort | None = Field(
        default=None, description="Where it answers on 127.0.0.1; absent: it only calls."
    )
    mode: SidecarMode = Field(default="Strict", description="How strict it is with callers.")
    callers: tuple[SpiffeIdText, ...] = Field(
        default=(), max_length=1_000, description="SPIFFE IDs that may call it."
    )


class SidecarStatus(Model):
    """A program that the engine speaks for in the mesh."""

    name: str = Field(description="Name of the sidecar.")
    spiffe_id: str = Field(description="Who it is.")
    host: str = Field(description="What its callers ask for.")
    mode: SidecarMode = Field(description="How strict it is with callers.")
    program: str | None = Field(
        default=None, description="HOST:PORT where the program answers; null: it only calls."
    )
    routes: tuple[str, ...] = Field(
        default=(), description="Routes that take its host, its own first; policies name them."
    )
    callers: tuple[RouteCaller, ...] = Field(
        default=(), description="Policies about these routes, permits first."
    )
    file: str | None = Field(
        default=None, description="Manifest that it belongs to; null: a command made it."
    )
    revoked: bool = Field(description="Whether its SPIFFE ID is revoked: it then has no SVID.")
    svid_until: str | None = Field(
        default=None,
        description="When the SVID ends that the engine shows for it, RFC 3339; null: it has none yet.",
    )


class SidecarSummary(Model):
    """A sidecar in the status of a node."""

    name: str = Field(description="Name of the sidecar.")
    mode: SidecarMode = Field(description="How strict it is with callers.")
