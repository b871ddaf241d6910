"""The snapshot: everything the engine needs to know, every default filled in, every blob named by
digest.

Owns: the shape of a snapshot, its canonical bytes and its digest. `crates/engine/src/snapshot.rs`
is generated from here. Must not: hold the time it was made, a generation or a secret: the same content has the
same digest, so that a rollback is the activation of an older digest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from vedette.config import invariants
from vedette.config.addresses import Addresses, CountryRule, Offenders
from vedette.config.breaker import Breaker, Shares
from vedette.config.clients import Challenge, Mode, TlsClients
from vedette.config.egress import EgressPolicy, SpiffeIdText
from vedette.config.faults import Fault
from vedette.config.model import Count, Model, build, wire_value
from vedette.config.rate import Rate
from vedette.config.served import RemoteModel, ServedModel
from vedette.config.sidecar import Sidecar
from vedette.config.tiers import MAX_TIERS, Confidence, ResultCache, Tier
from vedette.config.waf import Waf, WafOverride
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


class Timers(Model):
    """How long a client may take. A connection that takes longer is closed."""

    handshake_millis: Count = Field(
        default=10_000, ge=100, le=60_000, description="TLS handshake, in milliseconds."
    )
    header_millis: Count = Field(
        default=15_000,
        ge=100,
        le=300_000,
        description="From the first byte of a request's head to its last, in milliseconds.",
    )
    idle_millis: Count = Field(
        default=60_000,
        ge=100,
        le=3_600_000,
        description="Between two requests of a connection, in milliseconds.",
    )
    body_bytes_per_second: Count = Field(
        default=240,
        ge=0,
        le=1_000_000_000,
        description="Slowest pace of a body: of a request's after a grace of ten seconds, of an "
        "answer's, as the client takes it, after one of idleMillis; 0: any pace.",
    )
    tunnel_millis: Count = Field(
        default=300_000,
        ge=100,
        le=86_400_000,
        description="How long both ends of a tunnel may be silent, in milliseconds.",
    )


class SourceConnections(Model):
    """Connections of one source: an IPv4 address or an IPv6 /64. An IPv6 /48 has four times as much."""

    most: Count = Field(ge=1, le=1_000_000, description="Most open at once.")
    rate: Rate = Field(description="New ones in a time, before their handshake.")


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
    timers: Timers = Field(
        default_factory=Timers, description="How long a client may take over each part."
    )
    source_connections: SourceConnections | None = Field(
        default=None, description="Connections that one source may have; absent: any number."
    )
    policy_holds_seconds: Count | None = Field(
        default=None,
        ge=1,
        le=31_536_000,
        description="How long the last policy holds without control, in seconds; then everything but "
        "fixed answers is refused; absent: a day.",
    )
    requires_signed_models: bool | None = Field(
        default=None,
        description="Whether only models are loaded that somebody signed whom the node trusts with that; absent: any.",
    )
    sheds: bool | None = Field(
        default=None, description="Whether requests are shed under pressure; absent: they are."
    )
    challenge: Challenge | None = Field(
        default=None, description="Who is asked for a little work first; absent: nobody ever."
    )
    tls_clients: TlsClients | None = Field(
        default=None, description="Which TLS clients are let in; absent: all."
    )
    offenders: Offenders | None = Field(
        default=None, description="When an address is blocked that keeps offending; absent: never."
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


class ClientAuthority(Model):
    """A certificate authority whose clients may prove themselves with a certificate (mTLS)."""

    name: Name = Field(description="Name of the authority on this node.")
    certificates: str = Field(
        min_length=1,
        max_length=262_144,
        description="Its certificates, PEM; the only roots trusted for the clients of this entry.",
    )
    trust_domain: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        pattern=r"^[a-z0-9._-]+$",
        description="Clients must have exactly one SPIFFE ID, of this trust domain; absent: any "
        "certificate of the authority, known by its subject.",
    )
    pins: tuple[str, ...] = Field(
        default=(),
        description="SHA-256 of public keys (`SubjectPublicKeyInfo`) in hex, sorted; when there are "
        "any, a client's key must be one of them.",
    )
    revoked: tuple[str, ...] = Field(
        default=(),
        description="Serial numbers of revoked certificates, lower-case hex without leading "
        "zeros, sorted.",
    )


class Identity(Model):
    """Who may prove themselves to this node, and how."""

    issuers: tuple[Issuer, ...] = Field(description="Trusted issuers, sorted by name.")
    authorities: tuple[ClientAuthority, ...] = Field(
        default=(), description="Authorities of client certificates, sorted by name."
    )
    revoked_tokens: tuple[str, ...] = Field(
        default=(),
        description="Tokens that count no more, each `<iss>#<jti>`, sorted.",
    )
    revoked_spiffe_ids: tuple[str, ...] | None = Field(
        default=None,
        description="SPIFFE IDs that count no more, by certificate or token, sorted; absent: none.",
    )
    revoked_trust_domains: tuple[str, ...] | None = Field(
        default=None,
        description="Trust domains of which nobody counts any more, sorted; absent: none.",
    )


class PolicyRef(Model):
    """One Cedar policy file, pinned."""

    name: PolicyName = Field(description="File name of the policy, such as default.cedar.")
    blob: Digest = Field(description="Digest of the Cedar text.")
    expires_at: Count | None = Field(
        default=None,
        ge=1,
        le=253_402_300_799,
        description="When it ends (a grant), in seconds since 1970; absent: never.",
    )


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


class Reuse(Model):
    """How often and how long one instance may be used; opt-in, since state then outlives a request."""

    max_requests: Count = Field(
        default=1_000, ge=1, le=1_000_000_000, description="Requests an instance answers at most."
    )
    max_age_millis: Count = Field(
        default=60_000,
        ge=1,
        le=86_400_000,
        description="Age at which an instance takes no more requests, in milliseconds.",
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
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Where it may send HTTP requests, sorted: `https://api.example.com`, "
        "`http://10.0.0.7:8080`, `https://*.example.com`, `http://10.0.0.0/8:8080`; a private "
        "address only when it is named, itself or in a range. Empty: nowhere.",
    )
    reuse: Reuse | None = Field(
        default=None, description="Whether instances are used again; absent: a fresh one each time."
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


class BackendRef(Model):
    """One of the services behind a route, and its share of the requests."""

    kind: Literal["Function", "Upstream"] = Field(description="What it is.")
    name: Name = Field(description="Its name.")
    weight: Count = Field(
        default=1, ge=0, le=1_000_000, description="Its share, out of the sum of all weights."
    )


class ServicesBackend(Model):
    """Services answer, each its share of the requests (canary)."""

    type: Literal["Services"] = Field(default="Services", description="Always `Services`.")
    services: tuple[BackendRef, ...] = Field(
        min_length=1, max_length=16, description="Functions and upstreams, sorted by kind and name."
    )


class ModelBackend(Model):
    """A model answers, by the Open Inference Protocol: what follows the route's path follows `/v2/models/NAME`."""

    type: Literal["Model"] = Field(default="Model", description="Always `Model`.")
    model: Name = Field(description="Name of the model that answers.")
    criticality: Literal["Critical", "Sheddable"] | None = Field(
        default=None,
        description="Whose turn is first where requests wait for the model, and who goes where no more may wait; "
        "absent: in between.",
    )


