"""The difference of two snapshots, object by object and field by field.

Owns: which objects a snapshot is made of, and what changed in each. Every difference in the bytes of
two snapshots shows as a change of some object. Pure. Must not: know manifests, or print.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from pydantic import Field

from vedette.config.model import Model, wire_value
from vedette.config.snapshot import Snapshot

Action = Literal["create", "update", "replace", "delete"]
Key = tuple[str, str]
NODE: Final[Key] = ("Node", "node")
# The order in which changes are told, whatever is there already.
_KINDS: Final = (
    "Node",
    "Issuer",
    "ClientAuthority",
    "Policy",
    "Function",
    "Model",
    "Upstream",
    "Route",
    "Limit",
    "EgressPolicy",
    "Sidecar",
    "AddressList",
)
_NAMED_BY: Final = ("name", "path", "host", "kid")
_PLAIN_MAPS: Final = ("env", "config")  # empty says nothing; an empty `tls` says a lot


class FieldChange(Model):
    """One field before and after; null: it was not there, or is gone."""

    path: str = Field(description="The field, such as limits.cpuMillis or endpoints[0].port.")
    old: Any = Field(default=None, description="Value before.")
    new: Any = Field(default=None, description="Value after.")


class ObjectChange(Model):
    """What happens to one object."""

    action: Action = Field(
        description="create, update, delete; replace: it becomes another kind of thing."
    )
    kind: str = Field(description="Kind of the object, such as Route.")
    name: str = Field(description="Its name.")
    file: str | None = Field(default=None, description="Manifest that says so.")
    line: int | None = Field(default=None, description="Line of the manifest.")
    fields: tuple[FieldChange, ...] = Field(default=(), description="What changes.")


def objects(snapshot: Snapshot) -> dict[Key, dict[str, Any]]:
    """Every object of a snapshot by kind and name, as plain data."""
    named: list[tuple[str, Any]] = [
        ("Issuer", snapshot.identity.issuers),
        ("ClientAuthority", snapshot.identity.authorities),
        ("Policy", snapshot.policy.policies),
        ("Function", snapshot.functions),
        ("Model", snapshot.models or ()),
        ("Model", snapshot.remote_models or ()),
        ("Upstream", snapshot.upstreams),
        ("Route", snapshot.routes),
        ("Limit", snapshot.limits),
        ("EgressPolicy", snapshot.egress or ()),
        ("Sidecar", snapshot.sidecars or ()),
        ("AddressList", snapshot.addresses.lists if snapshot.addresses else ()),
    ]
    found: dict[Key, dict[str, Any]] = {NODE: _node(snapshot)}
    for kind, rows in named:
        for row in rows:
            value = dict(wire_value(row))
            found[kind, value.pop("name")] = value
    return found


def _node(snapshot: Snapshot) -> dict[str, Any]:
    """What is the node's own. Hosts that a route names belong to the route."""
    routed = {host for route in snapshot.routes for host in route.hosts}
    admit = dict(wire_value(snapshot.admit))
    admit["hosts"] = [host for host in snapshot.admit.hosts if host not in routed]
    known = snapshot.addresses
    return {
        **admit,
        **({"waf": wire_value(snapshot.waf)} if snapshot.waf else {}),
        **({"countries": wire_value(known.countries)} if known and known.countries else {}),
        "trustDomain": snapshot.node.trust_domain,
        "policySchema": snapshot.policy.schema_,
        "revokedTokens": list(snapshot.identity.revoked_tokens),
        "revokedSpiffeIds": list(snapshot.identity.revoked_spiffe_ids or ()),
        "revokedTrustDomains": list(snapshot.identity.revoked_trust_domains or ()),
    }


def difference(before: Snapshot, after: Snapshot) -> list[ObjectChange]:
    """What changes from `before` to `after`, by kind and name; empty when nothing does."""
    old, new = objects(before), objects(after)
    order = sorted({*old, *new}, key=lambda key: (_KINDS.index(key[0]), key[1]))
    changes = (_change(key, old.get(key), new.get(key)) for key in order)
    return [change for change in changes if change is not None]


def _change(
    key: Key, old: dict[str, Any] | None, new: dict[str, Any] | None
) -> ObjectChange | None:
    if old == new:
        return None
    action: Action = "update"
    if old is None:
        action = "create"
    elif new is None:
        action = "delete"
    elif _nature(old) != _nature(new):
        action = "replace"
    fields = tuple(_fields(old or {}, new or {}))
    return ObjectChange(action=action, kind=key[0], name=key[1], fields=fields)


def _nature(value: Mapping[str, Any]) -> Any:
    """What makes an object another one: who answers a route."""
    backend = value.get("backend")
    return backend.get("type") if isinstance(backend, dict) else None


def _fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[FieldChange]:
    before, after = dict(_flat(old, "")), dict(_flat(new, ""))
    for path in sorted({*before, *after}):
        if before.get(path) != after.get(path):
            yield FieldChange(path=path, old=before.get(path), new=after.get(path))


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Leaves by path. A list of plain values is one leaf; of objects, each goes by its name."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        for label, each in zip(_labels(value), value, strict=True):
            yield from _flat(each, f"{path}[{label}]")
    elif path and value != [] and not (value == {} and path in _PLAIN_MAPS):
        yield path, value


def _labels(rows: list[dict[str, Any]]) -> list[str]:
    for field in _NAMED_BY:
        labels = [str(row[field]) for row in rows if field in row]
        if len(labels) == len(rows) == len(set(labels)):
            return labels
    return [str(index) for index in range(len(rows))]
