"""The kinds that people write beside functions and routes: Node, Upstream, Policy, Limit, Issuer,
ClientAuthority.

Owns: their shape, in the units people write. Must not: read the files they name, or know a snapshot
other than through the bounds of its fields.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from vedette.config.addresses_manifest import OffendersSpec
from vedette.config.breaker_manifest import BreakerSpec, FailuresSpec
from vedette.config.clients_manifest import ChallengeSpec, TlsClientsSpec
from vedette.config.egress import SpiffeIdText
from vedette.config.manifest import Metadata
from vedette.config.model import Count, Flag, Model
from vedette.config.snapshot import Algorithm, Name
from vedette.config.waf_manifest import WafSpec
from vedette.config.written import (
    Duration,
    FileReference,
    Host,
    OriginUrl,
    QuotaText,
    RateText,
    Size,
    millis,
    parse_origin,
    parse_rate,
)

ApiVersion = Literal["vedette.dev/v1alpha1"]
Pin = Annotated[str, StringConstraints(pattern=r"^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}$")]
Serial = Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f:]{1,60}$")]


class SourceConnectionsSpec(Model):
    """Connections of one source: an IPv4 address or an IPv6 /64; an IPv6 /48 has four times as much."""

    most: Count = Field(default=1_000, description="Most open at once.")
    rate: RateText = Field(
        default="100/s", description="New ones in a time; others are closed before their handshake."
    )
    burst: Count = Field(default=1_000, description="Most new ones at once.")

    def resolve(self) -> dict[str, Any]:
        """The same as a snapshot says it."""
        requests, period = parse_rate(self.rate)
        rate = {"requests": requests, "periodMillis": period, "burst": self.burst}
        return {"most": self.most, "rate": rate}


class NodeLimits(Model):
    """What the node lets in at all."""

    header_size: Size = Field(default="32KB", description="Largest request head; beyond: 431.")
    headers: Count = Field(default=100, description="Most header fields in a request; beyond: 431.")
    uri_size: Size = Field(default="8KB", description="Longest request target; beyond: 414.")
    connections: Count = Field(default=10_000, description="Most connections open at once.")
    source_connections: SourceConnectionsSpec = Field(
        default_factory=SourceConnectionsSpec, description="Connections of one source."
    )
    requests: Count = Field(default=4_096, description="Most requests at once; beyond: 503.")


class NodeTimers(Model):
    """How long a client may take. A connection that takes longer is closed."""

    handshake: Duration = Field(default="10s", description="TLS handshake.")
    header: Duration = Field(default="15s", description="First to last byte of a request's head.")
    idle: Duration = Field(default="60s", description="Between two requests of a connection.")
    tunnel: Duration = Field(
        default="5m", description="How long both ends of a tunnel (WebSocket) may be silent."
    )
    body_rate: Size = Field(
        default="240B",
        description="Slowest pace of a body, per second: of a request's after a grace of ten "
        "seconds, of an answer's, as the client takes it, after one of `idle`; `0B`: any pace.",
    )


class NodeModelsSpec(Model):
    """Which models the node takes in."""

    require_signature: Flag = Field(
        default=False,
        description="Whether only models are served that somebody signed whom `vedette model trust` names.",
    )


class NodeSpec(Model):
    """What the node as a whole lets in."""

    hosts: tuple[Host, ...] = Field(
        default=(),
        description="Hosts let in beside those of routes and of this machine; any other gets 421.",
    )
    limits: NodeLimits = Field(default_factory=NodeLimits, description="Sizes and counts.")
    timers: NodeTimers = Field(default_factory=NodeTimers, description="Patience with clients.")
    waf: WafSpec = Field(
        default_factory=WafSpec,
        description="How routes are inspected that do not say otherwise.",
    )
    policy_holds: Duration = Field(
        default="24h",
        description="How long the last policy holds while control is away, a second to a year; then "
        "everything but fixed answers is refused until control is back.",
    )
    models: NodeModelsSpec = Field(
        default_factory=NodeModelsSpec, description="Which models are taken in."
    )
    shed: Flag = Field(
        default=True, description="Whether requests are shed while the node is under pressure."
    )
    challenge: ChallengeSpec = Field(
        default_factory=ChallengeSpec, description="Who is asked for a little work first."
    )
    tls_clients: TlsClientsSpec | None = Field(
        default=None, description="Which TLS clients are let in, by their JA4; absent: all."
    )
    offenders: OffendersSpec | None = Field(
        default=None, description="When an address is blocked that keeps offending; absent: never."
    )
    country_file: FileReference | None = Field(
        default=None,
        description="Database of countries in MaxMind's format (`.mmdb`), in place of the one that "
        "Vedette brings.",
    )
    country_data: Literal["Installed", "None"] = Field(
        default="Installed",
        description="`None`: no address has a country; `Installed`: the registries' data that Vedette "
        "brings, where there is no `countryFile`.",
    )

    @model_validator(mode="after")
    def _require_one_database(self) -> Self:
        if self.country_file is not None and self.country_data == "None":
            raise ValueError("countryFile names a database, and countryData says None")
        return self


class NodeManifest(Model):
    """The node itself; there is at most one."""

    api_version: ApiVersion = Field(description="Version of this shape.")
    kind: Literal["Node"] = Field(description="Always `Node`.")
    metadata: Metadata = Field(description="What it is called; any name.")
    spec: NodeSpec = Field(default_factory=NodeSpec, description="What it lets in.")


class EndpointSpec(Model):
    """One place where a service answers."""

    url: OriginUrl = Field(description="Scheme, host and port, such as `https://10.0.0.7:8443`.")
    weight: Count = Field(default=1, description="Its share of the requests, 0 to 1,000.")


class TlsSpec(Model):
    """How a service is spoken to over TLS; its URLs then begin with `https://`."""

    server_name: str | None = Field(
        default=None, description="Name its certificate must be for; absent: the endpoint's host."
    )
    ca: str | None = Field(
        default=None, max_length=262_144, description="Certificates trusted, PEM, and no others."
    )
    ca_file: FileReference | None = Field(
        default=None, description="The same, in a file; neither: those of the machine."
    )
    client_certificate: Name | None = Field(
        default=None,
        description="Certificate the service is shown: a name of `vedette certificate list`.",
    )
    peers: tuple[SpiffeIdText, ...] = Field(
        default=(),
        description="SPIFFE IDs of which the service must have one: both sides then prove themselves by SVIDs, "
        "the node as `spiffe://TRUST-DOMAIN/gateway`; instead of all others here.",
    )

    @model_validator(mode="after")
    def _require_one_way(self) -> Self:
        others = (self.server_name, self.ca, self.ca_file, self.client_certificate)
        if self.peers and any(others):
            raise ValueError("with peers neither name, CA nor client certificate counts")
        return self


class UpstreamTimeouts(Model):
    """How long a service may take."""

    connect: Duration = Field(default="5s", description="Until a connection is open.")
    response: Duration = Field(default="60s", description="Until the head of the answer; then 504.")
    idle: Duration = Field(default="60s", description="How long an unused connection is kept.")


class HealthSpec(Model):
    """Requests that ask an endpoint whether it is well."""

    path: str = Field(default="/", description="What is asked for.")
    interval: Duration = Field(default="5s", description="Time between two questions.")
    timeout: Duration = Field(default="1s", description="How long an answer may take.")
    healthy_threshold: Count = Field(default=2, description="Good answers until it is used again.")
    unhealthy_threshold: Count = Field(default=3, description="Bad answers until it is not used.")


class OutlierSpec(FailuresSpec):
    """When an endpoint is not used for a while, by what requests show (outlier detection)."""

    ejection: Duration = Field(
        default="10s", description="How long the first time, and how much longer each further time."
    )
    max_ejection: Duration | None = Field(
        default=None,
        description="How long at most; absent: 5m, or `ejection` where that is longer.",
    )

    def resolve(self) -> dict[str, Any]:
        """The same as a snapshot says it."""
        data: dict[str, Any] = {
            "failures": self.consecutive_failures,
            "ejectMillis": millis(self.ejection),
        }
        if self.max_ejection is not None:
            data["maxEjectMillis"] = millis(self.max_ejection)
        if (shares := self.shares()) is not None:
            data["shares"] = shares
        return data


class UpstreamSpec(Model):
    """Where a service answers and how it is spoken to."""

    url: OriginUrl | None = Field(default=None, description="The one endpoint, in short.")
    endpoints: tuple[EndpointSpec, ...] = Field(default=(), description="The endpoints.")
    protocol: Literal["auto", "http1", "http2"] = Field(
        default="auto",
        description="`auto`: HTTP/2 where TLS agrees on it, else HTTP/1.1; `http2` without TLS is "
        "HTTP/2 with prior knowledge (gRPC).",
    )
    tls: TlsSpec | None = Field(default=None, description="TLS beyond the defaults of `https://`.")
    timeouts: UpstreamTimeouts = Field(
        default_factory=UpstreamTimeouts, description="How long it may take."
    )
    max_connections: Count = Field(
        default=1_024, description="Most connections to one endpoint; beyond: 503."
    )
    retry_percent: Count = Field(
        default=20, description="Retry budget: share of requests that may be retries, in percent."
    )
    health: HealthSpec | None = Field(default=None, description="Active health; absent: none.")
    outlier: OutlierSpec = Field(default_factory=OutlierSpec, description="Passive health.")
    breaker: BreakerSpec | None = Field(
        default=None, description="When no endpoint is asked for a while; absent: never."
    )

    def origins(self) -> list[tuple[str, int]]:
        """Each URL with its weight."""
        short = [(self.url, 1)] if self.url else []
        return short + [(each.url, each.weight) for each in self.endpoints]

    @model_validator(mode="after")
    def _require_endpoints(self) -> Self:
        if bool(self.url) == bool(self.endpoints):
            raise ValueError("give it a url or endpoints, one of the two")
        schemes = {parse_origin(url).scheme for url, _ in self.origins()}
        if len(schemes) > 1:
            raise ValueError("endpoints are all http:// or all https://")
        if self.tls is not None and schemes != {"https"}:
            raise ValueError("tls needs endpoints with https://")
        if self.tls is not None and self.tls.ca and self.tls.ca_file:
            raise ValueError("tls has both ca and caFile; write one of the two")
        return self


class UpstreamManifest(Model):
    """An HTTP service behind the node."""

    api_version: ApiVersion = Field(description="Version of this shape.")
    kind: Literal["Upstream"] = Field(description="Always `Upstream`.")
    metadata: Metadata = Field(description="What it is called; routes name it.")
    spec: UpstreamSpec = Field(description="Where it answers and how it is spoken to.")


class PolicySpec(Model):
    """Cedar text, here or in a file."""

    cedar: str | None = Field(default=None, max_length=1_000_000, description="Cedar text.")
    cedar_file: FileReference | None = Field(default=None, description="A file with Cedar text.")

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        if (self.cedar is None) == (self.cedar_file is None):
            raise ValueError("give it cedar or cedarFile, one of the two")
        return self


class PolicyManifest(Model):
    """What callers may do: the policy file `NAME.cedar`."""

    api_version: ApiVersion = Field(description="Version of this shape.")
    kind: Literal["Policy"] = Field(description="Always `Policy`.")
    metadata: Metadata = Field(description="Its name, without `.cedar`.")
    spec: PolicySpec = Field(description="The policy.")


class RateLimitSpec(Model):
    """Requests of one source: an IPv4 address or an IPv6 /64; an IPv6 /48 has four times as much."""

    rate: RateText = Field(
        default="100/m", description="Requests in a time, such as `100/m` or `5/s`; beyond: 429."
    )
    burst: Count | None = Field(default=None, description="Most at once; absent: one period's.")

    def resolve(self) -> dict[str, Any]:
        """The same as a snapshot says it."""
        requests, period = parse_rate(self.rate)
        burst = {} if self.burst is None else {"burst": self.burst}
        return {"requests": requests, "periodMillis": period, **burst}


class LimitSpec(Model):
    """How much of what; a request must pass every limit."""

    per: tuple[Literal["Principal", "Route", "Source"], ...] = Field(
        default=(),
        description="What it is counted by; a source is an IPv4 address or an IPv6 /64, and a /48 has "
        "four times as much. Empty: all requests together.",
    )
    routes: tuple[Name, ...] = Field(default=(), description="Routes it is for; empty: every one.")
    rate: RateText | None = Field(
        default=None, description="Requests in a time, such as `100/s` or `10/5m`; beyond: 429."
    )
    burst: Count | None = Field(default=None, description="Most at once; absent: one period's.")
    concurrency: Count | None = Field(default=None, description="Requests at once; beyond: 503.")
    quota: QuotaText | None = Field(
        default=None,
        description="Requests in a calendar period (UTC), such as `10000/day`; beyond: 429.",
    )

    @model_validator(mode="after")
    def _require_limit(self) -> Self:
        if self.rate is None and self.concurrency is None and self.quota is None:
            raise ValueError("it limits nothing: give it a rate, a concurrency or a quota")
        if self.burst is not None and self.rate is None:
            raise ValueError("burst needs a rate")
        return self


class LimitManifest(Model):
    """What a principal, a route or a source may ask for."""

    api_version: ApiVersion = Field(description="Version of this shape.")
    kind: Literal["Limit"] = Field(description="Always `Limit`.")
    metadata: Metadata = Field(description="What it is called; records name it.")
    spec: LimitSpec = Field(description="How much of what.")


class IssuerSpec(Model):
    """Whose tokens, for whom, proved by which keys."""

    issuer: str = Field(min_length=1, max_length=2_048, description="The `iss` claim, exactly.")
    audiences: tuple[str, ...] = Field(min_length=1, description="Accepted `aud` claims.")
    leeway: Duration = Field(default="5s", description="Clock difference forgiven, at most 5m.")
    jwks_file: FileReference = Field(
        description="File with its public keys: a JWKS, a PEM key or a PEM certificate."
    )
    alg: Algorithm | None = Field(default=None, description="Algorithm, when the file says none.")


class IssuerManifest(Model):
    """Somebody whose tokens (JWT) the node believes."""

    api_version: ApiVersion = Field(description="Version of this shape.")
    kind: Literal["Issuer"] = Field(description="Always `Issuer`.")
    metadata: Metadata = Field(description="What it is called on this node.")
    spec: IssuerSpec = Field(description="Which tokens of it are believed.")


class ClientAuthoritySpec(Model):
    """Which client certificates count."""

    ca: str | None = Field(default=None, max_length=262_144, description="Its certificates, PEM.")
    ca_file: FileReference | None = Field(default=None, description="The same, in a file.")
    trust_domain: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        pattern=r"^[a-z0-9._-]+$",
        description="Clients must have exactly one SPIFFE ID, of this trust domain; absent: any "
        "certificate of the authority, known by its subject.",
    )
    pins: tuple[Pin, ...] = Field(
        default=(),
        description="SHA-256 of public keys (SubjectPublicKeyInfo) in hex; when there are any, a "
        "client's key must be one of them.",
    )
    revoked: tuple[Serial, ...] = Field(
        default=(), description="Serial numbers of revoked certificates, in hex."
    )

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        if (self.ca is None) == (self.ca_file is None):
            raise ValueError("give it ca or caFile, one of the two")
        return self


class ClientAuthorityManifest(Model):
    """A certificate authority whose clients may prove themselves with a certificate (mTLS)."""

    api_version: ApiVersion = Field(description="Version of this shape.")
    kind: Literal["ClientAuthority"] = Field(description="Always `ClientAuthority`.")
    metadata: Metadata = Field(description="What it is called on this node.")
    spec: ClientAuthoritySpec = Field(description="Which certificates count.")