class PathModifier(Model):
    """How a path is changed (Gateway API `HTTPPathModifier`)."""

    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"] = Field(
        description="Replace the whole path, or the part that the route's prefix matched."
    )
    value: str = Field(max_length=1_024, description="What it is replaced with.")


class RedirectBackend(Model):
    """The caller is sent elsewhere (Gateway API `HTTPRequestRedirectFilter`)."""

    type: Literal["Redirect"] = Field(default="Redirect", description="Always `Redirect`.")
    scheme: Literal["http", "https"] | None = Field(
        default=None, description="Scheme of the new location; absent: the request's."
    )
    hostname: str | None = Field(
        default=None, min_length=1, max_length=253, description="Host; absent: the request's."
    )
    port: Count | None = Field(
        default=None, ge=1, le=65_535, description="Port; absent: the scheme's own."
    )
    path: PathModifier | None = Field(default=None, description="Path; absent: the request's.")
    status: Count = Field(default=302, ge=301, le=308, description="301, 302, 303, 307 or 308.")


class StaticFile(Model):
    """One file of a static tree."""

    path: str = Field(
        min_length=1, max_length=1_024, description="Path below the route, `/` between folders."
    )
    blob: Digest = Field(description="Digest of its bytes.")
    size: Count = Field(ge=0, le=1_073_741_824, description="Its size, in bytes.")
    content_type: str = Field(
        min_length=1, max_length=255, pattern=r"^[\x20-\x7E]+$", description="Its content-type."
    )


class FilesBackend(Model):
    """A tree of files answers GET and HEAD; a folder answers with its `index.html`."""

    type: Literal["Files"] = Field(default="Files", description="Always `Files`.")
    files: tuple[StaticFile, ...] = Field(
        max_length=100_000, description="The files, sorted by path."
    )
    fallback: str | None = Field(
        default=None, description="Path of the file that answers for a path that is not there."
    )


