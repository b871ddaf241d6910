"""The snapshot: everything the engine needs to know, every default filled in, every blob named by
digest.

Owns: the shape of a snapshot, its canonical bytes and its digest. `crates/engine/src/snapshot.rs`
is generated from here. Must not: hold a time, a generation or a secret: the same content has the
same digest, so that a rollback is the activation of an older digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from vedette.config import invariants
from vedette.config.model import Count, Model, build, wire_value
from vedette.errors import ConfigError, TrustError
from vedette.ids import DIGEST_PATTERN, NAME_PATTERN, digest_of

API_VERSION: Final = "vedette.dev/v1alpha1"
PAYLOAD_TYPE: Final = "application/vnd.vedette.snapshot+json"

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Digest = Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)]
PolicyName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,127}$")]
Algorithm = Literal["ES256", "ES384", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA"]


class Node(Model):
    """The node that a snapshot is for."""

    trust_domain: str = Field(
        min_length=1,
        max_length=255,
        pattern=r"^[a-z0-9._-]+$",
        description="SPIFFE trust domain of the node, such as edge-1.vedette.local.",
    )


class Admit(Model):
    """What the first stage lets in: hosts and sizes."""

    hosts: tuple[str, ...] = Field(
        description="Hosts that requests may name: lower case, no port, sorted; `*.example.com` "
        "covers every host below example.com. Any other host gets 421."
    )
    max_header_bytes: Count = Field(
        default=32_768,
        ge=1_024,
        le=1_048_576,
        description="Largest request head, in bytes; beyond: 431.",
    )
    max_headers: Count = Field(
        default=100, ge=8, le=1_000, description="Most header fields in one request; beyond: 431."
    )
    max_uri_bytes: Count = Field(
        default=8_192,
        ge=64,
        le=65_536,
        description="Longest request target, in bytes; beyond: 414.",
    )
    max_connections: Count = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="Most connections open at once on the whole node.",
    )
    max_requests: Count = Field(
        default=4_096,
        ge=1,
        le=1_000_000,
        description="Most requests in flight at once; beyond: 503.",
    )


class IssuerKey(Model):
    """One public key of an issuer, usable with exactly one algorithm."""

    kid: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description="Key id that a token's header names; absent: the key is tried for any token.",
    )
    alg: Algorithm = Field(
        description="The only algorithm this key verifies (RFC 7518 §3.1); never HMAC, never none."
    )
    jwk: dict[str, str] = Field(
        description="The public key as a JWK (RFC 7517), string members only, no private member."
    )


class Issuer(Model):
    """Somebody whose tokens the node believes."""

    name: Name = Field(description="Name of the issuer on this node.")
    issuer: str = Field(
        min_length=1,
        max_length=2_048,
        description="The `iss` claim that its tokens carry, exactly.",
    )
    audiences: tuple[str, ...] = Field(
        min_length=1, description="A token's `aud` must hold at least one of these; sorted."
    )
    leeway_seconds: Count = Field(
        default=5,
        ge=0,
        le=300,
        description="Clock difference forgiven on `exp` and `nbf`, in seconds.",
    )
    keys: tuple[IssuerKey, ...] = Field(
        min_length=1, description="Public keys, sorted by key id and algorithm."
    )


class Identity(Model):
    """Who may prove themselves to this node, and how."""

    issuers: tuple[Issuer, ...] = Field(description="Trusted issuers, sorted by name.")


class PolicyRef(Model):
    """One Cedar policy file, pinned."""

    name: PolicyName = Field(description="File name of the policy, such as default.cedar.")
    blob: Digest = Field(description="Digest of the Cedar text.")


class PolicySet(Model):
    """What is allowed: a Cedar schema and policies, default deny."""

    schema_: Digest = Field(alias="schema", description="Digest of the Cedar schema text.")
    policies: tuple[PolicyRef, ...] = Field(description="Policy files, sorted by name.")


class FunctionLimits(Model):
    """What one request may use of the node while a function answers it."""

    cpu_millis: Count = Field(
        default=1_000,
        ge=1,
        le=600_000,
        description="Time on the CPU, in milliseconds; beyond: 504.",
    )
    wall_millis: Count = Field(
        default=30_000,
        ge=1,
        le=3_600_000,
        description="Time from start to last byte, in ms; beyond: 504.",
    )
    memory_bytes: Count = Field(
        default=134_217_728, ge=65_536, le=4_294_967_296, description="Linear memory, in bytes."
    )
    request_bytes: Count = Field(
        default=10_485_760,
        ge=0,
        le=1_073_741_824,
        description="Largest request body, in bytes; beyond: 413.",
    )
    response_bytes: Count = Field(
        default=10_485_760,
        ge=0,
        le=1_073_741_824,
        description="Largest answer body, in bytes; beyond: 502.",
    )
    concurrency: Count = Field(
        default=256,
        ge=1,
        le=100_000,
        description="Requests this function answers at once; beyond: 503.",
    )


class Function(Model):
    """A deployed function: a component, what it is told, and what it may use."""

    name: Name = Field(description="Name of the function, unique on the node.")
    component: Digest = Field(description="Digest of the WebAssembly component.")
    size: Count = Field(ge=8, le=67_108_864, description="Size of the component, in bytes.")
    env: dict[str, str] = Field(
        default_factory=dict, description="Environment variables the function sees."
    )
    config: dict[str, str] = Field(
        default_factory=dict, description="Values the function reads through `wasi:config/store`."
    )
    limits: FunctionLimits = Field(
        default_factory=FunctionLimits, description="What one request may use."
    )


class PathMatch(Model):
    """Which paths a route takes (Gateway API `HTTPPathMatch`)."""

    type: Literal["Exact", "PathPrefix"] = Field(
        description="`Exact`: this path only. `PathPrefix`: this path and all below it, by segment."
    )
    value: str = Field(
        min_length=1, max_length=1_024, description="A path in normal form; no slash at the end."
    )


class FunctionBackend(Model):
    """A function answers."""

    type: Literal["Function"] = Field(default="Function", description="Always `Function`.")
    function: Name = Field(description="Name of the function that answers.")


class StaticBackend(Model):
    """The node itself answers, always the same."""

    type: Literal["Static"] = Field(default="Static", description="Always `Static`.")
    status: Count = Field(default=200, ge=200, le=599, description="HTTP status of the answer.")
    content_type: str = Field(
        default="text/plain",
        min_length=1,
        max_length=255,
        pattern=r"^[\x20-\x7E]+$",
        description="The content-type of the answer.",
    )
    body: str = Field(default="", max_length=65_536, description="Body of the answer, UTF-8.")


Backend = Annotated[FunctionBackend | StaticBackend, Field(discriminator="type")]


class Route(Model):
    """Which requests go to which backend."""

    name: Name = Field(description="Name of the route, unique on the node.")
    hosts: tuple[str, ...] = Field(
        default=(), description="Hosts the route takes, sorted; empty: every host of `admit.hosts`."
    )
    path: PathMatch = Field(description="Paths the route takes.")
    backend: Backend = Field(description="Who answers.")


class Snapshot(Model):
    """Everything the engine needs to know, as one signed value."""

    api_version: Literal["vedette.dev/v1alpha1"] = Field(
        default=API_VERSION, description="Version of this shape."
    )
    kind: Literal["Snapshot"] = Field(default="Snapshot", description="Always `Snapshot`.")
    node: Node = Field(description="The node this snapshot is for.")
    admit: Admit = Field(description="Hosts and sizes let in.")
    identity: Identity = Field(description="Who may prove themselves.")
    policy: PolicySet = Field(description="What is allowed.")
    functions: tuple[Function, ...] = Field(default=(), description="Functions, sorted by name.")
    routes: tuple[Route, ...] = Field(default=(), description="Routes, sorted by name.")

    @model_validator(mode="after")
    def _require_invariants(self) -> Self:
        problems = invariants.problems_of(self)
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def canonical_bytes(self) -> bytes:
        """The one spelling of this snapshot: UTF-8, sorted keys, no spaces, no nulls; what is
        signed.
        """
        return json.dumps(
            wire_value(self), ensure_ascii=False, sort_keys=True, separators=(",", ":")
        ).encode()

    def digest(self) -> str:
        """The digest of the canonical bytes; it names the snapshot everywhere."""
        return digest_of(self.canonical_bytes())

    @classmethod
    def parse(cls, payload: bytes) -> Snapshot:
        """The snapshot that `payload` spells in canonical form.

        Raises `TrustError` payload_invalid: only this node's own control writes payloads, so
        anything else is not a mistake to mend.
        """
        try:
            snapshot = build(cls, json.loads(payload))
        except (ConfigError, ValueError, RecursionError) as error:
            raise TrustError("payload_invalid", f"not a snapshot: {error}") from None
        if snapshot.canonical_bytes() != payload:
            raise TrustError("payload_invalid", "the snapshot is not in canonical form")
        return snapshot

    def with_(self, **changes: Any) -> Snapshot:
        """A validated copy in which the named fields (snake_case) have new values. Raises
        `ConfigError`.
        """
        fields: Mapping[str, Any] = {name: getattr(self, name) for name in type(self).model_fields}
        aliases = {name: field.alias for name, field in type(self).model_fields.items()}
        merged = {**fields, **changes}
        return build(Snapshot, {aliases.get(name) or name: merged[name] for name in merged})

    def function(self, name: str) -> Function | None:
        """The function of that name."""
        return next((each for each in self.functions if each.name == name), None)

    def route(self, name: str) -> Route | None:
        """The route of that name."""
        return next((each for each in self.routes if each.name == name), None)

    def blobs(self) -> frozenset[str]:
        """The digests of every blob the snapshot needs: components, policies, the schema."""
        policies = {each.blob for each in self.policy.policies}
        components = {each.component for each in self.functions}
        return frozenset(policies | components | {self.policy.schema_})
