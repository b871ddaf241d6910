"""Routes of manifests as routes of a snapshot: one for each rule and match.

Owns: what the fields of HTTPRoute and Route mean (gateway.networking.k8s.io/v1), and refusing, with
the line, what the node cannot honour. Pure. Must not: know what else is in a snapshot than the names
of its functions, models and upstreams.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from vedette.config.manifests import Manifest, Problems, nearest
from vedette.config.model import build
from vedette.config.paths import require_route_path
from vedette.config.routes import (
    BackendRefSpec,
    FilterSpec,
    HeaderFilterSpec,
    HttpRouteManifest,
    MatchSpec,
    MirrorSpec,
    NamedMatchSpec,
    PathModifierSpec,
    RouteManifest,
    RouteMatchSpec,
    RouteRuleSpec,
    RuleSpec,
    ServiceRef,
)
from vedette.config.sidecar import mixes
from vedette.config.snapshot import Route
from vedette.config.written import millis, route_path
from vedette.errors import ConfigError
from vedette.ids import is_name

Place = tuple[str | int, ...]
MIXED = (
    "hosts of the mesh (.mesh) and others are in it: policies name the route, and could not tell their callers apart; "
    "write two"
)
_FILTER_FIELDS = {
    "RequestHeaderModifier": "request_header_modifier",
    "ResponseHeaderModifier": "response_header_modifier",
    "RequestMirror": "request_mirror",
    "RequestRedirect": "request_redirect",
    "URLRewrite": "url_rewrite",
}
_NOT_HONOURED = {
    "CORS": "answer CORS in the service",
    "ExternalAuth": "write an Issuer and a Policy",
    "ExtensionRef": "write a kind Route, which has cookies, static answers and files",
}
_GROUPS = {
    "Service": ("", "core"),
    "Upstream": ("vedette.dev", ""),
    "Function": ("vedette.dev", ""),
    "Model": ("vedette.dev", ""),
}
_CRITICALITIES = {"critical": "Critical", "standard": None, "sheddable": "Sheddable"}
# Headers that belong to the connection or to the node itself (RFC 9110 §7.6.1).
_OWN_HEADERS = frozenset(
    (
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)


@dataclass(frozen=True, slots=True)
class Names:
    """What backends may name."""

    functions: Collection[str]
    upstreams: Collection[str]
    ports: dict[str, frozenset[int]] = field(default_factory=dict)
    models: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Made:
    """A route, and where the manifest says so."""

    route: Route
    place: Place


def routes_of(manifest: Manifest, names: Names, problems: Problems, notes: list[str]) -> list[Made]:
    """The routes of a Route or an HTTPRoute, in order: `NAME`, `NAME-2`, … Problems are added, not
    raised.
    """
    return list(_Reader(manifest, names, problems, notes).routes())


class _Reader:
    """Reads one manifest."""

    def __init__(
        self, manifest: Manifest, names: Names, problems: Problems, notes: list[str]
    ) -> None:
        assert isinstance(manifest.model, RouteManifest | HttpRouteManifest)
        self._manifest = manifest
        self._spec = manifest.model.spec
        self._names = names
        self._problems = problems
        self._notes = notes

    def routes(self) -> Iterator[Made]:
        if isinstance(self._manifest.model, HttpRouteManifest) and self._spec.parent_refs:  # type: ignore[union-attr]
            self._note("parentRefs are ignored: every listener of the node has every route")
        if mixes(self._spec.hostnames):
            self._problem(MIXED, "spec", "hostnames")
        number = 0
        for index, rule in enumerate(self._spec.rules):
            place: Place = ("spec", "rules", index)
            before = len(self._problems.found)
            shared = self._shared(rule, place)
            failed = len(self._problems.found) > before
            matches: Sequence[MatchSpec] = rule.matches or (MatchSpec(),)
            for which, match in enumerate(matches):
                number += 1
                where = (*place, "matches", which) if rule.matches else place
                route = self._route(self._name(number), rule, match, shared, where)
                if route is not None and not failed:
                    yield Made(route, where)

    def _name(self, number: int) -> str:
        name = self._manifest.name if number == 1 else f"{self._manifest.name}-{number}"
        if not is_name(name):
            self._problem(
                f"the name {name!r} of its route {number} is too long", "metadata", "name"
            )
            return f"r-{number}"
        return name

    def _shared(self, rule: RuleSpec, place: Place) -> dict[str, Any]:
        """What every match of a rule has in common."""
        filters = self._filters(rule, place)
        fields: dict[str, Any] = {"backend": self._backend(rule, filters, place)}
        for name in ("request", "response"):
            modifier, where = filters.get(f"{name.title()}HeaderModifier", (None, ()))
            if modifier is not None:
                spec = getattr(modifier, f"{name}_header_modifier")
                fields[f"{name}Headers"] = self._headers(spec, where)
        rewriter, where = filters.get("URLRewrite", (None, ()))
        if rewriter is not None and rewriter.url_rewrite is not None:
            rewrite = rewriter.url_rewrite
            self._require_prefix(rule, rewrite.path, where)
            path = _modifier(rewrite.path)
            fields["rewrite"] = _present(hostname=rewrite.hostname, path=path)
        mirror, where = filters.get("RequestMirror", (None, ()))
        if mirror is not None and mirror.request_mirror is not None:
            fields["mirror"] = self._mirror(mirror.request_mirror, where)
        self._timing(rule, place, fields)
        return fields

    def _route(
        self, name: str, rule: RuleSpec, match: MatchSpec, shared: dict[str, Any], place: Place
    ) -> Route | None:
        path = self._path(match, place)
        if path is None:
            return None
        cookies = match.cookies if isinstance(match, RouteMatchSpec) else ()
        data = {
            "name": name,
            "hosts": sorted(set(self._spec.hostnames)),
            "path": path,
            "headers": self._conditions(match.headers, str.lower, (*place, "headers")),
            "query": self._conditions(match.query_params, str, (*place, "queryParams")),
            "cookies": self._conditions(cookies, str, (*place, "cookies")),
            **_present(method=match.method),
            **{key: value for key, value in shared.items() if value is not None},
        }
        if shared["backend"] is None:
            return None
        return self._built(Route, data, place)

    def _path(self, match: MatchSpec, place: Place) -> dict[str, str] | None:
        spec = match.path
        if spec.type == "RegularExpression":
            self._problem(
                "paths cannot be matched by a regular expression; write Exact or PathPrefix",
                *place,
                "path",
            )
            return None
        try:
            check = route_path if spec.type == "PathPrefix" else require_route_path
            return {"type": spec.type, "value": check(spec.value)}
        except ConfigError as error:
            self._problem(f"{error.message}. {error.hint}", *place, "path", "value")
            return None

    def _conditions(
        self, specs: Sequence[NamedMatchSpec], fold: Callable[[str], str], place: Place
    ) -> list[dict[str, str]]:
        """Of entries with one name the first counts (HTTPHeaderMatch), and a note says so."""
        found: dict[str, dict[str, str]] = {}
        for index, spec in enumerate(specs):
            if fold(spec.name) in found:
                self._note(f"{spec.name} is matched twice; only the first counts", *place, index)
                continue
            if spec.type == "RegularExpression":
                self._require_regex(spec.value, (*place, index, "value"))
            found[fold(spec.name)] = {
                "type": spec.type,
                "name": fold(spec.name),
                "value": spec.value,
            }
        return [found[name] for name in sorted(found)]

    def _require_regex(self, text: str, place: Place) -> None:
        """What no engine without backtracking has (RE2, Rust's regex)."""
        if re.search(r"\(\?<?[=!]|\\[1-9]", text):
            self._problem(f"{text!r} uses look-around or a back-reference", *place)

    # --- filters

    def _filters(self, rule: RuleSpec, place: Place) -> dict[str, tuple[FilterSpec, Place]]:
        found: dict[str, tuple[FilterSpec, Place]] = {}
        for index, each in enumerate(rule.filters):
            where = (*place, "filters", index)
            if each.type in _NOT_HONOURED:
                message = f"the node has no filter {each.type}; {_NOT_HONOURED[each.type]}"
                self._problem(message, *where, "type")
                continue
            wanted = _FILTER_FIELDS[each.type]
            given = [name for name in _FILTER_FIELDS.values() if getattr(each, name) is not None]
            if given != [wanted]:
                self._problem(f"a filter {each.type} has its own field, and only that", *where)
            elif each.type in found:
                self._problem(f"there are two filters {each.type}", *where)
            else:
                found[each.type] = (each, where)
        if "RequestRedirect" in found and "URLRewrite" in found:
            self._problem("RequestRedirect and URLRewrite exclude each other", *place, "filters")
        return found

    def _headers(self, spec: HeaderFilterSpec, place: Place) -> dict[str, Any]:
        for name in (*(each.name for each in (*spec.set, *spec.add)), *spec.remove):
            if name.lower() in _OWN_HEADERS or name.lower().startswith(("x-vedette-", "x-edge-")):
                self._problem(f"the header field {name} is the node's own", *place)
        changed = [each.name.lower() for each in (*spec.set, *spec.add)]
        changed += [name.lower() for name in spec.remove]
        for name in sorted({each for each in changed if changed.count(each) > 1}):
            self._problem(f"the header field {name} is changed twice", *place)
        return {
            "set": [{"name": each.name.lower(), "value": each.value} for each in spec.set],
            "add": [{"name": each.name.lower(), "value": each.value} for each in spec.add],
            "remove": sorted(name.lower() for name in spec.remove),
        }

    def _mirror(self, spec: MirrorSpec, place: Place) -> dict[str, Any] | None:
        where = (*place, "requestMirror")
        if spec.backend_ref.kind in ("Function", "Model"):
            kind = spec.backend_ref.kind.lower()
            self._problem(f"requests cannot be mirrored to a {kind}", *where, "backendRef")
            return None
        name = self._reference(spec.backend_ref, (*where, "backendRef"))
        percent = 100 if spec.percent is None else spec.percent
        if spec.fraction is not None:
            if spec.percent is not None:
                self._problem("percent and fraction exclude each other", *where)
            percent, rest = divmod(100 * spec.fraction.numerator, spec.fraction.denominator)
            if rest or percent > 100:
                self._problem("the fraction is not a whole percent", *where, "fraction")
        return {"upstream": name, "percent": percent} if name else None

    def _require_prefix(self, rule: RuleSpec, path: PathModifierSpec | None, place: Place) -> None:
        if path is None:
            return
        if path.value and not path.value.startswith("/"):
            self._problem(f"the new path {path.value!r} does not begin with /", *place)
        exact = any(match.path.type != "PathPrefix" for match in rule.matches)
        if path.type == "ReplacePrefixMatch" and exact:
            self._problem("ReplacePrefixMatch needs matches of type PathPrefix", *place)

    # --- who answers

    def _backend(
        self, rule: RuleSpec, filters: dict[str, tuple[FilterSpec, Place]], place: Place
    ) -> dict[str, Any] | None:
        ways = {
            "backendRefs": bool(rule.backend_refs),
            "a filter RequestRedirect": "RequestRedirect" in filters,
            "static": isinstance(rule, RouteRuleSpec) and rule.static is not None,
            "files": isinstance(rule, RouteRuleSpec) and rule.files is not None,
        }
        given = [way for way, there in ways.items() if there]
        if len(given) > 1:
            self._problem(f"{' and '.join(given)} exclude each other", *place)
            return None
        if not given:
            message = "nobody answers: the rule needs backendRefs or a filter RequestRedirect"
            if isinstance(rule, RouteRuleSpec):
                message = "nobody answers: the rule needs backendRefs, static, files or a redirect"
            self._problem(message, *place)
            return None
        if any(ref.kind == "Model" for ref in rule.backend_refs):
            return self._model(rule, place)
        if rule.backend_refs:
            return self._services(rule.backend_refs, (*place, "backendRefs"))
        if "RequestRedirect" in filters:
            return self._redirect(rule, *filters["RequestRedirect"])
        assert isinstance(rule, RouteRuleSpec)
        return self._static(rule) if rule.static else self._files(rule, place)

    def _services(self, refs: Sequence[BackendRefSpec], place: Place) -> dict[str, Any] | None:
        weights: dict[tuple[str, str], int] = {}
        for index, ref in enumerate(refs):
            where = (*place, index)
            if ref.filters:
                self._problem("a backend cannot have filters of its own", *where, "filters")
            name = self._reference(ref, where)
            if name is not None:
                key = ("Function" if ref.kind == "Function" else "Upstream", name)
                weights[key] = weights.get(key, 0) + ref.weight
        if len(weights) == 0:
            return None
        if not any(weights.values()):
            self._problem("all weights are 0, so nobody could answer", *place)
            return None
        (kind, name), *others = weights
        if kind == "Function" and not others:
            return {"type": "Function", "function": name}
        services = [
            {"kind": kind, "name": name, "weight": min(weights[kind, name], 1_000_000)}
            for kind, name in sorted(weights)
        ]
        return {"type": "Services", "services": services}

    def _model(self, rule: RuleSpec, place: Place) -> dict[str, Any] | None:
        """A model answers alone, and as it is asked: another path would be another question."""
        where = (*place, "backendRefs")
        if len(rule.backend_refs) > 1:
            message = "a model answers alone: weights over models are not there yet"
            self._problem(
                f"{message}; write one backendRef, or routes that tell by a header", *where
            )
            return None
        ref = rule.backend_refs[0]
        if ref.filters:
            self._problem("a backend cannot have filters of its own", *where, 0, "filters")
        if ref.weight == 0:
            self._problem("its weight is 0, so nobody could answer", *where, 0, "weight")
        not_of_a_model = {
            "a filter URLRewrite": any(each.type == "URLRewrite" for each in rule.filters),
            "retry": rule.retry is not None,
            "sessionPersistence": rule.session_persistence is not None,
        }
        for what, given in not_of_a_model.items():
            if given:
                self._problem(f"a route to a Model cannot have {what}", *place)
        name = self._reference(ref, (*where, 0))
        if name is None:
            return None
        said = rule.criticality if isinstance(rule, RouteRuleSpec) else None
        criticality = _CRITICALITIES[said or "standard"]
        return {"type": "Model", "model": name, "criticality": criticality}

    def _reference(self, ref: ServiceRef, place: Place) -> str | None:
        """The name of an upstream, function or model that is there."""
        if ref.group not in _GROUPS[ref.kind]:
            self._problem(f"there is no {ref.kind} in the group {ref.group!r}", *place, "group")
            return None
        if ref.namespace is not None:
            self._note("a namespace is ignored: a node has none", *place, "namespace")
        by_kind = {
            "Upstream": self._names.upstreams,
            "Function": self._names.functions,
            "Model": self._names.models,
        }
        kind = "Upstream" if ref.kind == "Service" else ref.kind
        known = by_kind[kind]
        if ref.name in known:
            if ref.port is not None and ref.port not in self._names.ports.get(ref.name, ()):
                message = f"port {ref.port} is ignored: the {kind} {ref.name!r} says its own"
                self._note(message, *place, "port")
            return ref.name
        message = f"there is no {kind} {ref.name!r}"
        others = [each for each, names in by_kind.items() if ref.name in names]
        if others:
            message += f", but a {others[0]}: write kind: {others[0]}, group: vedette.dev"
        else:
            message += nearest(ref.name, known)
        self._problem(message, *place, "name")
        return None

    def _redirect(self, rule: RuleSpec, each: FilterSpec, place: Place) -> dict[str, Any]:
        spec = each.request_redirect
        assert spec is not None
        self._require_prefix(rule, spec.path, place)
        return {
            "type": "Redirect",
            "status": spec.status_code,
            **_present(
                scheme=spec.scheme,
                hostname=spec.hostname,
                port=spec.port,
                path=_modifier(spec.path),
            ),
        }

    def _static(self, rule: RouteRuleSpec) -> dict[str, Any]:
        assert rule.static is not None
        return {
            "type": "Static",
            "status": rule.static.status,
            "contentType": rule.static.content_type,
            "body": rule.static.body,
        }

    def _files(self, rule: RouteRuleSpec, place: Place) -> dict[str, Any] | None:
        assert rule.files is not None
        files = self._manifest.attachment(rule.files.folder).files
        paths = [each.path for each in files]
        if not files:
            self._problem(f"the folder {rule.files.folder!r} holds no file", *place, "files")
            return None
        fallback = rule.files.fallback
        if fallback is not None and fallback not in paths:
            message = f"there is no file {fallback!r} in {rule.files.folder!r}"
            self._problem(message + nearest(fallback, paths), *place, "files", "fallback")
        return {
            "type": "Files",
            "files": [each.model_dump(by_alias=True) for each in files],
            **_present(fallback=fallback),
        }

    # --- time

    def _timing(self, rule: RuleSpec, place: Place, fields: dict[str, Any]) -> None:
        whole = millis(rule.timeouts.request) if rule.timeouts.request else 0
        one = millis(rule.timeouts.backend_request) if rule.timeouts.backend_request else 0
        if whole and one > whole:
            where = (*place, "timeouts", "backendRequest")
            self._problem("backendRequest is longer than request", *where)
        fields["timeoutMillis"] = whole or None
        fields["tryMillis"] = one or None
        if rule.retry is not None:
            fields["retry"] = {
                "attempts": rule.retry.attempts,
                "codes": sorted(set(rule.retry.codes)),
                "backoffMillis": millis(rule.retry.backoff),
            }
        if isinstance(rule, RouteRuleSpec):
            self._mesh(rule, place, fields)
        if rule.session_persistence is not None:
            fields["sticky"] = self._sticky(rule, (*place, "sessionPersistence"))

    def _mesh(self, rule: RouteRuleSpec, place: Place, fields: dict[str, Any]) -> None:
        """What HTTPRoute has no word for."""
        if rule.hedge is not None:
            if all(ref.kind in ("Function", "Model") for ref in rule.backend_refs):
                self._problem("a hedge needs an Upstream that answers", *place, "hedge")
            fields["hedge"] = {
                "afterMillis": millis(rule.hedge.after),
                "attempts": rule.hedge.attempts,
            }
        if rule.fault is not None:
            fields["fault"] = rule.fault.resolve()
        self._of_model(rule, place, fields)

    def _of_model(self, rule: RouteRuleSpec, place: Place, fields: dict[str, Any]) -> None:
        """What only a model has: who else answers, and which answers are remembered."""
        refs = [each.name for each in rule.backend_refs if each.kind == "Model"]
        given = {
            "tiers": rule.tiers,
            "confidence": rule.confidence,
            "cache": rule.cache,
            "criticality": rule.criticality,
        }
        if not refs:
            for name in (name for name, value in given.items() if value):
                self._problem(f"{name} needs a Model that answers", *place, name)
            return
        if rule.tiers:
            fields["tiers"] = [each.resolve(refs[0]) for each in rule.tiers]
        if rule.confidence is not None:
            fields["confidence"] = rule.confidence.resolve()
        if rule.cache is not None:
            fields["cache"] = rule.cache.resolve()

    def _sticky(self, rule: RuleSpec, place: Place) -> dict[str, str]:
        spec = rule.session_persistence
        assert spec is not None
        if spec.type == "Header":
            self._problem("a session can be kept by a cookie only", *place, "type")
        if spec.absolute_timeout is not None or spec.idle_timeout is not None:
            field_ = "idleTimeout" if spec.absolute_timeout is None else "absoluteTimeout"
            self._problem("a session lasts as long as the browser's; leave it out", *place, field_)
        if spec.cookie_config.lifetime_type == "Permanent":
            self._problem("the cookie ends with the session", *place, "cookieConfig")
        return {"cookie": spec.session_name}

    # --- saying so

    def _built(self, model: type[Route], data: dict[str, Any], place: Place) -> Route | None:
        try:
            return build(model, data)
        except ConfigError as error:
            self._problem(error.message, *place)
            return None

    def _problem(self, message: str, *place: str | int) -> None:
        self._problems.add(self._manifest.problem(message, *place))

    def _note(self, message: str, *place: str | int) -> None:
        self._notes.append(str(self._manifest.problem(message, *(place or ("spec", "parentRefs")))))


def _modifier(spec: PathModifierSpec | None) -> dict[str, str] | None:
    return None if spec is None else {"type": spec.type, "value": spec.value}


def _present(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
