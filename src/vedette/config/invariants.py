"""What must hold between the parts of a snapshot; the models themselves say what holds within one
field.

Owns: order, uniqueness, references, hosts, keys. Must not: change a snapshot, or look at anything
but the snapshot.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from vedette.config.egress import MAX_TOKENS, NOT_CREDENTIALS
from vedette.config.hosts import covers, normalise_host
from vedette.config.leaving import tokens_of
from vedette.config.paths import require_route_path
from vedette.config.served import RemoteModel, ServedModel
from vedette.config.sidecar import OWN_PATHS, mixes
from vedette.config.tiers import EDGE
from vedette.errors import ConfigError

if TYPE_CHECKING:
    from vedette.config.egress import EgressCredential, EgressPolicy
    from vedette.config.snapshot import Issuer, IssuerKey, Route, Snapshot

ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
CONFIG_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}\Z")
MAX_SETTINGS_BYTES: Final = 131_072

# RFC 7518 §6: the public members of each key type; anything else in a JWK is refused, private members above all.
_PUBLIC_MEMBERS: Final = {
    "EC": {"crv", "x", "y"},
    "RSA": {"n", "e"},
    "OKP": {"crv", "x"},
}
_KEY_TYPES: Final = {
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "EdDSA": ("OKP", "Ed25519"),
    **{f"{family}{bits}": ("RSA", None) for family in ("RS", "PS") for bits in (256, 384, 512)},
}


_READ_OUTPUTS: Final = {
    "Labels": ("label", "score"),
    "Embedding": ("embedding",),
    "Boxes": ("box", "label", "score"),
}


def problems_of(snapshot: Snapshot) -> list[str]:
    """Every invariant that `snapshot` breaks, as sentences that name the place; empty when it
    holds.
    """
    checks: tuple[Callable[[Snapshot], Iterator[str]], ...] = (
        _order,
        _hosts,
        _keys,
        _functions,
        _routes,
        _claims,
        _services,
        _tiers,
        _remote_models,
        _limits,
        _egress,
        _sidecars,
        _authorities,
        _addresses,
    )
    return [problem for check in checks for problem in check(snapshot)]


def _order(snapshot: Snapshot) -> Iterator[str]:
    yield from _sorted("identity.issuers", [each.name for each in snapshot.identity.issuers])
    yield from _sorted("policy.policies", [each.name for each in snapshot.policy.policies])
    yield from _sorted("functions", [each.name for each in snapshot.functions])
    yield from _sorted("routes", [each.name for each in snapshot.routes])
    yield from _sorted("upstreams", [each.name for each in snapshot.upstreams])
    yield from _sorted("limits", [each.name for each in snapshot.limits])
    yield from _sorted("models", [each.name for each in snapshot.models or ()])
    yield from _sorted("remoteModels", [each.name for each in snapshot.remote_models or ()])
    yield from _sorted("egress", [each.name for each in snapshot.egress or ()])
    yield from _sorted("sidecars", [each.name for each in snapshot.sidecars or ()])
    yield from _sorted(
        "identity.authorities", [each.name for each in snapshot.identity.authorities]
    )
    identity = snapshot.identity
    yield from _sorted("identity.revokedTokens", identity.revoked_tokens)
    yield from _sorted("identity.revokedSpiffeIds", identity.revoked_spiffe_ids or ())
    yield from _sorted("identity.revokedTrustDomains", identity.revoked_trust_domains or ())
    yield from _sorted("admit.hosts", snapshot.admit.hosts)
    for issuer in snapshot.identity.issuers:
        yield from _sorted(f"identity.issuers.{issuer.name}.audiences", issuer.audiences)
        keys = [f"{key.kid or ''} {key.alg}" for key in issuer.keys]
        yield from _sorted(f"identity.issuers.{issuer.name}.keys", keys)
    for route in snapshot.routes:
        yield from _sorted(f"routes.{route.name}.hosts", route.hosts)


def _sorted(where: str, names: Sequence[str]) -> Iterator[str]:
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        yield f"{where}: {', '.join(repeated)} is there more than once"
    elif list(names) != sorted(names):
        yield f"{where} is not sorted"


def _hosts(snapshot: Snapshot) -> Iterator[str]:
    yield from _normal("admit.hosts", snapshot.admit.hosts)
    for route in snapshot.routes:
        where = f"routes.{route.name}.hosts"
        yield from _normal(where, route.hosts)
        if mixes(route.hosts):
            yield f"{where}: hosts of the mesh and others need routes of their own"
        for host in route.hosts:
            if not any(covers(pattern, host) for pattern in snapshot.admit.hosts):
                yield f"{where}: {host} is not in admit.hosts, so no request could arrive"


def _normal(where: str, hosts: Iterable[str]) -> Iterator[str]:
    for host in hosts:
        try:
            normal = normalise_host(host)
        except ConfigError as error:
            yield f"{where}: {error.message}"
            continue
        if normal != host:
            yield f"{where}: {host!r} must be written {normal!r}"


def _keys(snapshot: Snapshot) -> Iterator[str]:
    issuers = [each.issuer for each in snapshot.identity.issuers]
    for repeated in sorted({each for each in issuers if issuers.count(each) > 1}):
        yield f"identity.issuers: two issuers have the iss {repeated}"
    for issuer in snapshot.identity.issuers:
        if issuer.issuer.startswith("x509:"):
            yield f"identity.issuers.{issuer.name}: an iss with x509: could pass for a certificate"
        for index, key in enumerate(issuer.keys):
            yield from _key(issuer, index, key)


def _key(issuer: Issuer, index: int, key: IssuerKey) -> Iterator[str]:
    where = f"identity.issuers.{issuer.name}.keys.{index}"
    kind, curve = _KEY_TYPES[key.alg]
    if key.jwk.get("kty") != kind or (curve and key.jwk.get("crv") != curve):
        yield f"{where}: {key.alg} needs a key of type {kind}" + (f" on {curve}" if curve else "")
        return
    expected = {"kty"} | _PUBLIC_MEMBERS[kind]
    if set(key.jwk) != expected:
        yield f"{where}: the jwk must have exactly the members {', '.join(sorted(expected))}"


def _functions(snapshot: Snapshot) -> Iterator[str]:
    for function in snapshot.functions:
        yield from settings_problems(f"functions.{function.name}", function.env, function.config)


def settings_problems(where: str, env: dict[str, str], config: dict[str, str]) -> Iterator[str]:
    """What is wrong with the environment and configuration of one function."""
    for field, values, pattern in (("env", env, ENV_NAME), ("config", config, CONFIG_NAME)):
        for name, value in values.items():
            if not pattern.match(name):
                yield f"{where}.{field}: {name!r} is not a valid name"
            if "\0" in value:
                yield f"{where}.{field}.{name} holds a NUL"
        size = sum(len(name.encode()) + len(value.encode()) for name, value in values.items())
        if size > MAX_SETTINGS_BYTES:
            yield f"{where}.{field} is larger than {MAX_SETTINGS_BYTES} bytes"


def _routes(snapshot: Snapshot) -> Iterator[str]:
    functions = {each.name for each in snapshot.functions}
    for route in snapshot.routes:
        yield from _path(route)
        if route.backend.type == "Function" and route.backend.function not in functions:
            yield f"routes.{route.name}: there is no function {route.backend.function!r}"
        if route.backend.type == "Model" and _model(snapshot, route.backend.model) is None:
            yield f"routes.{route.name}: there is no model {route.backend.model!r}"


def _path(route: Route) -> Iterator[str]:
    try:
        require_route_path(route.path.value)
    except ConfigError as error:
        yield f"routes.{route.name}.path: {error.message}"
    if (
        route.path.type == "PathPrefix"
        and len(route.path.value) > 1
        and route.path.value[-1] == "/"
    ):
        yield f"routes.{route.name}.path: a prefix has no slash at the end"


def _claims(snapshot: Snapshot) -> Iterator[str]:
    """Two routes must not claim the same host and path. A route without hosts yields to one that
    names a host.
    """
    claimed: dict[tuple[object, ...], str] = {}
    for route in snapshot.routes:
        conditions = (route.method, route.headers, route.query, route.cookies)
        for host in route.hosts or ("",):
            key = (host, route.path.type, route.path.value, conditions)
            holder = claimed.setdefault(key, route.name)
            if holder != route.name:
                where = f"{host or 'every host'} {route.path.value}"
                yield f"routes.{route.name}: route {holder} already takes {where}"


def _services(snapshot: Snapshot) -> Iterator[str]:
    """What routes name must be there; a key of a client certificate is control's to check."""
    functions = {each.name for each in snapshot.functions}
    upstreams = {each.name for each in snapshot.upstreams}
    for route in snapshot.routes:
        where = f"routes.{route.name}"
        backend = route.backend
        if backend.type == "Services":
            keys = [f"{each.kind} {each.name}" for each in backend.services]
            yield from _sorted(f"{where}.backend.services", keys)
            for each in backend.services:
                if each.name not in (functions if each.kind == "Function" else upstreams):
                    yield f"{where}: there is no {each.kind.lower()} {each.name!r}"
            if not any(each.weight for each in backend.services):
                yield f"{where}: all weights are 0, so nobody could answer"
        if backend.type == "Redirect" and backend.status not in (301, 302, 303, 307, 308):
            yield f"{where}: {backend.status} is no redirect"
        if backend.type == "Files":
            yield from _sorted(f"{where}.backend.files", [each.path for each in backend.files])
        if route.mirror and route.mirror.upstream not in upstreams:
            yield f"{where}.mirror: there is no upstream {route.mirror.upstream!r}"


