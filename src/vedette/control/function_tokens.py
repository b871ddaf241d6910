"""JWT-SVIDs that the engine adds to calls of functions, where a rule of an EgressPolicy says so.

Owns: which there are, until when, and what they say of a function: its SPIFFE ID, the component that was measured when
it was stored, the version of it. Must not: write them anywhere, or show one; `engine_svids` hands them to the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from vedette.config.leaving import tokens_of
from vedette.config.snapshot import Snapshot
from vedette.control.workload.identities import Identities
from vedette.identity.domain import SpiffeId, spiffe_id
from vedette.identity.jwt_svid import DEFAULT_JWT_TTL, JwtSvid

TTL: Final = DEFAULT_JWT_TTL
"""Nobody can take one back: minutes. Renewed at half."""
COMPONENT_CLAIM: Final = "vedette.dev/component"
"""`sha256:` and the digest of the component. RFC 7519 §4.2: a name that is ours by its domain."""
VERSION_CLAIM: Final = "vedette.dev/version"
"""The generation of the node's snapshot that brought the component."""

VersionOf = Callable[[str, str], int]


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose, of which component, for whom."""

    function: str
    component: str
    audience: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Held:
    svid: JwtSvid
    issued: datetime
    signer: tuple[str, str | None]
    """The key that signed it and its `iss`: when these are others, so is the token."""

    def is_fresh(self, at: datetime) -> bool:
        """Whether it is in the first half of its life; not when the clock went back before it."""
        return self.issued - timedelta(seconds=5) <= at < self.issued + TTL / 2


class FunctionTokens:
    """The JWT-SVIDs of a node's functions. For one thread."""

    def __init__(self, identities: Identities, version_of: VersionOf) -> None:
        """`version_of` says which generation brought a function's component."""
        self._identities = identities
        self._version_of = version_of
        self._held: dict[Asked, _Held] = {}

    def step(self, snapshot: Snapshot, at: datetime) -> list[dict[str, Any]]:
        """All that `snapshot` asks for, as the engine reads them; those that are due are minted anew.

        Raises `UnavailableError`.
        """
        asked = asked_of(snapshot)
        self._held = {one: self._current(one, at) for one in asked}
        return [_written(one, self._held[one].svid) for one in asked]

    def _current(self, asked: Asked, at: datetime) -> _Held:
        signer = (self._identities.jwt.key_id, self._identities.oidc_issuer)
        held = self._held.get(asked)
        if held is not None and held.signer == signer and held.is_fresh(at):
            return held
        identity = SpiffeId(self._identities.trust_domain, f"/fn/{asked.function}")
        claims: dict[str, str | int] = {
            COMPONENT_CLAIM: asked.component,
            VERSION_CLAIM: self._version_of(asked.function, asked.component),
        }
        svid = self._identities.mint_jwt(identity, asked.audience, TTL, at, claims)
        return _Held(svid, at, signer)


def asked_of(snapshot: Snapshot) -> list[Asked]:
    """What rules ask for, in order; nothing for a function that is not there or whose ID is revoked."""
    wanted = sorted(tokens_of(snapshot))
    components = {each.name: each.component for each in snapshot.functions} if wanted else {}
    revoked = set(snapshot.identity.revoked_spiffe_ids or ())
    domain = snapshot.node.trust_domain
    return [
        Asked(function, components[function], audience)
        for function, audience in wanted
        if function in components and spiffe_id(domain, f"/fn/{function}") not in revoked
    ]


def _written(asked: Asked, svid: JwtSvid) -> dict[str, Any]:
    return {
        "name": f"fn/{asked.function}",
        "component": asked.component,
        "audience": list(asked.audience),
        "token": svid.token,
        "ends": int(svid.not_after.timestamp()),
    }
