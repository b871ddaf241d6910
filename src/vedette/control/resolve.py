"""Manifests and a snapshot give the next snapshot: every default filled in, every name checked.

Owns: what each kind of manifest means, which objects belong to the manifests, and what `prune`
removes. Pure: no file, no clock, no engine; the same input gives the same bytes. Must not: check
policies (the caller has the native check), or say what changes (`config.difference`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from cryptography import x509

from vedette.config.addresses import Addresses, AddressList, CountryDatabase
from vedette.config.addresses_manifest import AddressListManifest, CrowdSecSource, CrowdSecSpec
from vedette.config.clients_manifest import MODES
from vedette.config.egress import EgressPolicy
from vedette.config.egress_manifest import EgressPolicyManifest
from vedette.config.kinds import (
    ClientAuthorityManifest,
    IssuerManifest,
    LimitManifest,
    NodeManifest,
    NodeSpec,
    PolicyManifest,
    TlsSpec,
    UpstreamManifest,
)
from vedette.config.leaving import answering
from vedette.config.manifest import FunctionManifest
from vedette.config.manifests import Manifest, ManifestObject, Problem, Problems, nearest, typed
from vedette.config.model import Model, build
from vedette.config.model_manifest import ModelManifest
from vedette.config.quantities import parse_size
from vedette.config.routes import HttpRouteManifest, RouteManifest
from vedette.config.served import RemoteModel, ServedModel
from vedette.config.sidecar import is_mesh, mixes
from vedette.config.sidecar_manifest import SidecarManifest
from vedette.config.snapshot import (
    Admit,
    ClientAuthority,
    Function,
    Issuer,
    Limit,
    ModelBackend,
    PolicyRef,
    Route,
    Snapshot,
    StaticFile,
    Upstream,
)
from vedette.config.waf import Waf, WafOverride, WafPolicy
from vedette.config.waf_manifest import WafSpec
from vedette.config.written import millis, parse_origin, parse_quota, parse_rate
from vedette.control.desired import first_admit, function_route
from vedette.control.desired_models import model_route, own_route_name, routes_to
from vedette.control.feeds import begin
from vedette.control.resolve_models import KnownModels, served_of
from vedette.control.resolve_routes import MIXED, Made, Names, routes_of
from vedette.control.sidecar_parts import parts_of, unknown_domains
from vedette.errors import ConfigError
from vedette.identity.tokens import ISSUER_NAME
from vedette.identity.web import NoAnswerError, split_url
from vedette.ids import digest_of
from vedette.policy.defaults import (
    callers_route_policy,
    callers_route_policy_name,
    public_policy,
    public_policy_name,
    public_route_policy,
    public_route_policy_name,
    sidecar_policy_name,
)
from vedette.store.history import Applied

Key = tuple[str, str]
M = TypeVar("M", bound=Model)
W = TypeVar("W", WafPolicy, WafOverride)

UNBUILT: Final = "sha256:" + "0" * 64
_NODE: Final = "node"
_MOST_PERMITS: Final = 10_000
"""Of one Route: each caller on each of its routes is one."""


def _policy_holds(text: str) -> dict[str, int]:
    """Nothing for the usual time, so that snapshots of before stay as they are."""
    usual = NodeSpec.model_fields["policy_holds"].default
    return {} if millis(text) == millis(usual) else {"policyHoldsSeconds": millis(text) // 1_000}


@dataclass(frozen=True, slots=True)
class Kept:
    """Names of what the node keeps besides snapshots: client certificates, credentials of egress, and the trust domains
    whose bundle it has, its own with them (None: not asked); and versions of models with what is in their files.
    """

    certificates: frozenset[str] = frozenset()
    credentials: frozenset[str] = frozenset()
    domains: frozenset[str] | None = None
    models: KnownModels = field(default_factory=KnownModels)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an object of the snapshot comes from."""

    file: str
    line: int | None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a manifest says of the firewall, and where each of its exclusions and own rules stands."""

    policy: WafPolicy | WafOverride
    exclusions: tuple[Origin, ...]
    rules: tuple[Origin, ...]


@dataclass
class Resolved:
    """The next snapshot, and what is known about it."""

    snapshot: Snapshot
    texts: dict[str, str]
    """Policy texts by digest."""
    applied: tuple[Applied, ...]
    """What then belongs to manifests."""
    origins: dict[Key, Origin]
    """Where the objects of these manifests stand."""
    policies: dict[str, Origin]
    """Where the text of each policy of these manifests begins."""
    unbuilt: tuple[str, ...] = ()
    """Functions whose component is still to be built."""
    notes: tuple[str, ...] = ()
    """What a person should know."""
    feeds: dict[str, CrowdSecSource | None] = field(default_factory=dict)
    """Lists of addresses of these manifests, and where control fetches each from."""
    absent: tuple[tuple[str, str], ...] = ()
    """Manifests applied before that are not here and stay as they are: owner and file."""
    inspections: tuple[Inspection, ...] = ()
    """How these manifests have routes inspected."""


def resolve(
    objects: Sequence[ManifestObject],
    base: Snapshot,
    applied: Iterable[Applied],
    hosts: frozenset[str],
    kept: Kept = Kept(),
    *,
    fed: Mapping[str, str] | None = None,
    installed: CountryDatabase | None = None,
    prune: bool = False,
) -> Resolved:
    """The snapshot that `objects` want, starting from `base`. `applied`: what belongs to manifests
    now; `hosts`: what the node answers to anyway; `kept`: what else manifests can name; `fed`: lists of
    addresses of `base` that control fetches, and where from; `installed`: the database of countries that
    the installation brings.

    Raises `ConfigError` manifest_invalid, route_conflict (all problems at once, file and line of the
    first) or snapshot_invalid.
    """
    resolver = _Resolver(
        typed(objects), base, tuple(applied), hosts, kept, fed or {}, installed, prune
    )
    return resolver.resolve()


@dataclass(frozen=True, slots=True)
class _Claim:
    """An object of the next snapshot, and who wants it."""

    value: Any
    manifest: Manifest
    line: int | None


@dataclass
class _Resolver:
    manifests: list[Manifest]
    base: Snapshot
    applied: tuple[Applied, ...]
    hosts: frozenset[str]
    kept: Kept
    fed: Mapping[str, str]
    installed: CountryDatabase | None
    prune: bool
    claims: dict[Key, _Claim] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    policies: dict[str, Origin] = field(default_factory=dict)
    problems: Problems = field(default_factory=Problems)
    notes: list[str] = field(default_factory=list)
    unbuilt: list[str] = field(default_factory=list)
    inspection: WafPolicy | None = None
    """How the Node of these manifests has routes inspected."""
    countries: CountryDatabase | None = None
    """That of the Node of these manifests."""
    feeds: dict[str, CrowdSecSource | None] = field(default_factory=dict)
    inspections: list[Inspection] = field(default_factory=list)
    made: dict[str, list[str]] = field(default_factory=dict)
    """Names of routes by the name of the manifest that makes them."""

    def __post_init__(self) -> None:
        routes = (each for each in self.manifests if each.kind in ("Route", "HTTPRoute"))
        self.route_names = {each.name for each in routes}

    def resolve(self) -> Resolved:
        for manifest in self.manifests:
            self._claim_of(manifest)
        names = self._names()
        for manifest in self.manifests:
            if isinstance(manifest.model, RouteManifest | HttpRouteManifest):
                self._routes(manifest, names)
        for manifest in self.manifests:
            if isinstance(manifest.model, ModelManifest):
                self._way_to_model(manifest)
        for manifest in self.manifests:
            if isinstance(manifest.model, LimitManifest):
                self._limit(manifest, manifest.model)
            elif isinstance(manifest.model, EgressPolicyManifest):
                self._egress(manifest, manifest.model, names)
        self.problems.require_none()
        gone = self._gone()
        self._require_no_conflict(gone)
        snapshot = self._snapshot(gone)
        self._note_countries(snapshot)
        self.notes.extend(_idle_egress(snapshot))
        applied = self._applied(gone)
        owners = self._owners()
        return Resolved(
            snapshot,
            self.texts,
            applied,
            {key: Origin(each.manifest.file, each.line) for key, each in self.claims.items()},
            self.policies,
            tuple(self.unbuilt),
            tuple(dict.fromkeys(self.notes)),
            self.feeds,
            tuple(sorted({(one.owner, one.file) for one in applied if one.owner not in owners})),
            tuple(self.inspections),
        )

    # --- what each kind means

    def _claim_of(self, manifest: Manifest) -> None:
        match manifest.model:
            case NodeManifest():
                self._node(manifest, manifest.model)
            case FunctionManifest():
                self._function(manifest, manifest.model)
            case ModelManifest():
                self._model(manifest, manifest.model)
            case UpstreamManifest():
                self._upstream(manifest, manifest.model)
            case PolicyManifest():
                self._policy(manifest, manifest.model)
            case IssuerManifest():
                self._issuer(manifest, manifest.model)
            case ClientAuthorityManifest():
                self._authority(manifest, manifest.model)
            case AddressListManifest():
                self._address_list(manifest, manifest.model)
            case SidecarManifest():
                self._sidecar(manifest, manifest.model)
            case _:
                pass  # routes and limits need the names of the others

    def _node(self, manifest: Manifest, model: NodeManifest) -> None:
        limits, timers = model.spec.limits, model.spec.timers
        offenders, clients = model.spec.offenders, model.spec.tls_clients
        admit = {
            **({"offenders": offenders.resolve()} if offenders else {}),
            **({} if model.spec.shed else {"sheds": False}),
            **({"requiresSignedModels": True} if model.spec.models.require_signature else {}),
            **_policy_holds(model.spec.policy_holds),
            "challenge": model.spec.challenge.resolve(),
            **({"tlsClients": clients.resolve()} if clients else {}),
            "hosts": sorted({*model.spec.hosts, *self.hosts}),
            "maxHeaderBytes": parse_size(limits.header_size),
            "maxHeaders": limits.headers,
            "maxUriBytes": parse_size(limits.uri_size),
            "maxConnections": limits.connections,
            "maxRequests": limits.requests,
            "sourceConnections": limits.source_connections.resolve(),
            "timers": {
                "handshakeMillis": millis(timers.handshake),
                "headerMillis": millis(timers.header),
                "idleMillis": millis(timers.idle),
                "bodyBytesPerSecond": parse_size(timers.body_rate),
                "tunnelMillis": millis(timers.tunnel),
            },
        }
        if any(map(is_mesh, model.spec.hosts)):
            message = (
                "hosts of the mesh are answered to sidecars alone: a Route says which there are"
            )
            self._problem(manifest, message, "spec", "hosts")
        self._make(manifest, "Node", _NODE, Admit, admit)
        self.inspection = self._waf(manifest, model.spec.waf, WafSpec.policy)
        if model.spec.country_data == "Installed":
            self.countries = self.installed
        if model.spec.country_file is not None:
            file = self._file(manifest, model.spec.country_file, "countryFile")
            if file is not None:
                self.countries = CountryDatabase(blob=file.blob, size=file.size)

    def _function(self, manifest: Manifest, model: FunctionManifest) -> None:
        spec, name = model.spec, manifest.name
        component = manifest.attachment(spec.component or "").component
        if component is None:
            self.unbuilt.append(name)
        function = {
            "name": name,
            "component": component.digest if component else UNBUILT,
            "size": component.size if component else 8,
            "env": spec.env,
            "config": spec.config,
            "limits": spec.limits.resolve(),
            "allowedHosts": sorted(set(spec.allowed_hosts)),
            "reuse": spec.reuse.resolve() if spec.reuse else None,
        }
        if mixes(spec.domains):
            self._problem(manifest, MIXED, "spec", "domains")
        self._make(manifest, "Function", name, Function, function)
        if not self._has_own_route(manifest, model):
            waf = self._waf(manifest, spec.waf, WafSpec.override) if spec.waf else None
            countries = spec.countries.rule() if spec.countries else None
            route = function_route(name, spec.domains, spec.route, waf, countries)
            self._claim(manifest, "Route", name, route)
        if spec.public:
            self._public(manifest, public_policy_name(name), public_policy(name))

    def _has_own_route(self, manifest: Manifest, model: FunctionManifest) -> bool:
        """Whether a Route of the function's name stands for the default one."""
        if manifest.name not in self.route_names:
            return False
        for field_ in ("route", "domains", "waf", "countries"):
            if getattr(model.spec, field_):
                message = f"the Route {manifest.name!r} has the name of this function's own route"
                self._problem(manifest, message, "spec", field_)
        return True

    def _model(self, manifest: Manifest, model: ModelManifest) -> None:
        served: ServedModel | RemoteModel
        try:
            own_route_name(manifest.name)
            if model.spec.file is None:
                served = model.spec.remote(manifest.name)
            else:
                served = served_of(manifest, model.spec, self.kept.models)
        except ConfigError as error:
            place = {"invalid_name": ("metadata", "name"), "model_downgrade": ("spec", "version")}
            said = error.message
            if error.code != "manifest_invalid":
                said += f". {error.hint}"
            self._problem(manifest, said, *place.get(error.code, ("spec", "file")))
            return
        self._claim(manifest, "Model", manifest.name, served)

    def _way_to_model(self, manifest: Manifest) -> None:
        """Its own route, unless another leads to it. A model that only tiers have needs one that says them."""
        claim = self.claims.get(("Model", manifest.name))
        if claim is None:
            return
        own = own_route_name(manifest.name)
        if ("Route", own) in self.claims:
            return
        ways = routes_to(self._rows("Route", self.base.routes, self._gone()), manifest.name)
        if isinstance(claim.value, RemoteModel):
            self._require_tiers(manifest, ways)
        elif not any(each.name != own for each in ways):
            self._claim(manifest, "Route", own, model_route(manifest.name))

    def _require_tiers(self, manifest: Manifest, ways: Iterable[Route]) -> None:
        """Somebody has to have it: each route to it asks a tier for what is missing."""
        routes = list(ways)
        told = f"the model {manifest.name!r} has no `file`, so it is answered by tiers alone"
        if not routes:
            message = f"{told}, and no Route leads to it; write one with `tiers`, `missing` among their `on`"
            self._problem(manifest, message, "spec")
        for route in routes:
            if any("Missing" in tier.on for tier in route.tiers or ()):
                continue
            claim = self.claims.get(("Route", route.name))
            message = f"{told}, and no tier of the Route {route.name!r} has `missing` in `on`"
            self._problem(claim.manifest if claim else manifest, message, "spec")

    def _upstream(self, manifest: Manifest, model: UpstreamManifest) -> None:
        spec = model.spec
        origins = [(parse_origin(url), weight) for url, weight in spec.origins()]
        endpoints = [
            {"host": origin.host, "port": origin.port, "weight": weight}
            for origin, weight in origins
        ]
        endpoints.sort(key=lambda each: (str(each["host"]), each["port"]))
        places = [(each["host"], each["port"]) for each in endpoints]
        if len(places) != len(set(places)):
            self._problem(manifest, "an endpoint is there twice", "spec", "endpoints")
        data: dict[str, Any] = {
            "name": manifest.name,
            "endpoints": endpoints,
            "protocol": spec.protocol,
            "connectMillis": millis(spec.timeouts.connect),
            "responseMillis": millis(spec.timeouts.response),
            "idleMillis": millis(spec.timeouts.idle),
            "maxConnections": spec.max_connections,
            "retryPercent": spec.retry_percent,
            "outlier": spec.outlier.resolve(),
        }
        if origins[0][0].scheme == "https":
            data["tls"] = self._tls(manifest, spec.tls or TlsSpec())
        if spec.breaker is not None:
            data["breaker"] = spec.breaker.resolve()
        if spec.health is not None:
            data["health"] = {
                "path": spec.health.path,
                "intervalMillis": millis(spec.health.interval),
                "timeoutMillis": millis(spec.health.timeout),
                "healthyAfter": spec.health.healthy_threshold,
                "unhealthyAfter": spec.health.unhealthy_threshold,
            }
        self._make(manifest, "Upstream", manifest.name, Upstream, data)

    def _tls(self, manifest: Manifest, spec: TlsSpec) -> dict[str, Any]:
        ca = self._certificates(manifest, spec.ca, spec.ca_file, ("spec", "tls"))
        shown = spec.client_certificate
        if shown is not None and shown not in self.kept.certificates:
            message = f"the node keeps no client certificate {shown!r}"
            message += nearest(
                shown, self.kept.certificates, "; `vedette certificate add` brings one"
            )
            self._problem(manifest, message, "spec", "tls", "clientCertificate")
        named = {
            "serverName": spec.server_name,
            "ca": ca,
            "clientCertificate": shown,
            "peers": sorted(set(spec.peers)) or None,
        }
        return {name: value for name, value in named.items() if value is not None}

    def _certificates(
        self, manifest: Manifest, text: str | None, file: str | None, place: tuple[str, ...]
    ) -> str | None:
        """Certificates in PEM, and nothing else: a private key has no place in a manifest."""
        if file is not None:
            text = manifest.attachment(file).text
        if text is None:
            return None
        where = (*place, "caFile" if file else "ca")
        if "PRIVATE KEY" in text:
            self._problem(manifest, "it holds a private key; give certificates only", *where)
            return None
        try:
            x509.load_pem_x509_certificates(text.encode())
        except ValueError:
            self._problem(manifest, "it holds no certificate in PEM that could be read", *where)
        return text

    def _waf(
        self, manifest: Manifest, spec: WafSpec, read: Callable[[WafSpec, Mapping[str, str]], W]
    ) -> W | None:
        """What the firewall does, with the rule files of a user's own among the texts to store."""
        digests = {}
        for index, file in enumerate(spec.rule_files):
            text = manifest.attachment(file).text
            if text is None:
                self._problem(manifest, "the file was not sent", "spec", "waf", "ruleFiles", index)
                return None
            digests[file] = digest_of(text.encode())
            self.texts[digests[file]] = text
        try:
            made = read(spec, digests)
        except ConfigError as error:
            self._problem(manifest, error.message, "spec", "waf")
            return None

        def origins(name: str, rows: Sequence[object]) -> tuple[Origin, ...]:
            places = (manifest.line("spec", "waf", name, index) for index, _ in enumerate(rows))
            return tuple(Origin(manifest.file, line) for line in places)

        found = origins("exclusions", made.exclusions), origins("rules", made.rules)
        self.inspections.append(Inspection(made, *found))
        return made

    def _policy(self, manifest: Manifest, model: PolicyManifest) -> None:
        name = f"{manifest.name}.cedar"
        spec = model.spec
        text = spec.cedar
        begins = Origin(manifest.file, manifest.text_line("spec", "cedar"))
        if spec.cedar_file is not None:
            text = manifest.attachment(spec.cedar_file).text
            begins = Origin(spec.cedar_file, 1)
        if text is None:
            self._problem(manifest, "the file was not sent", "spec", "cedarFile")
            return
        self.policies[name] = begins
        self._put_text(manifest, name, text)

    def _public(self, manifest: Manifest, name: str, text: str) -> None:
        self._put_text(manifest, name, text, "spec", "public")

    def _put_text(self, manifest: Manifest, name: str, text: str, *place: str) -> None:
        digest = digest_of(text.encode())
        self.texts[digest] = text
        self._claim(manifest, "Policy", name, PolicyRef(name=name, blob=digest), *place)

    def _issuer(self, manifest: Manifest, model: IssuerManifest) -> None:
        spec = model.spec
        if manifest.name == ISSUER_NAME:
            message = f"the issuer {ISSUER_NAME!r} is the node itself"
            self._problem(manifest, message, "metadata", "name")
            return
        keys = manifest.attachment(spec.jwks_file).keys
        leeway, rest = divmod(millis(spec.leeway), 1_000)
        if rest:
            self._problem(manifest, "leeway is in whole seconds", "spec", "leeway")
        data = {
            "name": manifest.name,
            "issuer": spec.issuer,
            "audiences": sorted(set(spec.audiences)),
            "leewaySeconds": leeway,
            "keys": sorted(keys, key=lambda key: f"{key.kid or ''} {key.alg}"),
        }
        self._make(manifest, "Issuer", manifest.name, Issuer, data)

    def _authority(self, manifest: Manifest, model: ClientAuthorityManifest) -> None:
        spec = model.spec
        pem = self._certificates(manifest, spec.ca, spec.ca_file, ("spec",))
        if pem is None:
            return
        data: dict[str, Any] = {
            "name": manifest.name,
            "certificates": pem,
            "pins": sorted({pin.replace(":", "").lower() for pin in spec.pins}),
            "revoked": sorted(
                {one.replace(":", "").lower().lstrip("0") or "0" for one in spec.revoked}
                | self._revoked_of(manifest.name)
            ),
        }
        if spec.trust_domain is not None:
            data["trustDomain"] = spec.trust_domain
        self._make(manifest, "ClientAuthority", manifest.name, ClientAuthority, data)

    def _revoked_of(self, authority: str) -> set[str]:
        """What is revoked stays so: `vedette revoke` writes no manifest."""
        known = self.base.identity.authorities
        return {serial for each in known if each.name == authority for serial in each.revoked}

    def _address_list(self, manifest: Manifest, model: AddressListManifest) -> None:
        spec = model.spec
        data: dict[str, Any] = {
            "name": manifest.name,
            "action": spec.action,
            "onBadLine": spec.on_bad_line,
        }
        self.feeds[manifest.name] = None
        if spec.crowdsec is not None:
            data |= self._fed(manifest, spec.crowdsec)
        elif spec.file is not None:
            file = self._file(manifest, spec.file, "file")
            if file is None:
                return
            modified = manifest.attachment(spec.file).modified_at
            data |= {"blob": file.blob, "size": file.size, "updatedAt": modified}
        else:
            data |= self._list_of("".join(f"{network}\n" for network in spec.networks))
        if spec.max_age is not None:
            data["maxAgeSeconds"] = max(1, millis(spec.max_age) // 1_000)
        self._make(manifest, "AddressList", manifest.name, AddressList, data)

    def _fed(self, manifest: Manifest, spec: CrowdSecSpec) -> dict[str, Any]:
        """The content of a list that control fetches: what it has brought so far, or nothing yet."""
        ca = self._certificates(manifest, None, spec.ca_file, ("spec", "crowdsec"))
        source = self.feeds[manifest.name] = spec.source(ca)
        try:
            split_url(source.url)
        except NoAnswerError as error:
            self._problem(manifest, str(error), "spec", "crowdsec", "url")
        if self.fed.get(manifest.name) != source.url or self.base.addresses is None:
            return self._list_of(begin(source.url))
        (has,) = (each for each in self.base.addresses.lists if each.name == manifest.name)
        content = {"blob": has.blob, "size": has.size, "updatedAt": has.updated_at}
        return {name: value for name, value in content.items() if value is not None}

    def _list_of(self, text: str) -> dict[str, Any]:
        digest = digest_of(text.encode())
        self.texts[digest] = text
        return {"blob": digest, "size": len(text.encode())}

    def _file(self, manifest: Manifest, written: str, field_: str) -> StaticFile | None:
        files = manifest.attachment(written).files
        if len(files) != 1:
            self._problem(manifest, "the file was not sent", "spec", field_)
            return None
        return files[0]

    def _routes(self, manifest: Manifest, names: Names) -> None:
        model = manifest.model
        own = model.spec if isinstance(model, RouteManifest) else None
        of_all: dict[str, Any] = {
            "waf": self._waf(manifest, own.waf, WafSpec.override) if own and own.waf else None,
            "countries": own.countries.rule() if own and own.countries else None,
            "challenge": MODES[own.challenge] if own and own.challenge else None,
        }
        made = routes_of(manifest, names, self.problems, self.notes)
        for each in made:
            route = each.route.model_copy(update=of_all)
            self._claim(manifest, "Route", route.name, route, *each.place)
        if isinstance(model, RouteManifest) and made:
            self._route_policies(manifest, model, made)
        if own and own.rate_limit and made:
            name = f"{manifest.name}-sources"
            limit = {
                "name": name,
                "per": ["Source"],
                "routes": sorted(each.route.name for each in made),
                "rate": own.rate_limit.resolve(),
            }
            self._make(manifest, "Limit", name, Limit, limit)

    def _route_policies(
        self, manifest: Manifest, model: RouteManifest, made: Sequence[Made]
    ) -> None:
        routes, callers = [each.route for each in made], sorted(set(model.spec.callers))
        if model.spec.public:
            text = public_route_policy(manifest.name, routes)
            self._public(manifest, public_route_policy_name(manifest.name), text)
        if len(routes) * len(callers) > _MOST_PERMITS:
            message = f"{len(callers)} callers of {len(routes)} routes are more permits than {_MOST_PERMITS:,}"
            self._problem(manifest, f"{message}; write a Policy", "spec", "callers")
        elif callers:
            text = callers_route_policy(manifest.name, routes, callers)
            name = callers_route_policy_name(manifest.name)
            self._put_text(manifest, name, text, "spec", "callers")
            # Elsewhere a caller may be proved by an authority of client certificates.
            if all(is_mesh(host) for route in routes for host in route.hosts):
                self._note_callers(callers)

    def _note_callers(self, callers: Iterable[str]) -> None:
        if self.kept.domains is not None:
            self.notes.extend(unknown_domains(callers, self.kept.domains))

    def _sidecar(self, manifest: Manifest, model: SidecarManifest) -> None:
        waf = self._waf(manifest, model.spec.waf, WafSpec.override) if model.spec.waf else None
        try:
            parts = parts_of(manifest.name, model.spec, waf)
        except ConfigError as error:
            self._problem(manifest, error.message, "metadata", "name")
            return
        self._claim(manifest, "Sidecar", manifest.name, parts.sidecar)
        if parts.upstream is not None:
            self._claim(manifest, "Upstream", parts.upstream.name, parts.upstream)
        if parts.route is not None:
            self._claim(manifest, "Route", parts.route.name, parts.route)
        if parts.policy is not None:
            name = sidecar_policy_name(manifest.name)
            self._put_text(manifest, name, parts.policy, "spec", "callers")
            self._note_callers(model.spec.callers)

    def _limit(self, manifest: Manifest, model: LimitManifest) -> None:
        spec = model.spec
        data: dict[str, Any] = {
            "name": manifest.name,
            "per": sorted(set(spec.per)),
            "routes": sorted(
                {
                    name
                    for index, written in enumerate(spec.routes)
                    for name in self._route_names(manifest, written, index)
                }
            ),
        }
        if spec.rate is not None:
            requests, period = parse_rate(spec.rate)
            burst = {} if spec.burst is None else {"burst": spec.burst}
            data["rate"] = {"requests": requests, "periodMillis": period, **burst}
        if spec.concurrency is not None:
            data["concurrency"] = spec.concurrency
        if spec.quota is not None:
            requests, calendar = parse_quota(spec.quota)
            data["quota"] = {"requests": requests, "period": calendar}
        self._make(manifest, "Limit", manifest.name, Limit, data)

    def _egress(self, manifest: Manifest, model: EgressPolicyManifest, names: Names) -> None:
        spec = model.spec
        for index, function in enumerate(spec.functions):
            if function not in names.functions:
                message = f"there is no function {function!r}{nearest(function, names.functions)}"
                self._problem(manifest, message, "spec", "functions", index)
        routes = [self._route_names(manifest, each, at) for at, each in enumerate(spec.routes)]
        known = self.kept.credentials
        for index, rule in enumerate(spec.allow):
            name = rule.credential.name if rule.credential else None
            if name is not None and name not in known:
                message = f"the node keeps no credential {name!r}"
                message += nearest(name, known, "; `vedette credential add` brings one")
                self._problem(manifest, message, "spec", "allow", index, "credential", "name")
        data = {
            "name": manifest.name,
            "functions": sorted(set(spec.functions)),
            "workloads": sorted(set(spec.workloads)),
            "routes": sorted({name for each in routes for name in each}) or None,
            "rules": [rule.resolve() for rule in spec.allow],
        }
        self._make(manifest, "EgressPolicy", manifest.name, EgressPolicy, data)

    def _route_names(self, manifest: Manifest, written: str, index: int) -> list[str]:
        """The routes of a Route, HTTPRoute or Function of that name, or one made otherwise."""
        if written in self.made:
            return self.made[written]
        if ("Route", written) in self.claims:
            return [written]
        gone = self._gone()
        owned = [
            each.name
            for each in self.applied
            if each.kind == "Route" and _limited_by(each.owner, each.name) == written
        ]
        there = {each.name for each in self.base.routes if ("Route", each.name) not in gone}
        found = [name for name in owned if name in there] or [written][: written in there]
        if not found:
            known = there | {name for kind, name in self.claims if kind == "Route"}
            message = f"there is no route {written!r}{nearest(written, known)}"
            self._problem(manifest, message, "spec", "routes", index)
        return found

    # --- putting it together

    def _names(self) -> Names:
        def known(kind: str, rows: Iterable[Any]) -> set[str]:
            gone = self._pruned()
            there = {row.name for row in rows if (kind, row.name) not in gone}
            return there | {name for each, name in self.claims if each == kind}

        upstreams = [*self.base.upstreams]
        upstreams += [each.value for (kind, _), each in self.claims.items() if kind == "Upstream"]
        ports = {each.name: frozenset(one.port for one in each.endpoints) for each in upstreams}
        return Names(
            known("Function", self.base.functions),
            known("Upstream", self.base.upstreams),
            ports,
            known("Model", (*(self.base.models or ()), *(self.base.remote_models or ()))),
        )

    def _owners(self) -> set[str]:
        return {_owner(each) for each in self.manifests}

    def _pruned(self) -> set[Key]:
        """What belonged to manifests that are gone."""
        owners = self._owners()
        absent = {(each.kind, each.name) for each in self.applied if each.owner not in owners}
        return absent - set(self.claims) if self.prune else set()

    def _gone(self) -> set[Key]:
        """What is not wanted any more; parts of a manifest that is still there go with no `prune`."""
        owners = self._owners()
        parts = {(each.kind, each.name) for each in self.applied if each.owner in owners}
        closed = {
            ("Policy", public_policy_name(each.name))
            for each in self.manifests
            if each.kind == "Function"
        }
        return (parts | closed | self._own_ways() | self._pruned()) - set(self.claims)

    def _own_ways(self) -> set[Key]:
        """Own routes of models to which a Route of these manifests leads instead."""
        claimed = [each.value for (kind, _), each in self.claims.items() if kind == "Route"]
        models = {each.backend.model for each in claimed if isinstance(each.backend, ModelBackend)}
        return {("Route", own_route_name(name)) for name in models}

    def _rows(self, kind: str, rows: Iterable[Any], gone: set[Key]) -> tuple[Any, ...]:
        kept = {row.name: row for row in rows if (kind, row.name) not in gone}
        claimed = {name: each.value for (one, name), each in self.claims.items() if one == kind}
        merged = {**kept, **claimed}
        return tuple(merged[name] for name in sorted(merged))

    def _snapshot(self, gone: set[Key]) -> Snapshot:
        base = self.base
        routes = self._rows("Route", base.routes, gone)
        models = self._rows("Model", (*(base.models or ()), *(base.remote_models or ())), gone)
        identity = base.identity.model_copy(
            update={
                "issuers": self._rows("Issuer", base.identity.issuers, gone),
                "authorities": self._rows("ClientAuthority", base.identity.authorities, gone),
            }
        )
        policy = base.policy.model_copy(
            update={"policies": self._rows("Policy", base.policy.policies, gone)}
        )
        return base.with_(
            admit=self._admit(routes, gone),
            identity=identity,
            policy=policy,
            functions=self._rows("Function", base.functions, gone),
            models=tuple(each for each in models if isinstance(each, ServedModel)) or None,
            remote_models=tuple(each for each in models if isinstance(each, RemoteModel)) or None,
            routes=routes,
            upstreams=self._rows("Upstream", base.upstreams, gone),
            limits=self._rows("Limit", base.limits, gone),
            egress=self._rows("EgressPolicy", base.egress or (), gone) or None,
            sidecars=self._rows("Sidecar", base.sidecars or (), gone) or None,
            waf=self._inspection(gone),
            addresses=self._addresses(gone),
        )

    def _inspection(self, gone: set[Key]) -> Waf | None:
        """How routes are inspected that do not say: as the Node does, if there is one."""
        waf = self.base.waf
        if waf is None:
            return None
        if ("Node", _NODE) in self.claims:
            return waf.model_copy(update={"policy": self.inspection})
        policy = WafPolicy() if ("Node", _NODE) in gone else waf.policy
        return waf.model_copy(update={"policy": policy})

    def _addresses(self, gone: set[Key]) -> Addresses | None:
        """The lists, and the database that the Node names, if there is one."""
        known = self.base.addresses or Addresses(lists=())
        countries = known.countries
        if ("Node", _NODE) in self.claims:
            countries = self.countries
        elif ("Node", _NODE) in gone:
            countries = self.installed
        lists = self._rows("AddressList", known.lists, gone)
        if not lists and countries is None:
            return None
        return Addresses(lists=lists, countries=countries)

    def _note_countries(self, snapshot: Snapshot) -> None:
        """Who decides by country should know whose countries they are."""
        countries = snapshot.addresses.countries if snapshot.addresses else None
        if countries is None or countries != self.installed:
            return
        if any(each.countries and ("Route", each.name) in self.claims for each in snapshot.routes):
            self.notes.append(
                "countries are those to which registries gave addresses; of one address in twenty "
                "others say another. countryFile of the Node names a better database"
            )

    def _admit(self, routes: Iterable[Route], gone: set[Key]) -> Admit:
        """What the node lets in: its own hosts and those of its routes."""
        claim = self.claims.get(("Node", _NODE))
        before = {host for route in self.base.routes for host in route.hosts}
        admit = self.base.admit
        own = set(admit.hosts) - before
        if claim is not None:
            admit, own = claim.value, set(claim.value.hosts)
        elif ("Node", _NODE) in gone:
            admit, own = first_admit(()), set()
        hosts = own | self.hosts | {host for route in routes for host in route.hosts}
        return admit.model_copy(update={"hosts": tuple(sorted(hosts))})

    def _applied(self, gone: set[Key]) -> tuple[Applied, ...]:
        kept = {
            (each.kind, each.name): each
            for each in self.applied
            if (each.kind, each.name) not in gone
        }
        mine = {
            key: Applied(*key, _owner(each.manifest), each.manifest.file)
            for key, each in self.claims.items()
        }
        merged = {**kept, **mine}
        return tuple(merged[key] for key in sorted(merged))

    def _require_no_conflict(self, gone: set[Key]) -> None:
        """Two routes for one place, told with the line of each that is in these manifests."""
        taken: dict[tuple[object, ...], Route] = {}
        rows = self._rows("Route", self.base.routes, gone)
        # Ours last, so that a conflict with another is told at our line.
        for route in sorted(rows, key=lambda each: ("Route", each.name) in self.claims):
            for host in route.hosts or ("",):
                holder = taken.setdefault(_place_of(route, host), route)
                claim = self.claims.get(("Route", route.name))
                if holder is route or claim is None:
                    continue
                other = self.claims.get(("Route", holder.name))
                where = f" in {other.manifest.file}:{other.line}" if other else ""
                message = (
                    f"route {holder.name!r}{where} already takes "
                    f"{host or 'every host'} {route.path.value}"
                )
                self.problems.add(Problem(claim.manifest.file, claim.line, message))
        self.problems.require_none("route_conflict")

    def _make(
        self, manifest: Manifest, kind: str, name: str, model: type[M], data: dict[str, Any]
    ) -> None:
        try:
            value = build(model, data)
        except ConfigError as error:
            self._problem(manifest, error.message, "spec")
            return
        self._claim(manifest, kind, name, value)

    def _claim(
        self, manifest: Manifest, kind: str, name: str, value: Any, *place: str | int
    ) -> None:
        line = manifest.line(*(place or ("metadata", "name")))
        first = self.claims.setdefault((kind, name), _Claim(value, manifest, line))
        if first.value is not value:
            where = f"{first.manifest.kind} {first.manifest.name!r}"
            message = (
                f"the {kind} {name!r} is made by {where} too ({first.manifest.file}:{first.line})"
            )
            self._problem(manifest, message, *(place or ("metadata", "name")))
        elif kind == "Route":
            self.made.setdefault(_limited_by(_owner(manifest), name), []).append(name)

    def _problem(self, manifest: Manifest, message: str, *place: str | int) -> None:
        self.problems.add(manifest.problem(message, *place))


def _idle_egress(snapshot: Snapshot) -> Iterator[str]:
    """What egress policies say of routes on which no function can call."""
    routes = {each.name: each for each in snapshot.routes}
    for policy in snapshot.egress or ():
        for name in policy.routes or ():
            if name not in routes:
                yield f"the EgressPolicy {policy.name!r} is for the route {name!r}, which is not there"
            elif not any(answering(routes[name])) and not routes[name].tiers:
                message = f"the EgressPolicy {policy.name!r} is for the route {name!r}"
                yield f"{message}, which no function and no tier answers: nothing is called on it"


def _owner(manifest: Manifest) -> str:
    """The manifest that objects belong to, however it is spelt: an HTTPRoute is a Route."""
    if manifest.kind == "Node":
        return "Node/node"
    return f"{'Route' if manifest.kind == 'HTTPRoute' else manifest.kind}/{manifest.name}"


def _limited_by(owner: str, route: str) -> str:
    """The name by which a Limit means a route: that of the manifest which makes it. A Sidecar or Model and a Route of
    one name are two things, so their routes go by their own.
    """
    kind, _, name = owner.partition("/")
    return route if kind in ("Sidecar", "Model") else name


def _place_of(route: Route, host: str) -> tuple[object, ...]:
    conditions = (route.method, route.headers, route.query, route.cookies)
    return (host, route.path.type, route.path.value, *conditions)