Backend = Annotated[
    FunctionBackend
    | StaticBackend
    | ServicesBackend
    | RedirectBackend
    | FilesBackend
    | ModelBackend,
    Field(discriminator="type"),
]


class ValueMatch(Model):
    """A header field, query parameter or cookie that a request must have."""

    type: Literal["Exact", "RegularExpression"] = Field(
        default="Exact",
        description="`Exact`, or a regular expression that matches the whole value.",
    )
    name: str = Field(min_length=1, max_length=256, description="Its name.")
    value: str = Field(min_length=1, max_length=4_096, description="Its value.")


class HeaderField(Model):
    """A header field to set or add."""

    name: str = Field(min_length=1, max_length=256, description="Its name, lower case.")
    value: str = Field(max_length=4_096, description="Its value.")


class HeaderModifier(Model):
    """How header fields are changed (Gateway API `HTTPHeaderFilter`)."""

    set: tuple[HeaderField, ...] = Field(default=(), description="Replaced or added.")
    add: tuple[HeaderField, ...] = Field(default=(), description="Added to what is there.")
    remove: tuple[str, ...] = Field(default=(), description="Taken away; lower case.")


class Rewrite(Model):
    """What the service sees in place of what the caller sent (Gateway API `HTTPURLRewriteFilter`)."""

    hostname: str | None = Field(
        default=None, min_length=1, max_length=253, description="Host; absent: as it came."
    )
    path: PathModifier | None = Field(default=None, description="Path; absent: as it came.")


class Mirror(Model):
    """A copy of the requests, whose answers nobody reads (Gateway API `HTTPRequestMirrorFilter`)."""

    upstream: Name = Field(description="Upstream that gets the copies.")
    percent: Count = Field(default=100, ge=0, le=100, description="Share of requests copied.")


class Retry(Model):
    """When a request is sent again (Gateway API `HTTPRouteRetry`); only safe methods ever are."""

    attempts: Count = Field(default=1, ge=0, le=10, description="Tries after the first.")
    codes: tuple[Count, ...] = Field(
        default=(502, 503, 504), description="Statuses that are tried again, sorted."
    )
    backoff_millis: Count = Field(
        default=25, ge=0, le=60_000, description="Wait before the second try; doubles each time."
    )


class Hedge(Model):
    """When a request that waits is sent to another endpoint as well; only safe methods without a body ever are."""

    after_millis: Count = Field(
        ge=1, le=600_000, description="How long an answer is waited for before the next is sent."
    )
    attempts: Count = Field(default=1, ge=1, le=5, description="Requests beside the first.")


class Stickiness(Model):
    """Requests of one caller go to one service (Gateway API `SessionPersistence`)."""

    cookie: str = Field(
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9_-]+$",
        description="Name of the cookie that remembers the choice.",
    )


class Route(Model):
    """Which requests go to which backend. Of several routes that match, the most specific answers:
    the host, the path, then the method, then most header fields, query parameters and cookies.
    """

    name: Name = Field(description="Name of the route, unique on the node.")
    hosts: tuple[str, ...] = Field(
        default=(), description="Hosts the route takes, sorted; empty: every host of `admit.hosts`."
    )
    path: PathMatch = Field(description="Paths the route takes.")
    method: str | None = Field(
        default=None, pattern=r"^[A-Z]{1,16}$", description="Method it takes; absent: any."
    )
    headers: tuple[ValueMatch, ...] = Field(
        default=(),
        max_length=16,
        description="Header fields a request must have; names lower case.",
    )
    query: tuple[ValueMatch, ...] = Field(
        default=(), max_length=16, description="Query parameters a request must have."
    )
    cookies: tuple[ValueMatch, ...] = Field(
        default=(), max_length=16, description="Cookies a request must have."
    )
    backend: Backend = Field(description="Who answers.")
    rewrite: Rewrite | None = Field(default=None, description="What the service sees instead.")
    request_headers: HeaderModifier | None = Field(
        default=None, description="Changes to the request's header fields."
    )
    response_headers: HeaderModifier | None = Field(
        default=None, description="Changes to the answer's header fields."
    )
    mirror: Mirror | None = Field(default=None, description="Who gets copies of the requests.")
    timeout_millis: Count | None = Field(
        default=None,
        ge=1,
        le=86_400_000,
        description="From the request to the last byte of an upstream's answer; absent: no end.",
    )
    try_millis: Count | None = Field(
        default=None,
        ge=1,
        le=86_400_000,
        description="The same for each try; absent: no end.",
    )
    retry: Retry | None = Field(default=None, description="When a request is sent again.")
    hedge: Hedge | None = Field(
        default=None, description="When it is sent to another endpoint as well; absent: never."
    )
    fault: Fault | None = Field(
        default=None, description="What goes wrong on purpose; absent: nothing."
    )
    sticky: Stickiness | None = Field(
        default=None, description="Whether a caller stays with one service."
    )
    tiers: tuple[Tier, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_TIERS,
        description="Who answers in place of its model, in this order; absent: nobody.",
    )
    confidence: Confidence | None = Field(
        default=None, description="How sure an answer has to be; absent: not at all."
    )
    cache: ResultCache | None = Field(
        default=None, description="Which answers are remembered; absent: none."
    )
    waf: WafOverride | None = Field(
        default=None, description="How it is inspected; absent: as `waf.policy` says."
    )
    challenge: Mode | None = Field(
        default=None,
        description="Whose pages are behind the challenge; absent: as the node says, but for files and "
        "fixed answers, which are behind none.",
    )
    countries: CountryRule | None = Field(
        default=None, description="From which countries it may be asked; absent: from everywhere."
    )


