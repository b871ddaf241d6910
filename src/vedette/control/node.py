"""The operations of a node: one method for each thing a person or the admin API can ask for.

Owns: what an operation means, in terms of `desired`, `activate` and the stores. Must not: know HTTP, or log a token.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from vedette import __version__
from vedette.clock import to_rfc3339
from vedette.config.hosts import normalise_destination, normalise_host
from vedette.config.manifest import route_path
from vedette.config.snapshot import Function, Issuer, PathMatch, PolicyRef, Route
from vedette.control import desired
from vedette.control.activate import Activator, Outcome
from vedette.control.bootstrap import Keys
from vedette.control.messages import (
    Activation,
    Deployed,
    FunctionStatus,
    FunctionWish,
    HistoryEntry,
    IssuerWish,
    NodeStatus,
    PolicyText,
    StaticRouteWish,
    Stored,
    Token,
    TokenWish,
)
from vedette.control.status import base_url, function_statuses, node_status, route_url
from vedette.control.supervisor.state import SupervisorState, read_state
from vedette.engine.client import EngineStatus
from vedette.errors import ConfigError, VedetteError
from vedette.functions.admit import read_component
from vedette.identity.tokens import ISSUER_NAME, MAX_TTL
from vedette.ids import require_digest, require_name
from vedette.observability.metrics import EngineCounters
from vedette.observability.metrics import NodeFacts as MetricFacts
from vedette.policy.defaults import public_policy, public_policy_name
from vedette.store.home import Home


class Node:
    """One node, as control sees it. Methods may be called from any thread."""

    def __init__(self, home: Home, keys: Keys, activator: Activator) -> None:
        self.home = home
        self._keys = keys
        self._activator = activator

    # --- reading ---------------------------------------------------------------------------------------------------

    def status(self) -> NodeStatus:
        """Everything about the node now; the engine's part is empty while it is away."""
        entry, snapshot = self._activator.active()
        return node_status(self.home, self._supervised(), entry, snapshot, self._engine_status())

    def functions(self) -> list[FunctionStatus]:
        """Deployed functions, by name."""
        return function_statuses(self._activator.active()[1], base_url(self._supervised()))

    def require_function(self, name: str) -> None:
        """Raises `ConfigError` function_unknown."""
        if self._activator.active()[1].function(require_name(name)) is None:
            raise ConfigError("function_unknown", f"no function {name!r} is deployed")

    def history(self, limit: int) -> list[HistoryEntry]:
        """Activations, newest first."""
        return [
            HistoryEntry(
                generation=entry.generation,
                digest=entry.digest,
                action=entry.action,
                actor=entry.actor,
                activated_at=to_rfc3339(entry.activated_at, microseconds=True),
            )
            for entry in self._activator.history.entries(limit)
        ]

    def policies(self) -> list[PolicyText]:
        """The active policy files."""
        refs = self._activator.active()[1].policy.policies
        blobs = self._activator.blobs
        return [PolicyText(name=ref.name, text=blobs.get(ref.blob).decode()) for ref in refs]

    def policy(self, name: str) -> PolicyText:
        """One policy file. Raises `ConfigError` policy_unknown."""
        for policy in self.policies():
            if policy.name == name:
                return policy
        raise ConfigError("policy_unknown", f"there is no policy {name!r}")

    def issuers(self) -> list[Issuer]:
        """Trusted issuers, by name."""
        return list(self._activator.active()[1].identity.issuers)

    def ca_certificate(self) -> bytes:
        """The CA's certificate, PEM."""
        return self._keys.authority.certificate_pem

    def engine_metrics(self) -> EngineCounters | None:
        """The engine's counters; None while it is away."""
        with contextlib.suppress(VedetteError):
            return self._activator.engine.metrics()
        return None

    def metric_facts(self) -> MetricFacts:
        """What control knows for the metrics."""
        entry, snapshot = self._activator.active()
        state = self._supervised()
        return MetricFacts(
            version=__version__,
            location=state.location,
            generation=entry.generation,
            functions=len(snapshot.functions),
            restarts={"engine": state.engine.restarts, "control": state.control.restarts},
        )

    # --- changing --------------------------------------------------------------------------------------------------

    def store_component(self, digest: str, file: Path) -> Stored:
        """Admits an uploaded file as a component. Raises `ConfigError` digest_mismatch or why it is not one."""
        admitted = read_component(file)
        if admitted.digest != require_digest(digest):
            raise ConfigError("digest_mismatch", f"the content is not {digest}")
        self._activator.blobs.put(admitted.data)
        return Stored(digest=admitted.digest, size=admitted.size)

    def deploy(self, name: str, wish: FunctionWish, actor: str) -> Deployed:
        """Deploys an uploaded component as `name`, replacing what had that name; returns when it is active."""
        function = self._function(require_name(name), wish)
        route = desired.function_route(
            name, wish.domains, None if wish.route is None else route_path(wish.route)
        )
        public = (
            self._policy_ref(public_policy_name(name), public_policy(name)) if wish.public else None
        )
        outcome = self._activator.change(
            lambda active: desired.put_function(
                active, function, route, public, public_policy_name(name), self._base()
            ),
            f"deploy {name}",
            actor,
        )
        return Deployed(
            **_activation(outcome).model_dump(),
            name=name,
            component=wish.component,
            route=route.path.value,
            url=route_url(base_url(self._supervised()), route),
        )

    def remove(self, name: str, actor: str) -> Activation:
        """Removes a function with its routes and its public policy."""
        public = public_policy_name(require_name(name))
        return self._change(
            lambda active: desired.remove_function(active, name, public, self._base()),
            f"remove {name}",
            actor,
        )

    def put_static_route(self, name: str, wish: StaticRouteWish, actor: str) -> Activation:
        """Makes the node itself answer a path."""
        route = Route(
            name=require_name(name, "route"),
            hosts=tuple(sorted({normalise_host(host) for host in wish.hosts})),
            path=PathMatch(
                type="Exact" if wish.exact else "PathPrefix", value=route_path(wish.path)
            ),
            backend=wish.backend,
        )
        return self._change(
            lambda active: desired.put_route(active, route, self._base()), f"route {name}", actor
        )

    def remove_route(self, name: str, actor: str) -> Activation:
        """Removes a route."""
        return self._change(
            lambda active: desired.remove_route(active, name, self._base()),
            f"remove route {name}",
            actor,
        )

    def put_policy(self, name: str, text: str, actor: str) -> Activation:
        """Checks and activates a policy file. Raises `ConfigError` policy_invalid with file and line."""
        policy = self._policy_ref(name, text)
        return self._change(
            lambda active: desired.put_policy(active, policy), f"policy {name}", actor
        )

    def check_policy(self, name: str, text: str) -> list[str]:
        """Checks a policy file beside the active ones, and activates nothing; returns warnings."""
        policy = self._policy_ref(name, text)
        candidate = desired.put_policy(self._activator.active()[1], policy)
        return self._activator.check_policies(candidate)

    def remove_policy(self, name: str, actor: str) -> Activation:
        """Removes a policy file."""
        return self._change(
            lambda active: desired.remove_policy(active, name), f"remove policy {name}", actor
        )

    def put_issuer(self, name: str, wish: IssuerWish, actor: str) -> Activation:
        """Trusts an issuer. Raises `ConfigError` issuer_reserved for the node's own."""
        self._require_foreign(name)
        issuer = Issuer(
            name=require_name(name, "issuer"),
            issuer=wish.issuer,
            audiences=tuple(sorted(set(wish.audiences))),
            leeway_seconds=wish.leeway_seconds,
            keys=tuple(sorted(wish.keys, key=lambda key: f"{key.kid or ''} {key.alg}")),
        )
        return self._change(
            lambda active: desired.put_issuer(active, issuer), f"issuer {name}", actor
        )

    def remove_issuer(self, name: str, actor: str) -> Activation:
        """Stops trusting an issuer."""
        self._require_foreign(name)
        return self._change(
            lambda active: desired.remove_issuer(active, name), f"remove issuer {name}", actor
        )

    def roll_back(self, digest: str | None, actor: str) -> Activation:
        """Activates an older snapshot."""
        wanted = None if digest is None else self._full_digest(digest)
        return _activation(self._activator.roll_back(wanted, actor))

    def mint(self, wish: TokenWish) -> Token:
        """A token of this node; it is not kept and not logged."""
        ttl = timedelta(seconds=wish.ttl_seconds)
        minted = self._keys.tokens.mint(
            wish.subject, ttl, scopes=wish.scopes, audience=wish.audience, long=ttl > MAX_TTL
        )
        return Token(token=minted.token, expires_at=to_rfc3339(minted.expires_at))

    # --- inside ----------------------------------------------------------------------------------------------------

    def _change(self, change: desired.Change, action: str, actor: str) -> Activation:
        return _activation(self._activator.change(change, action, actor))

    def _function(self, name: str, wish: FunctionWish) -> Function:
        digest = require_digest(wish.component)
        if not self._activator.blobs.has(digest):
            raise ConfigError("blob_missing", f"the component {digest} was not uploaded")
        self._activator.ensure_compiled(digest)
        return Function(
            name=name,
            component=digest,
            size=self._activator.blobs.path(digest).stat().st_size,
            env=wish.env,
            config=wish.config,
            limits=wish.limits,
            allowed_hosts=tuple(sorted({normalise_destination(it) for it in wish.allowed_hosts})),
            reuse=wish.reuse,
        )

    def _policy_ref(self, name: str, text: str) -> PolicyRef:
        if not name.endswith(".cedar"):
            raise ConfigError("invalid_name", f"{name!r}: the name of a policy ends in .cedar")
        return PolicyRef(name=name, blob=self._activator.blobs.put(text.encode()))

    def _require_foreign(self, name: str) -> None:
        if name == ISSUER_NAME:
            raise ConfigError("issuer_reserved", f"the issuer {name!r} is this node itself")

    def _full_digest(self, text: str) -> str:
        """A digest from the history by its first digits, at least 6, as `vedette history` shows them."""
        start = text.removeprefix("sha256:")
        known: Iterable[str] = {entry.digest for entry in self._activator.history.entries(10_000)}
        found = [digest for digest in known if digest.removeprefix("sha256:").startswith(start)]
        if len(start) >= 6 and len(found) == 1:
            return found[0]
        if len(start) >= 6 and len(found) > 1:
            raise ConfigError(
                "snapshot_unknown", f"{text!r} names {len(found)} snapshots; write more digits"
            )
        raise ConfigError("snapshot_unknown", f"there is no snapshot {text!r} in the history")

    def _base(self) -> frozenset[str]:
        urls = [listener["url"] for listener in self._supervised().listeners]
        return desired.base_hosts(_host_of_url(url) for url in urls)

    def _supervised(self) -> SupervisorState:
        state = read_state(self.home.supervisor_file)
        return state or SupervisorState(__version__, str(self.home.root), "local")

    def _engine_status(self) -> EngineStatus | None:
        with contextlib.suppress(VedetteError):
            return self._activator.engine.status()
        return None


def _activation(outcome: Outcome) -> Activation:
    entry = outcome.entry
    return Activation(digest=entry.digest, generation=entry.generation, applied=outcome.applied)


def _host_of_url(url: str) -> str:
    return url.partition("://")[2].rpartition(":")[0].strip("[]")
