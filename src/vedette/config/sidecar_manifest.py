"""A program in the mesh, as people write it: the kind Sidecar.

Owns: its shape. Must not: know what is made of it; `control.sidecar_parts` does.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vedette.config.egress import SpiffeIdText
from vedette.config.hosts import normalise_host
from vedette.config.manifest import Metadata
from vedette.config.model import Model
from vedette.config.sidecar import SidecarMode
from vedette.config.waf_manifest import WafSpec
from vedette.config.written import checked
from vedette.errors import ConfigError

_OF_A_PORT = ("host", "protocol", "callers", "waf")

SidecarPort = Annotated[int, Field(strict=True, ge=1, le=65_535)]


def require_loopback(text: str) -> str:
    """The normal form of `localhost` or a loopback address. Who is calling is told to the program in plain fields, and
    whoever else reaches its port goes around the sidecar, so there is no other machine between. Raises `ConfigError`
    invalid_host.
    """
    host = normalise_host(text)
    try:
        if host == "localhost" or ipaddress.ip_address(host).is_loopback:
            return host
    except ValueError:
        pass
    hint = "Write localhost or a loopback address; on another machine the program needs a node of its own."
    raise ConfigError("invalid_host", f"{text!r} is not this machine's loopback", hint)


class SidecarSpec(Model):
    """Where a program answers, and who may call it."""

    port: SidecarPort | None = Field(
        default=None, description="Where the program answers; absent: it only calls."
    )
    host: Annotated[str, checked(require_loopback)] = Field(
        default="127.0.0.1", description="At which loopback address, or `localhost`."
    )
    protocol: Literal["auto", "http1", "http2"] = Field(
        default="auto",
        description="What it speaks, as an Upstream: `auto` is HTTP/1.1 here, `http2` HTTP/2 with prior "
        "knowledge (gRPC).",
    )
    mode: SidecarMode = Field(
        default="Strict",
        description="`Strict`: callers show an SVID and a policy permits them. `Permissive`: who does not "
        "is let in all the same, unless a policy forbids it, and `vedette sidecar --report` tells.",
    )
    callers: tuple[SpiffeIdText, ...] = Field(
        default=(),
        max_length=1_000,
        description="SPIFFE IDs that may call it, of this trust domain or one that the node has the bundle of. "
        "An explicit policy says so.",
    )
    waf: WafSpec | None = Field(
        default=None, description="How its requests are inspected; absent: as the node says."
    )

    @model_validator(mode="after")
    def _require_port(self) -> Self:
        without = [name for name in _OF_A_PORT if name in self.model_fields_set]
        if self.port is None and without:
            raise ValueError(f"{without[0]} needs a port: without one nobody calls the program")
        return self


class SidecarManifest(Model):
    """A program that the engine speaks for in the mesh: it is `spiffe://TRUST-DOMAIN/NAME`, and `NAME.mesh`."""

    api_version: Literal["vedette.dev/v1alpha1"] = Field(description="Version of this shape.")
    kind: Literal["Sidecar"] = Field(description="Always `Sidecar`.")
    metadata: Metadata = Field(description="What it is called: the path of its SPIFFE ID.")
    spec: SidecarSpec = Field(
        default_factory=SidecarSpec, description="Where it answers, and who may call it."
    )