def _tiers(snapshot: Snapshot) -> Iterator[str]:
    """What only a route to a model has."""
    for route in snapshot.routes:
        where = f"routes.{route.name}"
        tiers = route.tiers or ()
        model = _model(snapshot, route.backend.model) if route.backend.type == "Model" else None
        if model is None:
            if tiers or route.confidence or route.cache:
                yield f"{where}: tiers, confidence and cache are of a model"
            continue
        yield from _unsure(where, route, model)
        names = [each.name for each in tiers]
        for name in sorted({name for name in names if names.count(name) > 1 or name == EDGE}):
            yield f"{where}.tiers: {name} is there more than once"
        known = {each.name for each in model.inputs}
        for tier in tiers:
            yield from _sorted(f"{where}.tiers.{tier.name}.on", tier.on)
            yield from _sorted(f"{where}.tiers.{tier.name}.inputs", tier.inputs)
            if tier.all_inputs == bool(tier.inputs):
                yield f"{where}.tiers.{tier.name}: some inputs leave, or all"
            for name in tier.inputs:
                if name not in known:
                    yield f"{where}.tiers.{tier.name}: the model {model.name!r} has no input {name!r}"


def _model(snapshot: Snapshot, name: str) -> ServedModel | RemoteModel | None:
    return snapshot.model(name) or snapshot.remote_model(name)


