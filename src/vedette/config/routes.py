"""Routes as people write them: our own kind Route, and the HTTPRoute of the Gateway API as it is.

Owns: their shape; field names and bounds are those of `gateway.networking.k8s.io/v1`. Must not: say
what a field means; `control.resolve_routes` does. A field of the standard that the node cannot
honour is known here, so that its refusal can say why.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from vedette.config.clients_manifest import ModeText
from vedette.config.countries_manifest import CountriesSpec
from vedette.config.egress import SpiffeIdText
from vedette.config.faults_manifest import FaultSpec
from vedette.config.kinds import ApiVersion, RateLimitSpec
from vedette.config.manifest import Metadata
from vedette.config.model import Count, Flag, Model
from vedette.config.snapshot import Name
from vedette.config.tiers import MAX_TIERS
from vedette.config.tiers_manifest import ConfidenceSpec, ResultCacheSpec, TierSpec
from vedette.config.waf_manifest import WafSpec
from vedette.config.written import Duration, FileReference, Host

HeaderName = Annotated[
    str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$")
]
HeaderValue = Annotated[str, Field(max_length=4_096, pattern=r"^[\x20-\x7E\t]*$")]
Method = Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]


class PathMatchSpec(Model):
    """Which paths (`HTTPPathMatch`)."""

    type: Literal["Exact", "PathPrefix", "RegularExpression"] = Field(
        default="PathPrefix",
        description="`Exact`, or `PathPrefix`: the path and all below it. `RegularExpression` is "
        "refused.",
    )
    value: str = Field(default="/", max_length=1_024, description="The path.")


class NamedMatchSpec(Model):
    """A header field, query parameter or cookie a request must have."""

    type: Literal["Exact", "RegularExpression"] = Field(
        default="Exact", description="`Exact`, or a regular expression for the whole value."
    )
    name: str = Field(min_length=1, max_length=256, description="Its name.")
    value: str = Field(min_length=1, max_length=4_096, description="Its value.")


class HeaderMatchSpec(NamedMatchSpec):
    """A header field a request must have (`HTTPHeaderMatch`)."""

    name: HeaderName = Field(description="Its name, in any case.")


class MatchSpec(Model):
    """What a request must be: all of it (`HTTPRouteMatch`)."""

    path: PathMatchSpec = Field(
        default_factory=PathMatchSpec, description="The path; absent: every path."
    )
    headers: tuple[HeaderMatchSpec, ...] = Field(
        default=(), max_length=16, description="Header fields."
    )
    query_params: tuple[NamedMatchSpec, ...] = Field(
        default=(), max_length=16, description="Query parameters."
    )
    method: Method | None = Field(default=None, description="The method; absent: any.")


class HeaderFieldSpec(Model):
    """A header field and its value."""

    name: HeaderName = Field(description="Its name.")
    value: HeaderValue = Field(description="Its value.")


class HeaderFilterSpec(Model):
    """How header fields are changed (`HTTPHeaderFilter`)."""

    set: tuple[HeaderFieldSpec, ...] = Field(
        default=(), max_length=16, description="Replaced or added."
    )
    add: tuple[HeaderFieldSpec, ...] = Field(
        default=(), max_length=16, description="Added to what is there."
    )
    remove: tuple[HeaderName, ...] = Field(default=(), max_length=16, description="Taken away.")


class PathModifierSpec(Model):
    """How a path is changed (`HTTPPathModifier`)."""

    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"] = Field(description="What is replaced.")
    replace_full_path: str | None = Field(
        default=None, max_length=1_024, description="The new path, for `ReplaceFullPath`."
    )
    replace_prefix_match: str | None = Field(
        default=None, max_length=1_024, description="The new prefix, for `ReplacePrefixMatch`."
    )

    @property
    def value(self) -> str:
        """The text that replaces."""
        full = self.type == "ReplaceFullPath"
        return (self.replace_full_path if full else self.replace_prefix_match) or ""

    @model_validator(mode="after")
    def _require_value(self) -> Self:
        full, prefix = self.replace_full_path, self.replace_prefix_match
        wanted, other = (full, prefix) if self.type == "ReplaceFullPath" else (prefix, full)
        if wanted is None or other is not None:
            field = self.type[0].lower() + self.type[1:]
            raise ValueError(f"type {self.type} needs {field}, and only that")
        return self


class RedirectSpec(Model):
    """Where the caller is sent (`HTTPRequestRedirectFilter`)."""

    scheme: Literal["http", "https"] | None = Field(default=None, description="New scheme.")
    hostname: Host | None = Field(default=None, description="New host.")
    path: PathModifierSpec | None = Field(default=None, description="New path.")
    port: Annotated[int, Field(strict=True, ge=1, le=65_535)] | None = Field(
        default=None, description="New port."
    )
    status_code: Literal[301, 302, 303, 307, 308] = Field(default=302, description="Status.")


class RewriteSpec(Model):
    """What the service sees instead (`HTTPURLRewriteFilter`)."""

    hostname: Host | None = Field(default=None, description="Host.")
    path: PathModifierSpec | None = Field(default=None, description="Path.")


class FractionSpec(Model):
    """A share (`Fraction`)."""

    numerator: Count = Field(ge=0, description="Above the line.")
    denominator: Count = Field(default=100, ge=1, description="Below the line.")


class ServiceRef(Model):
    """A service by name (`BackendObjectReference`)."""

    group: str = Field(
        default="",
        description="Empty for a Service, `vedette.dev` for Function, Model or Upstream.",
    )
    kind: Literal["Service", "Upstream", "Function", "Model"] = Field(
        default="Service",
        description="`Service` names the Upstream of that name; a Model answers alone.",
    )
    name: Name = Field(description="Its name.")
    namespace: str | None = Field(default=None, description="Ignored: a node has no namespaces.")
    port: Annotated[int, Field(strict=True, ge=1, le=65_535)] | None = Field(
        default=None, description="Ignored: the Upstream's endpoints say the port."
    )


class MirrorSpec(Model):
    """Who gets copies of the requests (`HTTPRequestMirrorFilter`)."""

    backend_ref: ServiceRef = Field(description="Who gets them.")
    percent: Annotated[int, Field(strict=True, ge=0, le=100)] | None = Field(
        default=None, description="Share of requests copied; absent: all."
    )
    fraction: FractionSpec | None = Field(
        default=None, description="The same as a fraction; whole percents only."
    )


class FilterSpec(Model):
    """A change on the way (`HTTPRouteFilter`)."""

    type: Literal[
        "RequestHeaderModifier",
        "ResponseHeaderModifier",
        "RequestMirror",
        "RequestRedirect",
        "URLRewrite",
        "CORS",
        "ExternalAuth",
        "ExtensionRef",
    ] = Field(description="Which; `CORS`, `ExternalAuth` and `ExtensionRef` are refused.")
    request_header_modifier: HeaderFilterSpec | None = Field(
        default=None, description="Changes of the request's header fields."
    )
    response_header_modifier: HeaderFilterSpec | None = Field(
        default=None, description="Changes of the answer's header fields."
    )
    request_mirror: MirrorSpec | None = Field(default=None, description="Copies.")
    request_redirect: RedirectSpec | None = Field(default=None, description="Elsewhere.")
    url_rewrite: RewriteSpec | None = Field(
        default=None, alias="urlRewrite", description="What the service sees instead."
    )
    cors: Any = Field(default=None, description="Refused.")
    external_auth: Any = Field(default=None, description="Refused.")
    extension_ref: Any = Field(default=None, description="Refused.")


class BackendRefSpec(ServiceRef):
    """A service and its share of the requests (`HTTPBackendRef`)."""

    weight: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = Field(
        default=1, description="Its share, out of the sum of all weights."
    )
    filters: tuple[Any, ...] = Field(
        default=(), description="Refused: write filters on the rule, or split the rule."
    )


class TimeoutsSpec(Model):
    """How long an answer may take (`HTTPRouteTimeouts`)."""

    request: Duration | None = Field(
        default=None, description="From the request to the last byte; `0s`: no end."
    )
    backend_request: Duration | None = Field(
        default=None, description="The same for each try; `0s`: no end."
    )


class RetrySpec(Model):
    """When a request is sent again (`HTTPRouteRetry`); only safe methods ever are."""

    codes: tuple[Annotated[int, Field(strict=True, ge=400, le=599)], ...] = Field(
        default=(502, 503, 504), description="Statuses that are tried again."
    )
    attempts: Annotated[int, Field(strict=True, ge=0, le=10)] = Field(
        default=1, description="Tries after the first."
    )
    backoff: Duration = Field(default="25ms", description="Wait before the second; then doubled.")


class HedgeSpec(Model):
    """When a request that waits is sent to another endpoint of its service as well (gRPC's hedging); only safe
    methods without a body ever are. The first good answer counts, and the other request is cut off.
    """

    after: Duration = Field(description="How long an answer is waited for, 1ms to 10m.")
    attempts: Annotated[int, Field(strict=True, ge=1, le=5)] = Field(
        default=1, description="Requests beside the first, each as long after the one before."
    )


class CookieConfigSpec(Model):
    """How long the cookie lives (`CookieConfig`)."""

    lifetime_type: Literal["Session", "Permanent"] = Field(
        default="Session", description="`Permanent` is refused."
    )


class SessionPersistenceSpec(Model):
    """Requests of one caller go to one service (`SessionPersistence`)."""

    session_name: str = Field(
        default="vedette-session",
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9_-]+$",
        description="Name of the cookie.",
    )
    type: Literal["Cookie", "Header"] = Field(
        default="Cookie", description="By a cookie; `Header` is refused."
    )
    absolute_timeout: str | None = Field(default=None, description="Refused.")
    idle_timeout: str | None = Field(default=None, description="Refused.")
    cookie_config: CookieConfigSpec = Field(
        default_factory=CookieConfigSpec, description="The cookie."
    )


class RuleSpec(Model):
    """Which requests, changed how, go where (`HTTPRouteRule`)."""

    name: str | None = Field(default=None, max_length=253, description="For people.")
    matches: tuple[MatchSpec, ...] = Field(
        default=(), max_length=64, description="Any of these; empty: every request."
    )
    filters: tuple[FilterSpec, ...] = Field(
        default=(), max_length=16, description="Changes on the way."
    )
    backend_refs: tuple[BackendRefSpec, ...] = Field(
        default=(), max_length=16, description="Who answers."
    )
    timeouts: TimeoutsSpec = Field(
        default_factory=TimeoutsSpec, description="How long an answer may take."
    )
    retry: RetrySpec | None = Field(default=None, description="When a request is sent again.")
    session_persistence: SessionPersistenceSpec | None = Field(
        default=None, description="Whether a caller stays with one service."
    )


class HttpRouteSpec(Model):
    """Which hosts, and which rules."""

    parent_refs: tuple[Any, ...] = Field(
        default=(), description="Ignored: every listener of the node has every route."
    )
    use_default_gateways: Any = Field(default=None, description="Ignored, as parentRefs.")
    hostnames: tuple[Host, ...] = Field(
        default=(), description="Hosts; empty: every host of the node."
    )
    rules: tuple[RuleSpec, ...] = Field(
        min_length=1, max_length=256, description="Which requests go where."
    )


class KubernetesMetadata(Metadata):
    """What the object is called. What a cluster adds is ignored."""

    model_config = ConfigDict(extra="ignore")


class HttpRouteManifest(Model):
    """A standard HTTPRoute of the Gateway API."""

    api_version: Literal["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"] = (
        Field(description="Version of this shape.")
    )
    kind: Literal["HTTPRoute"] = Field(description="Always `HTTPRoute`.")
    metadata: KubernetesMetadata = Field(description="What it is called.")
    spec: HttpRouteSpec = Field(description="Which requests go where.")
    status: Any = Field(default=None, description="Ignored: a cluster writes it.")


class RouteMatchSpec(MatchSpec):
    """What a request must be: all of it."""

    cookies: tuple[NamedMatchSpec, ...] = Field(default=(), max_length=16, description="Cookies.")


class StaticSpec(Model):
    """The node itself answers, always the same."""

    status: Annotated[int, Field(strict=True, ge=200, le=599)] = Field(
        default=200, description="Status of the answer."
    )
    content_type: str = Field(
        default="text/plain",
        min_length=1,
        max_length=255,
        pattern=r"^[\x20-\x7E]+$",
        description="Its content-type.",
    )
    body: str = Field(default="", max_length=65_536, description="Its body.")


class FilesSpec(Model):
    """A folder of files answers GET and HEAD; a folder in it answers with its `index.html`."""

    folder: FileReference = Field(description="The folder, relative to the manifest.")
    fallback: str | None = Field(
        default=None, description="File that answers for a path that is not there."
    )


class RouteRuleSpec(RuleSpec):
    """Which requests, changed how, go where. One of backendRefs, static and files answers, or a
    filter RequestRedirect does.
    """

    matches: tuple[RouteMatchSpec, ...] = Field(
        default=(), max_length=64, description="Any of these; empty: every request."
    )
    static: StaticSpec | None = Field(default=None, description="A fixed answer.")
    files: FilesSpec | None = Field(default=None, description="A static tree.")
    hedge: HedgeSpec | None = Field(
        default=None, description="When it is sent to another endpoint as well; absent: never."
    )
    fault: FaultSpec | None = Field(
        default=None,
        description="What goes wrong on purpose, to see what follows; absent: nothing.",
    )
    tiers: tuple[TierSpec, ...] = Field(
        default=(),
        max_length=MAX_TIERS,
        description="Who answers in place of the Model of this rule, in this order; empty: nobody.",
    )
    confidence: ConfidenceSpec | None = Field(
        default=None, description="How sure the Model's answer has to be; absent: not at all."
    )
    cache: ResultCacheSpec | None = Field(
        default=None, description="Which answers of the Model are given again; absent: none."
    )
    criticality: Literal["critical", "standard", "sheddable"] | None = Field(
        default=None,
        description="Whose turn is first where requests wait for the Model (`critical`, then `standard`, then "
        "`sheddable`), and who goes where no more may wait; absent: `standard`.",
    )


class RouteSpec(Model):
    """Which hosts, which rules, and who may call."""

    hostnames: tuple[Host, ...] = Field(
        default=(), description="Hosts; empty: every host of the node."
    )
    rules: tuple[RouteRuleSpec, ...] = Field(
        min_length=1, max_length=256, description="Which requests go where."
    )
    public: Flag = Field(
        default=False,
        description="Whether anybody may call it, without a token. An explicit policy says so.",
    )
    callers: tuple[SpiffeIdText, ...] = Field(
        default=(),
        max_length=1_000,
        description="SPIFFE IDs that may call it: of sidecars for hosts of the mesh, of client certificates for "
        "others. An explicit policy says so; not together with `public`.",
    )
    waf: WafSpec | None = Field(
        default=None, description="How its requests are inspected; absent: as the node says."
    )
    challenge: ModeText | None = Field(
        default=None,
        description="Which browsers are asked for a little work before a page; absent: as the node says, "
        "and none before files and fixed answers.",
    )
    rate_limit: RateLimitSpec | None = Field(
        default=None,
        description="What each source may ask for; `{}`: 100 requests a minute; absent: no limit. It is the "
        "Limit `NAME-sources`.",
    )
    countries: CountriesSpec | None = Field(
        default=None,
        description="From which countries; absent: from everywhere. See `countryFile` of the Node.",
    )

    @model_validator(mode="after")
    def _require_one_way_in(self) -> Self:
        if self.public and self.callers:
            raise ValueError(
                "public lets anybody call, so callers would say nothing: leave one out"
            )
        return self


class RouteManifest(Model):
    """Which requests go where; HTTPRoute with cookies, fixed answers, static trees and `public`."""

    api_version: ApiVersion = Field(description="Version of this shape.")
    kind: Literal["Route"] = Field(description="Always `Route`.")
    metadata: Metadata = Field(description="What it is called.")
    spec: RouteSpec = Field(description="Which requests go where.")
