"""What the admin API takes and gives: one model for each request and answer, camelCase on the wire.

Owns: the shapes in docs/reference/openapi.json and status.schema.json. Must not: hold behaviour.
"""

from __future__ import annotations

from pydantic import Field

from vedette.config.model import Model
from vedette.config.snapshot import FunctionLimits, Issuer, IssuerKey, Reuse, StaticBackend


class SnapshotStatus(Model):
    """The active snapshot."""

    digest: str = Field(description="Digest of the active snapshot.")
    generation: int = Field(description="How many activations there have been.")
    activated_at: str = Field(description="When it became active, RFC 3339.")


class ListenerStatus(Model):
    """One address the node accepts on."""

    name: str = Field(description="Name of the listener; policies see it as `context.listener`.")
    address: str = Field(description="IP:PORT.")
    url: str = Field(description="Where a person on this machine reaches it.")


class MetricsStatus(Model):
    """Where Prometheus finds the metrics."""

    url: str = Field(description="URL of the metrics, on loopback.")


class SupervisorStatus(Model):
    """The process that watches the others."""

    pid: int | None = Field(description="Process id.")


class ProcessStatus(Model):
    """One watched process."""

    pid: int | None = Field(description="Process id; null while it is not running.")
    state: str = Field(description="running, waiting (before a restart) or stopped.")
    restarts: int = Field(description="Restarts since the node was started.")
    started_at: str | None = Field(description="When this process started, RFC 3339.")


class ProcessesStatus(Model):
    """The processes of the node."""

    supervisor: SupervisorStatus = Field(description="Starts and restarts the others.")
    engine: ProcessStatus = Field(description="The request path.")
    control: ProcessStatus = Field(description="Desired state and the admin API.")


class EngineState(Model):
    """What the engine says of itself; all null while it does not answer."""

    allocator: str | None = Field(default=None, description="pooling or on-demand.")
    allocator_reason: str | None = Field(default=None, description="Why not pooling, if so.")
    pagemap_scan: bool | None = Field(default=None, description="Whether page-map scan is used.")
    landlock: str | None = Field(
        default=None,
        description="Files, network and signals the engine is kept to: enforced, partial or unavailable.",
    )
    seccomp: str | None = Field(
        default=None, description="System calls the engine is denied: enforced or unavailable."
    )
    digest: str | None = Field(default=None, description="Digest of the snapshot it serves.")
    generation: int | None = Field(default=None, description="Generation it serves.")
    error: str | None = Field(default=None, description="Why it serves none, if so.")
    in_flight: int | None = Field(default=None, description="Requests being answered.")


class FunctionStatus(Model):
    """One deployed function."""

    name: str = Field(description="Name of the function.")
    digest: str = Field(description="Digest of its component.")
    route: str = Field(description="Path prefix it answers.")
    domains: tuple[str, ...] = Field(description="Hosts it answers; empty: every host of the node.")
    public: bool = Field(description="Whether callers need no token.")
    url: str = Field(description="Where it answers.")


class NodeStatus(Model):
    """The answer of `vedette status --json`."""

    version: str = Field(description="Version of the node.")
    home: str = Field(description="Home folder of the node.")
    trust_domain: str = Field(description="SPIFFE trust domain.")
    location: str = Field(description="Name of the place, as in x-edge-location.")
    snapshot: SnapshotStatus | None = Field(description="The active snapshot.")
    listeners: tuple[ListenerStatus, ...] = Field(description="Where the node accepts requests.")
    metrics: MetricsStatus = Field(description="Where the metrics are.")
    processes: ProcessesStatus = Field(description="The node's processes.")
    engine: EngineState = Field(description="What the engine says of itself.")
    functions: tuple[FunctionStatus, ...] = Field(description="Deployed functions, by name.")


