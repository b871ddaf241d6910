"""Routes and services as a person sees them: what the snapshot says, beside what the engine has learnt.

Owns: the one place where routes, policies and the engine's health of services meet. Pure. Must not: ask
the engine, or judge a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from vedette.clock import to_rfc3339
from vedette.config.clients import Mode as ChallengeMode
from vedette.config.sidecar import is_mesh
from vedette.config.snapshot import (
    FilesBackend,
    FunctionBackend,
    ModelBackend,
    RedirectBackend,
    Route,
    ServicesBackend,
    Snapshot,
    StaticBackend,
    Upstream,
)
from vedette.config.waf import WafOverride
from vedette.control.status import route_url
from vedette.control.traffic_messages import (
    CircuitStatus,
    EndpointError,
    EndpointStatus,
    RouteBackend,
    RouteCaller,
    RouteInspection,
    RouteStatus,
    UpstreamStatus,
)
from vedette.policy.check import Outline
from vedette.policy.resources import resources_of

Rows = Sequence[Mapping[str, Any]]


def upstream_statuses(snapshot: Snapshot, rows: Rows | None) -> list[UpstreamStatus]:
    """The services of a snapshot by name. `rows`: what the engine says of them; None: it is away.

    One that sidecars call is there once more for each, as `NAME@SIDECAR`: it has connections, health and a breaker
    of its own.
    """
    known = {row["name"]: row for row in rows or ()}
    found = []
    for each in snapshot.upstreams:
        routes = _leading_to(snapshot, each.name)
        found.append(_upstream(each, known.get(each.name), [one.name for one in routes]))
        of_mesh = [one.name for one in routes if _is_of_mesh(one)]
        for name in sorted(name for name in known if name.startswith(f"{each.name}@")):
            called = each.model_copy(update={"name": name})
            found.append(_upstream(called, known[name], of_mesh))
    return found


def route_statuses(
    snapshot: Snapshot,
    base: str,
    outlines: Sequence[Outline],
    upstreams: Iterable[UpstreamStatus],
    now: datetime,
) -> list[RouteStatus]:
    """The routes of a snapshot by name; `base`: URL of the node, `outlines`: its policies."""
    ready = {each.name: each.ready for each in upstreams}
    return [
        RouteStatus(
            name=route.name,
            hosts=route.hosts,
            path=route.path,
            method=route.method,
            headers=route.headers,
            query=route.query,
            cookies=route.cookies,
            url=route_url(base, route),
            backends=tuple(_backends(route, ready)),
            mirror=route.mirror.upstream if route.mirror else None,
            limits=tuple(
                limit.name
                for limit in snapshot.limits
                if not limit.routes or route.name in limit.routes
            ),
            waf=_inspection(snapshot, route, now),
            countries=route.countries,
            fault=route.fault,
            challenge=challenge_of(snapshot, route),
            callers=tuple(callers_of(route, outlines)),
        )
        for route in snapshot.routes
    ]


def challenge_of(snapshot: Snapshot, route: Route) -> ChallengeMode:
    """Which browsers a route asks for a little work: as it says, else as the node says of what others answer."""
    node = snapshot.admit.challenge
    if node is None:
        return "Never"
    answers = isinstance(route.backend, FunctionBackend | ServicesBackend | ModelBackend)
    return route.challenge or (node.mode if answers else "Never")


def _inspection(snapshot: Snapshot, route: Route, now: datetime) -> RouteInspection:
    """What the node says of inspection, with what the route has otherwise on top."""
    if snapshot.waf is None:
        return RouteInspection(mode="off", paranoia_level=1, exclusions=0, expired=0)
    node, own = snapshot.waf.policy, route.waf or WafOverride()
    exclusions = node.exclusions + own.exclusions
    ended = [each for each in exclusions if each.is_over(now.timestamp())]
    return RouteInspection(
        mode=own.mode or node.mode,
        paranoia_level=own.paranoia_level or node.paranoia_level,
        exclusions=len(exclusions),
        expired=len(ended),
    )


def _backends(route: Route, ready: Mapping[str, bool | None]) -> Iterable[RouteBackend]:
    backend = route.backend
    match backend:
        case FunctionBackend():
            yield RouteBackend(kind="Function", name=backend.function)
        case ModelBackend():
            yield RouteBackend(kind="Model", name=backend.model)
        case ServicesBackend():
            for one in backend.services:
                known = ready.get(one.name) if one.kind == "Upstream" else None
                yield RouteBackend(kind=one.kind, name=one.name, weight=one.weight, ready=known)
        case StaticBackend():
            yield RouteBackend(kind="Static", detail=f"{backend.status} {backend.content_type}")
        case RedirectBackend():
            yield RouteBackend(kind="Redirect", detail=f"{backend.status} {_location(backend)}")
        case FilesBackend():
            count = len(backend.files)
            yield RouteBackend(kind="Files", detail=f"{count} file{'' if count == 1 else 's'}")


def _location(backend: RedirectBackend) -> str:
    """Where a redirect leads, with `…` for what stays as it was asked."""
    port = f":{backend.port}" if backend.port else ""
    path = backend.path.value if backend.path else "/…"
    return f"{backend.scheme or '…'}://{backend.hostname or '…'}{port}{path}"


def callers_of(route: Route, outlines: Iterable[Outline]) -> list[RouteCaller]:
    """The policies about a route, permits first. On hosts of the mesh no token is looked at, so policies about
    tokens are about nobody there.
    """
    resources = resources_of(route)
    is_of_mesh = _is_of_mesh(route)
    about = [
        RouteCaller(
            policy=each.id,
            file=each.file,
            line=each.line,
            effect="forbid" if each.effect == "forbid" else "permit",
            principal_type=each.principal.type,
            principal_id=each.principal.id,
            conditional=each.conditional,
        )
        for each in outlines
        if any(each.is_about(*resource) for resource in resources)
        and not (is_of_mesh and each.principal.type == "Subject")
    ]
    return sorted(about, key=lambda each: (each.effect == "forbid", each.file, each.line))


def _is_of_mesh(route: Route) -> bool:
    return bool(route.hosts) and all(map(is_mesh, route.hosts))


def _leading_to(snapshot: Snapshot, upstream: str) -> tuple[Route, ...]:
    return tuple(
        route
        for route in snapshot.routes
        if isinstance(route.backend, ServicesBackend)
        and any((one.kind, one.name) == ("Upstream", upstream) for one in route.backend.services)
    )


def _upstream(
    declared: Upstream, row: Mapping[str, Any] | None, routes: Iterable[str]
) -> UpstreamStatus:
    known = {(one["host"], one["port"]): one for one in row["endpoints"]} if row else {}
    endpoints = tuple(
        _endpoint(one.host, one.port, one.weight, known.get((one.host, one.port)))
        for one in declared.endpoints
    )
    used = [each.ready for each in endpoints if each.weight]
    ready = None if None in used else True in used
    return UpstreamStatus(
        name=declared.name,
        protocol=declared.protocol,
        tls=declared.tls is not None,
        check="active" if declared.health else "passive",
        health=declared.health,
        outlier=declared.outlier,
        breaker=declared.breaker,
        circuit=_circuit((row or {}).get("circuit")),
        ready=ready,
        requests=row["requests"] if row else 0,
        failures=row["failures"] if row else 0,
        retries=row["retries"] if row else 0,
        hedges=(row or {}).get("hedges", 0),
        hedges_won=(row or {}).get("hedgesWon", 0),
        mirrors_dropped=row["mirrorsDropped"] if row else 0,
        endpoints=endpoints,
        routes=tuple(routes),
    )


def _circuit(row: Mapping[str, Any] | None) -> CircuitStatus | None:
    if row is None:
        return None
    return CircuitStatus(
        state=row["state"],
        open_until=_time(row["openUntil"]),
        opened=row["opened"],
        refused=row["refused"],
        why=row["why"],
    )


def _endpoint(host: str, port: int, weight: int, row: Mapping[str, Any] | None) -> EndpointStatus:
    if row is None:
        return EndpointStatus(host=host, port=port, weight=weight, state="unknown")
    last = row["lastError"]
    return EndpointStatus(
        host=host,
        port=port,
        weight=weight,
        state=row["state"],
        ready=row["ready"],
        failing_since=_time(row["failingSince"]),
        ejected_until=_time(row["ejectedUntil"]),
        last_error=EndpointError(time=_rfc3339(last["time"]), message=last["message"])
        if last
        else None,
        in_flight=row["inFlight"],
        connections=row["connections"],
        requests=row["requests"],
        failures=row["failures"],
        ejections=row["ejections"],
    )


def _time(millis: int | None) -> str | None:
    return None if millis is None else _rfc3339(millis)


def _rfc3339(millis: int) -> str:
    return to_rfc3339(datetime.fromtimestamp(millis / 1000, UTC))
