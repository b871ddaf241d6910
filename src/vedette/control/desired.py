"""Changes of desired state: a snapshot and a wish give the next snapshot.

Owns: what deploying, removing and changing mean. Pure: no file, no clock, no engine. Must not: check what `Snapshot`
checks itself (order, references, two routes for one path); building the next snapshot raises then.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from vedette.config.addresses import Addresses, CountryDatabase, CountryRule
from vedette.config.clients import Challenge
from vedette.config.clients_manifest import ChallengeSpec
from vedette.config.hosts import normalise_host
from vedette.config.kinds import SourceConnectionsSpec
from vedette.config.model import build
from vedette.config.snapshot import (
    Admit,
    ClientAuthority,
    FilesBackend,
    Function,
    FunctionBackend,
    Identity,
    Issuer,
    IssuerKey,
    PathMatch,
    PolicyRef,
    Route,
    ServicesBackend,
    Snapshot,
    SourceConnections,
    StaticBackend,
)
from vedette.config.waf import Waf, WafOverride
from vedette.errors import ConfigError
from vedette.identity.revocation import Kind, Revocation

Change = Callable[[Snapshot], Snapshot]

_WILDCARD_ADDRESSES = ("0.0.0.0", "::")


class _Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_Named)


def base_hosts(listen_hosts: Iterable[str]) -> frozenset[str]:
    """The hosts that a node answers to whatever is deployed: this machine's names and what it listens on."""
    written = ["localhost", "127.0.0.1", "::1", socket.gethostname(), *listen_hosts]
    return frozenset(host for text in written for host in _normal(text))


def _normal(text: str) -> list[str]:
    if text in _WILDCARD_ADDRESSES:
        return []
    try:
        return [normalise_host(text)]
    except ConfigError:
        return []  # a machine name that is no host name; nobody can ask for it


def first_admit(hosts: Iterable[str]) -> Admit:
    """What a node lets in of which no manifest says anything."""
    return Admit(
        hosts=tuple(sorted(hosts)),
        source_connections=build(SourceConnections, SourceConnectionsSpec().resolve()),
        challenge=build(Challenge, ChallengeSpec().resolve()),
    )


def guarded(snapshot: Snapshot) -> Snapshot:
    """The same with what a node lets in by itself, where a snapshot of before says nothing of it."""
    usual, admit = first_admit(()), snapshot.admit
    fields = ("source_connections", "challenge")
    missing = {name: getattr(usual, name) for name in fields if getattr(admit, name) is None}
    return snapshot.with_(admit=admit.model_copy(update=missing)) if missing else snapshot


def function_route(
    name: str,
    domains: Sequence[str],
    path: str | None,
    waf: WafOverride | None = None,
    countries: CountryRule | None = None,
) -> Route:
    """The route of a function: `path`, else `/` on its own domains, else `/NAME` on every host."""
    value = path or ("/" if domains else f"/{name}")
    if len(value) > 1:
        value = value.rstrip("/")
    hosts = tuple(sorted({normalise_host(domain) for domain in domains}))
    return Route(
        name=name,
        hosts=hosts,
        path=PathMatch(type="PathPrefix", value=value),
        backend=FunctionBackend(function=name),
        waf=waf,
        countries=countries,
    )


def put_function(
    snapshot: Snapshot,
    function: Function,
    route: Route,
    public: PolicyRef | None,
    public_name: str,
    base: frozenset[str],
) -> Snapshot:
    """Adds or replaces a function with its route; `public` is the policy that opens it, None closes it."""
    policies = _without(snapshot.policy.policies, public_name)
    if public is not None:
        policies = _with(policies, public)
    return _change(
        snapshot,
        base,
        functions=_with(snapshot.functions, function),
        routes=_placed(snapshot.routes, route),
        policy=snapshot.policy.model_copy(update={"policies": policies}),
    )


def _placed(routes: tuple[Route, ...], route: Route) -> tuple[Route, ...]:
    """`routes` with `route` added or replaced. Raises `ConfigError` route_conflict when its place is taken."""
    wanted = {*(route.hosts or ("",))}
    for other in routes:
        shared = wanted & {*(other.hosts or ("",))}
        if other.name != route.name and other.path == route.path and shared:
            where = f"{min(shared) or 'every host'} {route.path.value}"
            raise ConfigError("route_conflict", f"route {other.name!r} already takes {where}")
    return _with(routes, route)