def _remote_models(snapshot: Snapshot) -> Iterator[str]:
    """A model that only tiers have is one by routes whose tiers are asked for what is missing, each of them."""
    for model in snapshot.remote_models or ():
        where = f"remoteModels.{model.name}"
        if snapshot.model(model.name) is not None:
            yield f"{where}: there is a model {model.name!r} with a file too"
        routes = [
            each
            for each in snapshot.routes
            if each.backend.type == "Model" and each.backend.model == model.name
        ]
        if not routes:
            yield f"{where}: the model has no file, and no Route leads to it by tiers: nobody could answer"
        for route in routes:
            if not any("Missing" in tier.on for tier in route.tiers or ()):
                told = f"the model {model.name!r} has no file, so it needs a tier with `missing` in `on`"
                yield f"routes.{route.name}: {told}"
            if route.cache is not None:
                told = (
                    f"the model {model.name!r} has no file, and only its own answers are remembered"
                )
                yield f"routes.{route.name}.cache: {told}"


def _unsure(where: str, route: Route, model: ServedModel | RemoteModel) -> Iterator[str]:
    """How sure an answer has to be, and who is asked when it is not, need each other, and an output that says it."""
    read = (
        _READ_OUTPUTS[model.output.type] if isinstance(model, ServedModel) and model.output else ()
    )
    outputs = (*(each.name for each in model.outputs), *read)
    if route.confidence is not None and route.confidence.output not in outputs:
        told = f"there is no output {route.confidence.output!r}; the model has {', '.join(outputs)}"
        yield f"{where}.confidence: {told}"
    asked = any("LowConfidence" in tier.on for tier in route.tiers or ())
    if asked and route.confidence is None:
        yield f"{where}: a tier is on LowConfidence, and no confidence says what that is"
    if route.confidence is not None and not asked:
        yield f"{where}.confidence: no tier is on LowConfidence, so nobody would be asked"


