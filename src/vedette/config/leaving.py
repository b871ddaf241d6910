"""What the egress policies of a snapshot come to for each function.

Owns: which functions a policy is for, and which JWT-SVIDs rules add to their calls. Must not: check anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vedette.config.egress import EgressPolicy
    from vedette.config.snapshot import Route, Snapshot

Token = tuple[str, tuple[str, ...]]
"""The name of a function, and audiences, sorted."""


def tokens_of(snapshot: Snapshot) -> set[Token]:
    """The JWT-SVIDs that rules add to calls, also those of functions that are not there."""
    return {
        (function, rule.credential.jwt_svid.audience)
        for policy in snapshot.egress or ()
        for rule in policy.rules
        if rule.credential and rule.credential.jwt_svid
        for function in functions_of(policy, snapshot)
    }


def functions_of(policy: EgressPolicy, snapshot: Snapshot) -> set[str]:
    """The functions that a policy is for, always or on some route; also those that are not there."""
    named = set(policy.routes or ())
    behind = (answering(route) for route in snapshot.routes if route.name in named)
    return {*policy.functions, *(function for each in behind for function in each)}


def answering(route: Route) -> Iterator[str]:
    """The functions that answer a route: one, some of its services, or none."""
    if route.backend.type == "Function":
        yield route.backend.function
    elif route.backend.type == "Services":
        yield from (each.name for each in route.backend.services if each.kind == "Function")