def remove_function(
    snapshot: Snapshot, name: str, public_name: str, base: frozenset[str]
) -> Snapshot:
    """Removes a function, its routes and its public policy. Raises `ConfigError` function_unknown."""
    if snapshot.function(name) is None:
        raise ConfigError("function_unknown", f"no function {name!r} is deployed")
    routes = tuple(
        route
        for route in snapshot.routes
        if not (isinstance(route.backend, FunctionBackend) and route.backend.function == name)
    )
    require_free(snapshot, {each.name for each in snapshot.routes} - {each.name for each in routes})
    policies = _without(snapshot.policy.policies, public_name)
    return _change(
        snapshot,
        base,
        functions=_without(snapshot.functions, name),
        routes=routes,
        policy=snapshot.policy.model_copy(update={"policies": policies}),
    )


def put_route(snapshot: Snapshot, route: Route, base: frozenset[str]) -> Snapshot:
    """Adds or replaces a route."""
    return _change(snapshot, base, routes=_placed(snapshot.routes, route))


def with_routes(
    snapshot: Snapshot, routes: tuple[Route, ...], base: frozenset[str], **changes: Any
) -> Snapshot:
    """With these routes, and what changes with them at once."""
    return _change(snapshot, base, routes=routes, **changes)


def remove_route(snapshot: Snapshot, name: str, base: frozenset[str]) -> Snapshot:
    """Removes a route. Raises `ConfigError` route_unknown."""
    if snapshot.route(name) is None:
        raise ConfigError("route_unknown", f"there is no route {name!r}")
    require_free(snapshot, {name})
    return _change(snapshot, base, routes=_without(snapshot.routes, name))


def require_free(
    snapshot: Snapshot, gone: Collection[str], files: Mapping[str, str] | None = None
) -> None:
    """Raises `ConfigError` route_in_use when a limit is for one of the routes that would go; `files`: manifests of
    limits, by name.
    """
    for limit in snapshot.limits:
        for route in limit.routes:
            if route in gone:
                message = f"the limit {limit.name!r} is for the route {route!r}, which would go"
                raise ConfigError("route_in_use", message, file=(files or {}).get(limit.name))


def put_policy(snapshot: Snapshot, policy: PolicyRef) -> Snapshot:
    """Adds or replaces a policy file."""
    policies = _with(snapshot.policy.policies, policy)
    return snapshot.with_(policy=snapshot.policy.model_copy(update={"policies": policies}))


def remove_policy(snapshot: Snapshot, name: str) -> Snapshot:
    """Removes a policy file. Raises `ConfigError` policy_unknown."""
    if all(policy.name != name for policy in snapshot.policy.policies):
        raise ConfigError("policy_unknown", f"there is no policy {name!r}")
    policies = _without(snapshot.policy.policies, name)
    return snapshot.with_(policy=snapshot.policy.model_copy(update={"policies": policies}))


def put_issuer(snapshot: Snapshot, issuer: Issuer) -> Snapshot:
    """Adds or replaces an issuer."""
    issuers = _with(snapshot.identity.issuers, issuer)
    return snapshot.with_(identity=snapshot.identity.model_copy(update={"issuers": issuers}))


def remove_issuer(snapshot: Snapshot, name: str) -> Snapshot:
    """Removes an issuer. Raises `ConfigError` issuer_unknown."""
    if all(issuer.name != name for issuer in snapshot.identity.issuers):
        raise ConfigError("issuer_unknown", f"no issuer {name!r} is trusted")
    issuers = _without(snapshot.identity.issuers, name)
    return snapshot.with_(identity=snapshot.identity.model_copy(update={"issuers": issuers}))


def with_keys(snapshot: Snapshot, name: str, keys: tuple[IssuerKey, ...]) -> Snapshot:
    """The same, with other keys for an issuer; unchanged when there is no such issuer."""
    issuers = tuple(
        issuer.model_copy(update={"keys": keys}) if issuer.name == name else issuer
        for issuer in snapshot.identity.issuers
    )
    return _with_identity(snapshot, issuers=issuers)