def _limits(snapshot: Snapshot) -> Iterator[str]:
    routes = {each.name for each in snapshot.routes}
    for limit in snapshot.limits:
        where = f"limits.{limit.name}"
        yield from _sorted(f"{where}.per", limit.per)
        yield from _sorted(f"{where}.routes", limit.routes)
        for name in limit.routes:
            if name not in routes:
                yield f"{where}: there is no route {name!r}"
        if limit.rate is None and limit.concurrency is None and limit.quota is None:
            yield f"{where} limits nothing: give it a rate, a concurrency or a quota"


def _sidecars(snapshot: Snapshot) -> Iterator[str]:
    for each in snapshot.sidecars or ():
        if each.name in OWN_PATHS:
            yield f"sidecars.{each.name}: the SPIFFE ID /{each.name} is the node's own"


def _egress(snapshot: Snapshot) -> Iterator[str]:
    for policy in snapshot.egress or ():
        where = f"egress.{policy.name}"
        yield from _sorted(f"{where}.functions", policy.functions)
        yield from _sorted(f"{where}.workloads", policy.workloads)
        yield from _sorted(f"{where}.routes", policy.routes or ())
        for rule in policy.rules:
            yield from _sorted(f"{where}.rules.{rule.to}.methods", rule.methods)
            yield from _sorted(f"{where}.rules.{rule.to}.peers", rule.peers)
            if rule.credential is not None:
                yield from _credential(f"{where}: {rule.to}", rule.credential, policy)
            if rule.peers and (policy.workloads or not rule.to.startswith("https://")):
                yield f"{where}: {rule.to} has peers, which are for functions and https alone"
            if rule.methods and rule.to.startswith("tcp://"):
                yield f"{where}: {rule.to} names methods, which a tunnel has none of"
    if len(tokens_of(snapshot)) > MAX_TOKENS:
        yield f"egress asks for JWT-SVIDs of more than {MAX_TOKENS:,} functions and audiences"


def _credential(where: str, credential: EgressCredential, policy: EgressPolicy) -> Iterator[str]:
    if credential.header in NOT_CREDENTIALS:
        yield f"{where}: {credential.header} is no field for a credential"
    if credential.jwt_svid is None:
        return
    yield from _sorted(f"{where}: audience", credential.jwt_svid.audience)
    if policy.workloads:
        yield f"{where} adds a jwtSvid, which is for functions alone"


def _authorities(snapshot: Snapshot) -> Iterator[str]:
    for authority in snapshot.identity.authorities:
        where = f"identity.authorities.{authority.name}"
        yield from _sorted(f"{where}.pins", authority.pins)
        yield from _sorted(f"{where}.revoked", authority.revoked)
        for pin in authority.pins:
            if not re.fullmatch(r"[0-9a-f]{64}", pin):
                yield f"{where}.pins: {pin!r} is not a SHA-256 in lower-case hex"
        for serial in authority.revoked:
            if not re.fullmatch(r"[1-9a-f][0-9a-f]{0,39}", serial):
                yield f"{where}.revoked: {serial!r} is not a serial number in lower-case hex"


def _addresses(snapshot: Snapshot) -> Iterator[str]:
    if snapshot.admit.tls_clients is not None:
        yield from _sorted("admit.tlsClients.ja4", snapshot.admit.tls_clients.ja4)
    if snapshot.admit.challenge is not None:
        challenge = snapshot.admit.challenge
        yield from _sorted("admit.challenge.crawlers", [each.name for each in challenge.crawlers])
        yield from _sorted("admit.challenge.toolClients", challenge.tool_clients)
    known = snapshot.addresses
    if known is not None:
        yield from _sorted("addresses.lists", [each.name for each in known.lists])
        if not known.lists and known.countries is None:
            yield "addresses says nothing: leave it out"
    for route in snapshot.routes:
        if route.countries is None:
            continue
        yield from _sorted(f"routes.{route.name}.countries.codes", route.countries.codes)
        if known is None or known.countries is None:
            yield f"routes.{route.name}.countries: the node has no database of countries"