class FunctionWish(Model):
    """A function to deploy; its component was uploaded before."""

    component: str = Field(description="Digest of the uploaded component.")
    domains: tuple[str, ...] = Field(default=(), description="Hosts; none: every host of the node.")
    route: str | None = Field(
        default=None, description="Path prefix; default /NAME, or / on domains."
    )
    env: dict[str, str] = Field(default_factory=dict, description="Environment of the function.")
    config: dict[str, str] = Field(default_factory=dict, description="Values for wasi:config.")
    limits: FunctionLimits = Field(
        default_factory=FunctionLimits, description="Limits of a request."
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="Where it may send HTTP requests; none: nowhere."
    )
    reuse: Reuse | None = Field(default=None, description="Whether instances are used again.")
    public: bool = Field(default=False, description="Whether callers need no token.")


class Activation(Model):
    """A change that is durable. `applied` is false when the engine was away; it loads the state when it returns."""

    digest: str = Field(description="Digest of the active snapshot.")
    generation: int = Field(description="Its generation.")
    applied: bool = Field(description="Whether the engine serves it already.")


class Deployed(Activation):
    """A deployed function."""

    name: str = Field(description="Name of the function.")
    component: str = Field(description="Digest of its component.")
    route: str = Field(description="Path prefix it answers.")
    url: str = Field(description="Where it answers.")


class Stored(Model):
    """An uploaded component."""

    digest: str = Field(description="Digest it is stored under.")
    size: int = Field(description="Size in bytes.")


class StaticRouteWish(Model):
    """A route that the node answers itself."""

    hosts: tuple[str, ...] = Field(default=(), description="Hosts; none: every host of the node.")
    path: str = Field(description="Path.")
    exact: bool = Field(default=False, description="This path only, not those below it.")
    backend: StaticBackend = Field(description="The answer.")


class PolicyText(Model):
    """A Cedar policy file."""

    name: str = Field(description="File name, such as team.cedar.")
    text: str = Field(description="Cedar text.")


class PolicyWish(Model):
    """Cedar text to store under the name in the path."""

    text: str = Field(max_length=1_000_000, description="Cedar text.")


class PolicyChecked(Model):
    """A policy that was checked and not stored."""

    warnings: tuple[str, ...] = Field(description="What is allowed but looks like a mistake.")


class IssuerWish(Model):
    """An issuer to trust under the name in the path."""

    issuer: str = Field(description="The `iss` claim of its tokens.")
    audiences: tuple[str, ...] = Field(min_length=1, description="Accepted `aud` claims.")
    leeway_seconds: int = Field(default=5, ge=0, le=300, description="Clock difference forgiven.")
    keys: tuple[IssuerKey, ...] = Field(min_length=1, description="Public keys.")


class TokenWish(Model):
    """A token to mint."""

    subject: str = Field(min_length=1, max_length=255, description="The `sub` claim.")
    # Loose here: the issuer of tokens says what is too long, and how to mend it.
    ttl_seconds: int = Field(
        default=3600, ge=0, le=1_000_000_000, description="Life in seconds, at most 30 days."
    )
    scopes: tuple[str, ...] = Field(default=(), description="The `scope` claim.")
    audience: str | None = Field(default=None, description="The `aud` claim; default this node.")


class Token(Model):
    """A minted token; it is not kept."""

    token: str = Field(description="The JWT.")
    expires_at: str = Field(description="When it ends, RFC 3339.")


class HistoryEntry(Model):
    """One activation."""

    generation: int = Field(description="Counts up by one.")
    digest: str = Field(description="Digest of the snapshot.")
    action: str = Field(description="What was done, such as deploy hello.")
    actor: str = Field(description="Who did it.")
    activated_at: str = Field(description="When, RFC 3339.")


class RollbackWish(Model):
    """Where to go back to."""

    digest: str | None = Field(
        default=None, description="A snapshot of the history; default the previous."
    )


class ErrorDetail(Model):
    """What went wrong and how to mend it."""

    code: str = Field(description="Code, as in docs/reference/errors.md.")
    message: str = Field(description="What went wrong.")
    hint: str | None = Field(default=None, description="How to mend it.")
    file: str | None = Field(default=None, description="The file at fault.")
    line: int | None = Field(default=None, description="The line at fault.")


class ErrorAnswer(Model):
    """The body of every answer that is not 2xx."""

    error: ErrorDetail = Field(description="The error.")


IssuerAnswer = Issuer
