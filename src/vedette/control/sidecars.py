"""Sidecars of a node: made by a command or by manifests, listed, taken away.

Owns: what `PUT` and `DELETE /v1/sidecars/NAME` mean. One that a command made belongs to no manifest, so `apply --prune`
leaves it alone; one that a manifest made is changed there. Must not: serve a socket; `vedette sidecar` hands it over.
"""

from __future__ import annotations

from collections.abc import Callable

from vedette.clock import to_rfc3339
from vedette.config.model import build, wire_value
from vedette.config.sidecar import Sidecar
from vedette.config.sidecar_manifest import SidecarSpec
from vedette.config.snapshot import PolicyRef, Route, Snapshot
from vedette.control import desired
from vedette.control.activate import Activator, Outcome
from vedette.control.engine_svids import EngineSvids
from vedette.control.sidecar_messages import SidecarStatus, SidecarWish
from vedette.control.sidecar_parts import SidecarParts, mesh_host, parts_of, route_name
from vedette.control.traffic import callers_of
from vedette.errors import ConfigError
from vedette.identity.domain import spiffe_id
from vedette.policy.check import Outline
from vedette.policy.defaults import sidecar_policy_name


class Sidecars:
    """The sidecars of a node. Methods may be called from any thread."""

    def __init__(
        self, activator: Activator, svids: EngineSvids, hosts: Callable[[], frozenset[str]]
    ) -> None:
        """`hosts`: what the node answers to anyway."""
        self._activator = activator
        self._svids = svids
        self._hosts = hosts

    def list(self) -> list[SidecarStatus]:
        """The sidecars, by name."""
        snapshot = self._activator.active()[1]
        if not snapshot.sidecars:
            return []
        texts = self._activator.policy_texts(snapshot, {})
        outlines = self._activator.check_texts(texts).outlines
        return [self._status(each, snapshot, outlines) for each in snapshot.sidecars]

    def put(self, name: str, wish: SidecarWish, actor: str) -> Outcome:
        """Makes the sidecar as `wish` says; nothing changes when it is so already.

        Raises `ConfigError` sidecar_owned when a manifest says otherwise, sidecar_invalid, route_conflict,
        invalid_name, spiffe_id_reserved.
        """
        said = {key: value for key, value in wire_value(wish).items() if value}
        parts = parts_of(name, build(SidecarSpec, said, code="sidecar_invalid"))
        policy = None
        if parts.policy is not None:
            blob = self._activator.blobs.put(parts.policy.encode())
            policy = PolicyRef(name=sidecar_policy_name(name), blob=blob)

        def change(active: Snapshot) -> Snapshot:
            _require_free(active, name)
            after = with_sidecar(active, parts, policy, self._hosts())
            owner = self._owner(name)
            if owner is not None and after.digest() != active.digest():
                message = f"the manifest of the Sidecar {name!r} ({owner}) says otherwise"
                raise ConfigError("sidecar_owned", message)
            return after

        return self._activator.change(change, f"sidecar {name}", actor)

    def remove(self, name: str, actor: str) -> Outcome:
        """Takes a sidecar away, whoever made it. Raises `ConfigError` sidecar_unknown."""

        def change(active: Snapshot) -> Snapshot:
            if name not in {each.name for each in active.sidecars or ()}:
                raise ConfigError("sidecar_unknown", f"there is no sidecar {name!r}")
            return without_sidecar(active, name, self._hosts())

        return self._activator.change(change, f"remove sidecar {name}", actor)

    def _owner(self, name: str) -> str | None:
        """The file of the manifest that it belongs to."""
        for each in self._activator.history.applied():
            if (each.kind, each.name) == ("Sidecar", name):
                return each.file
        return None

    def _status(
        self, sidecar: Sidecar, snapshot: Snapshot, outlines: tuple[Outline, ...]
    ) -> SidecarStatus:
        name, own = sidecar.name, route_name(sidecar.name)
        known = [each for each in snapshot.routes if mesh_host(name) in each.hosts]
        known.sort(key=lambda each: each.name != own)
        places = [each.endpoints[0] for each in snapshot.upstreams if each.name == own]
        identity = spiffe_id(snapshot.node.trust_domain, f"/{name}")
        until = self._svids.shown.get(name)
        return SidecarStatus(
            name=name,
            spiffe_id=identity,
            host=mesh_host(name),
            mode=sidecar.mode,
            program=next((_place(one.host, one.port) for one in places), None),
            routes=tuple(each.name for each in known),
            callers=tuple(dict.fromkeys(c for route in known for c in callers_of(route, outlines))),
            file=self._owner(name),
            revoked=identity in (snapshot.identity.revoked_spiffe_ids or ()),
            svid_until=None if until is None else to_rfc3339(until),
        )


def with_sidecar(
    snapshot: Snapshot, parts: SidecarParts, policy: PolicyRef | None, hosts: frozenset[str]
) -> Snapshot:
    """The same, with the parts of a sidecar in the place of those it had. Pure. Raises `ConfigError` route_conflict."""
    name, own = parts.sidecar.name, route_name(parts.sidecar.name)
    # What names another comes after it: each step is a snapshot that holds.
    after = snapshot
    if parts.upstream is not None and parts.route is not None:
        others = (each for each in after.upstreams if each.name != own)
        upstreams = sorted([*others, parts.upstream], key=lambda each: each.name)
        after = after.with_(upstreams=tuple(upstreams))
        after = desired.put_route(after, parts.route, hosts)
    else:
        after = _without_way(after, own, hosts)
    after = _with_policy(after, sidecar_policy_name(name), policy)
    rest = (each for each in after.sidecars or () if each.name != name)
    sidecars = sorted([*rest, parts.sidecar], key=lambda each: each.name)
    return after.with_(sidecars=tuple(sidecars))


def without_sidecar(snapshot: Snapshot, name: str, hosts: frozenset[str]) -> Snapshot:
    """The same, without a sidecar and its parts. Pure."""
    after = _with_policy(snapshot, sidecar_policy_name(name), None)
    after = _without_way(after, route_name(name), hosts)
    rest = tuple(each for each in after.sidecars or () if each.name != name)
    return after.with_(sidecars=rest or None)


def _without_way(snapshot: Snapshot, own: str, hosts: frozenset[str]) -> Snapshot:
    if snapshot.route(own) is not None:
        snapshot = desired.remove_route(snapshot, own, hosts)
    upstreams = tuple(each for each in snapshot.upstreams if each.name != own)
    return snapshot.with_(upstreams=upstreams)


def _with_policy(snapshot: Snapshot, name: str, policy: PolicyRef | None) -> Snapshot:
    if policy is not None:
        return desired.put_policy(snapshot, policy)
    if any(each.name == name for each in snapshot.policy.policies):
        return desired.remove_policy(snapshot, name)
    return snapshot


def _require_free(snapshot: Snapshot, name: str) -> None:
    """Raises `ConfigError` sidecar_invalid when what the sidecar would be made of is somebody else's."""
    if name in {each.name for each in snapshot.sidecars or ()}:
        return
    own = route_name(name)
    taken: Route | object | None = snapshot.route(own)
    if taken is None:
        taken = next((each for each in snapshot.upstreams if each.name == own), None)
    if taken is not None:
        what = "a route" if isinstance(taken, Route) else "an upstream"
        raise ConfigError("sidecar_invalid", f"there is {what} {own!r} already, of no sidecar")


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