def put_authority(snapshot: Snapshot, authority: ClientAuthority) -> Snapshot:
    """Adds or replaces an authority; what was revoked stays so."""
    before = [one for one in snapshot.identity.authorities if one.name == authority.name]
    revoked = {serial for one in (*before, authority) for serial in one.revoked}
    kept = authority.model_copy(update={"revoked": tuple(sorted(revoked))})
    return _with_identity(snapshot, authorities=_with(snapshot.identity.authorities, kept))


def remove_authority(snapshot: Snapshot, name: str) -> Snapshot:
    """Removes an authority. Raises `ConfigError` authority_unknown."""
    require_authority(snapshot, name)
    return _with_identity(snapshot, authorities=_without(snapshot.identity.authorities, name))


def revocations(snapshot: Snapshot) -> frozenset[Revocation]:
    """All that counts no more under a snapshot."""
    identity = snapshot.identity
    tokens = [each.partition("#") for each in identity.revoked_tokens]
    return frozenset(
        [
            *(Revocation("token", issuer, jti) for issuer, _, jti in tokens),
            *(
                Revocation("certificate", authority.name, serial)
                for authority in identity.authorities
                for serial in authority.revoked
            ),
            *(Revocation("spiffeId", "", each) for each in identity.revoked_spiffe_ids or ()),
            *(Revocation("trustDomain", "", each) for each in identity.revoked_trust_domains or ()),
        ]
    )


def with_revocations(snapshot: Snapshot, wanted: Collection[Revocation]) -> Snapshot:
    """The same, with exactly these revoked; of authorities that are not trusted none is."""

    def of(kind: Kind, owner: str | None = None) -> tuple[str, ...]:
        return tuple(
            sorted({one.name for one in wanted if one.kind == kind and owner in (None, one.owner)})
        )

    return _with_identity(
        snapshot,
        authorities=tuple(
            each.model_copy(update={"revoked": of("certificate", each.name)})
            for each in snapshot.identity.authorities
        ),
        revoked_tokens=tuple(sorted({str(one) for one in wanted if one.kind == "token"})),
        revoked_spiffe_ids=of("spiffeId") or None,
        revoked_trust_domains=of("trustDomain") or None,
    )


def grants(snapshot: Snapshot) -> list[PolicyRef]:
    """The policies that end."""
    return [each for each in snapshot.policy.policies if each.expires_at is not None]


def with_grants(snapshot: Snapshot, wanted: Collection[PolicyRef]) -> Snapshot:
    """The same, with exactly these policies that end."""
    others = [each for each in snapshot.policy.policies if each.expires_at is None]
    names = {each.name for each in wanted}
    kept = [*(each for each in others if each.name not in names), *wanted]
    policies = tuple(sorted(kept, key=lambda each: each.name))
    return snapshot.with_(policy=snapshot.policy.model_copy(update={"policies": policies}))


def keep_standing(older: Snapshot, active: Snapshot) -> Snapshot:
    """`older` with what is revoked and what is granted now: neither is part of what one goes back to."""
    return with_grants(keep_revocations(older, active), grants(active))


def keep_revocations(older: Snapshot, active: Snapshot) -> Snapshot:
    """`older`, in which all is revoked that is now: going back must not let anybody back in."""
    return with_revocations(older, revocations(older) | revocations(active))


def require_authority(snapshot: Snapshot, name: str) -> ClientAuthority:
    """The authority of that name. Raises `ConfigError` authority_unknown."""
    for authority in snapshot.identity.authorities:
        if authority.name == name:
            return authority
    raise ConfigError("authority_unknown", f"no authority {name!r} is trusted")


def _with_identity(snapshot: Snapshot, **changes: Any) -> Snapshot:
    fields = {name: getattr(snapshot.identity, name) for name in Identity.model_fields}
    return snapshot.with_(identity=Identity(**{**fields, **changes}))


