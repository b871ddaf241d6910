"""What a Sidecar becomes in a snapshot: who the engine speaks for, and the way to the program.

Owns: the names of its parts. Pure. Must not: say which snapshot they go into.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from vedette.config.sidecar import MESH_SUFFIX, OWN_PATHS, Sidecar
from vedette.config.sidecar_manifest import SidecarSpec
from vedette.config.snapshot import (
    BackendRef,
    Endpoint,
    PathMatch,
    Route,
    ServicesBackend,
    Upstream,
)
from vedette.config.waf import WafOverride
from vedette.errors import ConfigError
from vedette.ids import is_name, require_name
from vedette.policy.defaults import sidecar_policy


@dataclass(frozen=True, slots=True)
class SidecarParts:
    """The objects of one Sidecar; a program that only calls has no upstream and no route, one without callers no
    policy. `policy` is its text.
    """

    sidecar: Sidecar
    upstream: Upstream | None = None
    route: Route | None = None
    policy: str | None = None


def route_name(name: str) -> str:
    """What the upstream and the route of a sidecar are called. Policies name the route."""
    return f"sidecar-{name}"


def mesh_host(name: str) -> str:
    """The host that callers ask for."""
    return f"{name}{MESH_SUFFIX}"


def unknown_domains(callers: Iterable[str], known: Collection[str]) -> list[str]:
    """A sentence for each trust domain of callers that nobody can prove to be of yet: its bundle is not known."""
    domains = {each.removeprefix("spiffe://").partition("/")[0] for each in callers}
    return [
        f"no bundle of {each}: its callers are refused until `vedette federation set {each} --bundle FILE`"
        for each in sorted(domains.difference(known))
    ]


def parts_of(name: str, spec: SidecarSpec, waf: WafOverride | None = None) -> SidecarParts:
    """The parts of the Sidecar `name`. Raises `ConfigError` invalid_name, spiffe_id_reserved."""
    require_name(name, "sidecar")
    if name in OWN_PATHS:
        raise ConfigError("spiffe_id_reserved", f"the SPIFFE ID /{name} is the node's own")
    known = route_name(name)
    if not is_name(known):
        raise ConfigError("invalid_name", f"{known!r}, the name of its route, is too long")
    sidecar = Sidecar(name=name, mode=spec.mode)
    if spec.port is None:
        return SidecarParts(sidecar)
    route = Route(
        name=known,
        hosts=(mesh_host(name),),
        path=PathMatch(type="PathPrefix", value="/"),
        backend=ServicesBackend(services=(BackendRef(kind="Upstream", name=known),)),
        waf=waf,
    )
    endpoint = Endpoint(host=spec.host, port=spec.port)
    upstream = Upstream(name=known, endpoints=(endpoint,), protocol=spec.protocol)
    callers = sorted(set(spec.callers))
    policy = sidecar_policy(name, route, callers) if callers else None
    return SidecarParts(sidecar, upstream, route, policy)
