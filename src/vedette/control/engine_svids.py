"""SVIDs that the engine shows to others: the gateway's to services, a function's to what it calls, and those of the
programs that it speaks for in the mesh.

Owns: engine/svids.json, and who has an X509-SVID there: only who is to show one. Which JWT-SVIDs, `function_tokens`
says. Control measured a component when it stored it, so a function's SVID names the component that it is for; with
another digest it is taken back. Must not: mint for programs; the Workload API does.
"""

from __future__ import annotations

import base64
import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from vedette.config.leaving import functions_of
from vedette.config.snapshot import Route, Snapshot
from vedette.control.function_tokens import FunctionTokens
from vedette.control.workload.identities import Identities
from vedette.engine.client import EngineClient
from vedette.errors import VedetteError
from vedette.identity.domain import SpiffeId, spiffe_id
from vedette.identity.x509_svid import MAX_TTL, X509Svid
from vedette.store.atomic import write_atomic
from vedette.store.home import Home

TTL: Final = MAX_TTL
"""Renewed at half: for the other half hour the engine shows one though control is away."""
INTERVAL: Final = 0.5
_GATEWAY: Final = "gateway"

_log = logging.getLogger(__name__)
Active = Callable[[], Snapshot]


@dataclass(frozen=True, slots=True)
class _Held:
    component: str | None
    svid: X509Svid


class EngineSvids:
    """The SVIDs of one node's engine."""

    def __init__(
        self,
        home: Home,
        identities: Identities,
        active: Active,
        engine: EngineClient,
        tokens: FunctionTokens,
    ) -> None:
        """`active` is the snapshot that is served."""
        self._file = home.engine_svids
        self._identities = identities
        self._active = active
        self._engine = engine
        self._tokens = tokens
        self._held: dict[str, _Held] = {}
        self._written: bytes | None = None
        self._told: bytes | None = None
        self.shown: dict[str, datetime] = {}
        """Until when the engine shows which, as far as it was told. Replaced as a whole, so any thread may look."""
        self._said = ""

    def run(self, stopping: threading.Event) -> None:
        """Steps twice a second until `stopping` is set."""
        while not stopping.is_set():
            try:
                self.step()
                self._said = ""
            except VedetteError as error:
                if error.code != "engine_away" and str(error) != self._said:
                    _log.warning("SVIDs of the engine: %s", error)
                self._said = str(error)
            except Exception:  # noqa: BLE001 - the next step may succeed
                _log.exception("SVIDs of the engine")
            stopping.wait(INTERVAL)

    def step(self) -> None:
        """Mints what is due, takes back what is not wanted any more, and tells the engine. Raises `VedetteError`."""
        at = self._identities.clock()
        snapshot = self._active()
        wanted = wanted_of(snapshot)
        gone = [
            (held.svid.serial, held.svid.not_after)
            for name, held in self._held.items()
            if name not in wanted or wanted[name] != held.component
        ]
        self._held = {
            name: self._current(name, component, at) for name, component in wanted.items()
        }
        if gone:
            self._identities.revoke(gone)
        content = self._content(self._tokens.step(snapshot, at))
        if content != self._written:
            write_atomic(self._file, content)
            self._written = content
        if content != self._told:
            self._engine.reload_svids()
            self._told = content
        self.shown = {name: held.svid.not_after for name, held in self._held.items()}

    def _current(self, name: str, component: str | None, at: datetime) -> _Held:
        held = self._held.get(name)
        if held is not None and held.component == component:
            half = held.svid.not_before + (held.svid.not_after - held.svid.not_before) / 2
            if held.svid.not_before - timedelta(seconds=5) <= at < half:
                return held
        identity = SpiffeId(self._identities.trust_domain, f"/{name}")
        return _Held(component, self._identities.x509.mint(identity, TTL, at))

    def _content(self, tokens: list[dict[str, Any]]) -> bytes:
        """Nothing that is not needed: without an X509-SVID no bundle, and a node of before knows no `tokens`."""
        content = self._x509() if self._held else {"svids": {}, "bundles": {}, "revoked": []}
        if tokens:
            content["tokens"] = tokens
        return json.dumps(content).encode()

    def _x509(self) -> dict[str, Any]:
        known = self._identities.bundles_for(self._identities.federation.bundles())
        return {
            "svids": {
                name: {
                    "chain": [_text(held.svid.certificate)],
                    "key": _text(held.svid.key),
                    "component": held.component,
                }
                for name, held in sorted(self._held.items())
            },
            "bundles": {
                domain: [_text(der) for der in bundle.x509_authorities]
                for domain, bundle in known.items()
            },
            "revoked": [f"{one.serial:x}" for one in self._identities.store.revoked()],
        }


def wanted_of(snapshot: Snapshot) -> dict[str, str | None]:
    """Who is to show an SVID, as a path without its slash, and for which component; nobody whose ID is revoked."""
    wanted: dict[str, str | None] = {}
    if any(each.tls and each.tls.peers for each in snapshot.upstreams):
        wanted[_GATEWAY] = None
    if any(_proves_itself(each, snapshot) for each in snapshot.routes):
        wanted[_GATEWAY] = None
    named = {
        function
        for policy in snapshot.egress or ()
        if any(rule.peers for rule in policy.rules)
        for function in functions_of(policy, snapshot)
    }
    wanted |= {
        f"fn/{each.name}": each.component for each in snapshot.functions if each.name in named
    }
    wanted |= {each.name: None for each in snapshot.sidecars or ()}
    revoked = set(snapshot.identity.revoked_spiffe_ids or ())
    domain = snapshot.node.trust_domain
    return {
        name: component
        for name, component in wanted.items()
        if spiffe_id(domain, f"/{name}") not in revoked
    }


def _proves_itself(route: Route, snapshot: Snapshot) -> bool:
    """Whether the gateway may show its SVID to a tier of this route."""
    policies = (each for each in snapshot.egress or () if route.name in (each.routes or ()))
    return bool(route.tiers) and any(rule.peers for each in policies for rule in each.rules)


def _text(der: bytes) -> str:
    return base64.b64encode(der).decode()