def with_list(
    snapshot: Snapshot, name: str, blob: str, size: int, updated_at: str | None
) -> Snapshot:
    """The same, with other content for a list of addresses; unchanged when there is no such list."""
    if snapshot.addresses is None:
        return snapshot
    content = {"blob": blob, "size": size, "updated_at": updated_at}
    lists = tuple(
        each.model_copy(update=content) if each.name == name else each
        for each in snapshot.addresses.lists
    )
    return snapshot.with_(addresses=snapshot.addresses.model_copy(update={"lists": lists}))


def with_countries(snapshot: Snapshot, database: CountryDatabase) -> Snapshot:
    """The same, with this database of countries."""
    known = snapshot.addresses or Addresses(lists=())
    return snapshot.with_(addresses=known.model_copy(update={"countries": database}))


def with_waf(snapshot: Snapshot, version: str, rules: str) -> Snapshot:
    """The same, inspected by these rules unless it is inspected already."""
    if snapshot.waf is not None:
        return snapshot
    return snapshot.with_(waf=Waf(version=version, rules=rules))


def firewall_of(snapshot: Snapshot) -> tuple[Waf | None, dict[str, WafOverride]]:
    """All that the rule sets of a snapshot are compiled from, routes without a word of their own left
    out.
    """
    return snapshot.waf, {each.name: each.waf for each in snapshot.routes if each.waf is not None}


def without_firewall(snapshot: Snapshot) -> Snapshot:
    """The same, uninspected."""
    routes = tuple(each.model_copy(update={"waf": None}) for each in snapshot.routes)
    return snapshot.with_(waf=None, routes=routes)


def with_what_is_here(
    snapshot: Snapshot, has: Callable[[str], bool], runs: Callable[[str], bool]
) -> Snapshot:
    """The same as far as the engine can be asked about it before anything is uploaded: routes to functions and files
    that are not here answer by themselves. `has`: which blobs are here; `runs`: which components are compiled.
    """
    functions = tuple(each for each in snapshot.functions if runs(each.component))
    names = {each.name for each in functions}
    addresses = snapshot.addresses
    if addresses is not None:
        lists = tuple(each for each in addresses.lists if has(each.blob))
        countries = addresses.countries
        countries = countries if countries and has(countries.blob) else None
        addresses = Addresses(lists=lists, countries=countries) if lists or countries else None
    by_country = addresses is not None and addresses.countries is not None

    def is_here(route: Route) -> bool:
        match route.backend:
            case FunctionBackend(function=name):
                return name in names
            case FilesBackend(files=files):
                return all(has(file.blob) for file in files)
            case ServicesBackend(services=services):
                return all(each.name in names for each in services if each.kind == "Function")
            case _:
                return True

    def here(route: Route) -> Route:
        if not is_here(route):
            of_others = ("rewrite", "mirror", "timeout_millis", "retry", "sticky")
            gone: dict[str, Any] = dict.fromkeys(of_others)
            route = route.model_copy(update={**gone, "backend": StaticBackend()})
        return route if by_country else route.model_copy(update={"countries": None})

    routes = tuple(here(each) for each in snapshot.routes)
    return snapshot.with_(functions=functions, routes=routes, addresses=addresses)


def with_hosts(snapshot: Snapshot, base: frozenset[str]) -> Snapshot:
    """The same routes, on a node that answers to `base` as well."""
    return _change(snapshot, base)


def _change(snapshot: Snapshot, base: frozenset[str], **changes: Any) -> Snapshot:
    """Applies `changes`, and lets the hosts of routes in and those of routes that are gone out again."""
    before = {host for route in snapshot.routes for host in route.hosts}
    routes: tuple[Route, ...] = changes.get("routes", snapshot.routes)
    after = {host for route in routes for host in route.hosts}
    hosts = tuple(sorted((set(snapshot.admit.hosts) - before) | base | after))
    return snapshot.with_(admit=snapshot.admit.model_copy(update={"hosts": hosts}), **changes)


def _without(rows: Iterable[T], name: str) -> tuple[T, ...]:
    return tuple(row for row in rows if row.name != name)


def _with(rows: Iterable[T], row: T) -> tuple[T, ...]:
    return tuple(sorted([*_without(rows, row.name), row], key=lambda each: each.name))