class Endpoint(Model):
    """One place where an upstream answers."""

    host: str = Field(min_length=1, max_length=253, description="Address or host name.")
    port: Count = Field(ge=1, le=65_535, description="Port.")
    weight: Count = Field(default=1, ge=0, le=1_000, description="Its share of the requests.")


class UpstreamTls(Model):
    """How an upstream is spoken to over TLS."""

    server_name: str | None = Field(
        default=None,
        min_length=1,
        max_length=253,
        description="Name its certificate must be for; absent: the endpoint's host.",
    )
    ca: str | None = Field(
        default=None,
        max_length=262_144,
        description="Certificates trusted, PEM, and no others; absent: those of the machine.",
    )
    client_certificate: Name | None = Field(
        default=None,
        description="Name of the client certificate it is shown (`vedette certificate`).",
    )
    peers: tuple[SpiffeIdText, ...] | None = Field(
        default=None,
        max_length=256,
        description="SPIFFE IDs of which it must have one, sorted; then both sides prove themselves by "
        "SVIDs, the node by that of its gateway. Absent: by names and certificates.",
    )


class ActiveHealth(Model):
    """Requests that ask an endpoint whether it is well."""

    path: str = Field(default="/", min_length=1, max_length=1_024, description="What is asked for.")
    interval_millis: Count = Field(
        default=5_000, ge=100, le=3_600_000, description="Time between two questions."
    )
    timeout_millis: Count = Field(
        default=1_000, ge=10, le=60_000, description="How long an answer may take."
    )
    healthy_after: Count = Field(
        default=2, ge=1, le=100, description="Good answers until it is used again."
    )
    unhealthy_after: Count = Field(
        default=3, ge=1, le=100, description="Bad answers until it is not used."
    )


class PassiveHealth(Model):
    """What is learnt from the requests themselves."""

    failures: Count = Field(
        default=5,
        ge=0,
        le=1_000,
        description="Failures in a row until an endpoint is not used; 0: any number.",
    )
    eject_millis: Count = Field(
        default=10_000,
        ge=100,
        le=3_600_000,
        description="How long it is then not used the first time, and how much longer each further time.",
    )
    max_eject_millis: Count | None = Field(
        default=None,
        ge=100,
        le=86_400_000,
        description="How long at most; absent: five minutes, or `ejectMillis` where that is longer.",
    )
    shares: Shares | None = Field(
        default=None, description="Shares of failures and slow answers until then; absent: any."
    )


class Upstream(Model):
    """An HTTP service behind the node."""

    name: Name = Field(description="Name of the upstream, unique on the node.")
    endpoints: tuple[Endpoint, ...] = Field(
        min_length=1, max_length=256, description="Where it answers, sorted by host and port."
    )
    protocol: Literal["auto", "http1", "http2"] = Field(
        default="auto",
        description="`auto`: HTTP/2 where TLS agrees on it, else HTTP/1.1; `http2` without TLS is "
        "HTTP/2 with prior knowledge (gRPC).",
    )
    tls: UpstreamTls | None = Field(default=None, description="TLS; absent: plain.")
    connect_millis: Count = Field(
        default=5_000, ge=1, le=600_000, description="How long a connection may take to open."
    )
    response_millis: Count = Field(
        default=60_000,
        ge=1,
        le=86_400_000,
        description="How long the head of an answer may take; beyond: 504.",
    )
    idle_millis: Count = Field(
        default=60_000, ge=1, le=86_400_000, description="How long an unused connection is kept."
    )
    max_connections: Count = Field(
        default=1_024,
        ge=1,
        le=1_000_000,
        description="Most connections to one endpoint; beyond: 503.",
    )
    retry_percent: Count = Field(
        default=20,
        ge=0,
        le=100,
        description="Retry budget: share of the requests that may be retries, ten a second aside.",
    )
    health: ActiveHealth | None = Field(default=None, description="Active health; absent: none.")
    outlier: PassiveHealth = Field(
        default_factory=PassiveHealth, description="Passive health (outlier detection)."
    )
    breaker: Breaker | None = Field(
        default=None, description="When no endpoint is asked for a while; absent: never."
    )


class Quota(Model):
    """How many requests in a calendar period, UTC; counted on this node, kept over restarts."""

    requests: Count = Field(ge=1, le=1_000_000_000_000, description="Requests per period.")
    period: Literal["Hour", "Day", "Month"] = Field(description="The period.")


class Limit(Model):
    """What a principal, a route or a source may ask for. A request must pass every limit."""

    name: Name = Field(description="Name of the limit, unique on the node; in records.")
    per: tuple[Literal["Principal", "Route", "Source"], ...] = Field(
        description="What it is counted by, sorted; a source is an IPv4 address or an IPv6 /64, and a "
        "/48 has four times as much. Empty: all requests together."
    )
    routes: tuple[Name, ...] = Field(
        default=(), description="Routes it is for, sorted; empty: every route."
    )
    rate: Rate | None = Field(default=None, description="Requests in a time; beyond: 429.")
    concurrency: Count | None = Field(
        default=None, ge=1, le=1_000_000, description="Requests at once; beyond: 503."
    )
    quota: Quota | None = Field(default=None, description="Requests in a period; beyond: 429.")


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
    models: tuple[ServedModel, ...] | None = Field(
        default=None, max_length=10_000, description="Models, sorted by name; absent: none."
    )
    remote_models: tuple[RemoteModel, ...] | None = Field(
        default=None,
        max_length=10_000,
        description="Models that only tiers have, sorted by name; absent: none.",
    )
    routes: tuple[Route, ...] = Field(default=(), description="Routes, sorted by name.")
    upstreams: tuple[Upstream, ...] = Field(default=(), description="Upstreams, sorted by name.")
    limits: tuple[Limit, ...] = Field(default=(), description="Limits, sorted by name.")
    egress: tuple[EgressPolicy, ...] | None = Field(
        default=None,
        description="What functions and programs may call, sorted by name; absent: nothing but the "
        "functions' `allowedHosts`.",
    )
    sidecars: tuple[Sidecar, ...] | None = Field(
        default=None,
        max_length=256,
        description="Programs that the engine speaks for in the mesh, sorted by name; absent: none.",
    )
    waf: Waf | None = Field(default=None, description="The firewall; absent: nothing is inspected.")
    addresses: Addresses | None = Field(
        default=None, description="What is known of addresses; absent: nothing."
    )

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

    def model(self, name: str) -> ServedModel | None:
        """The model of that name."""
        return next((each for each in self.models or () if each.name == name), None)

    def remote_model(self, name: str) -> RemoteModel | None:
        """The model of that name that only tiers have."""
        return next((each for each in self.remote_models or () if each.name == name), None)

    def route(self, name: str) -> Route | None:
        """The route of that name."""
        return next((each for each in self.routes if each.name == name), None)

    def blobs(self) -> frozenset[str]:
        """The digests of every blob the snapshot needs: components, policies, rules, the schema."""
        policies = {each.blob for each in self.policy.policies}
        components = {each.component for each in self.functions}
        files = {
            file.blob
            for route in self.routes
            if isinstance(route.backend, FilesBackend)
            for file in route.backend.files
        }
        rules = {self.waf.rules} if self.waf else set()
        named = self.rule_files() | self.address_files()
        models = {blob for each in self.models or () for blob in each.blobs()}
        return frozenset(
            policies | components | models | files | rules | named | {self.policy.schema_}
        )

    def rule_files(self) -> frozenset[str]:
        """The digests of the firewall's rule files that are a user's own."""
        own = self.waf.policy.rule_files if self.waf else ()
        for route in self.routes:
            own += route.waf.rule_files if route.waf else ()
        return frozenset(file.blob for file in own)

    def address_files(self) -> frozenset[str]:
        """The digests of the lists of addresses and of the database of countries."""
        if self.addresses is None:
            return frozenset()
        countries = self.addresses.countries
        lists = {each.blob for each in self.addresses.lists}
        return frozenset(lists | ({countries.blob} if countries else set()))
