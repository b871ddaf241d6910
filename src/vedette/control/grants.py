"""Time-boxed grants: somebody may do something until a moment, which the engine itself keeps (ADR 0039).

Owns: the policy file of each (`grant-NAME.cedar`, a permit with an end in the snapshot) and control/grants.json (who
granted it, when and why). Must not: let a grant end later than was said, also by going back to an older snapshot.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from vedette.clock import now, to_rfc3339
from vedette.config.snapshot import PolicyRef, Snapshot
from vedette.control import desired
from vedette.control.activate import Activator, Outcome
from vedette.control.messages import GrantStatus, GrantWish
from vedette.errors import ConfigError
from vedette.ids import require_name
from vedette.policy.grants import Grant, grant_file, grant_text
from vedette.policy.resources import all_resources
from vedette.store.atomic import read_json, write_json
from vedette.store.home import Home

MAX_GRANTS: Final = 1_000
LONGEST: Final = timedelta(days=30)
_KEPT: Final = timedelta(seconds=60)
"""How long one that has ended stays in the snapshot, where it does nothing."""


class Grants:
    """The grants of a node. Methods may be called from any thread."""

    def __init__(
        self, home: Home, activator: Activator, clock: Callable[[], datetime] = now
    ) -> None:
        self._file = home.grants_file
        self._activator = activator
        self._clock = clock
        self._lock = threading.RLock()

    def list(self) -> list[GrantStatus]:
        """The grants that have not ended, by name."""
        with self._lock:
            notes = self._notes()
        moment = self._clock().timestamp()
        grants = desired.grants(self._activator.active()[1])
        return [
            _status(ref, notes.get(ref.name, {}))
            for ref in grants
            if (ref.expires_at or 0) > moment
        ]

    def grant(self, wish: GrantWish, issuer: str, actor: str) -> tuple[GrantStatus, Outcome]:
        """Permits something until `wish.seconds` from now; `issuer` is that of a bare name.

        Raises `ConfigError` grant_invalid, invalid_name, function_unknown.
        """
        if not 1 <= wish.seconds <= LONGEST.total_seconds():
            raise ConfigError("grant_invalid", "a grant lasts from a second to 30 days")
        name = require_name(wish.name or f"g-{secrets.token_hex(4)}", "grant")
        kind, target = _target(self._activator.active()[1], wish.target)
        grant = Grant.of(name, wish.principal, issuer, (kind, target), wish.methods)
        moment = self._clock()
        ref = PolicyRef(
            name=grant_file(name),
            blob=self._activator.blobs.put(grant_text(grant).encode()),
            expires_at=int(moment.timestamp()) + wish.seconds,
        )
        note = {
            "principal": grant.principal,
            "target": f"{kind.lower()}/{target}",
            "methods": list(grant.methods),
            "at": to_rfc3339(moment),
            "actor": actor,
            "reason": wish.reason or "",
        }
        with self._lock:
            write_json(self._file, {**self._notes(), ref.name: note})
            outcome = self._activator.change(
                lambda active: _with(active, ref), f"grant {name}", actor
            )
        return _status(ref, note), outcome

    def end(self, name: str, actor: str) -> Outcome:
        """Ends a grant before its time. Raises `ConfigError` grant_unknown."""
        file = grant_file(require_name(name, "grant"))
        with self._lock:
            outcome = self._activator.change(
                lambda active: _without(active, name, file), f"end grant {name}", actor
            )
            self._forget_notes()
        return outcome

    def prune(self) -> None:
        """Takes those out of the snapshot that have ended by themselves."""
        limit = (self._clock() - _KEPT).timestamp()
        with self._lock:
            grants = desired.grants(self._activator.active()[1])
            if all((ref.expires_at or 0) > limit for ref in grants):
                return
            self._activator.change(
                lambda active: desired.with_grants(
                    active,
                    [one for one in desired.grants(active) if (one.expires_at or 0) > limit],
                ),
                "prune grants",
                "control",
            )
            self._forget_notes()

    def _forget_notes(self) -> None:
        kept = {ref.name for ref in desired.grants(self._activator.active()[1])}
        notes = self._notes()
        left = {name: note for name, note in notes.items() if name in kept}
        if left != notes:
            write_json(self._file, left)

    def _notes(self) -> dict[str, Any]:
        notes = read_json(self._file)
        return notes if isinstance(notes, dict) else {}


def _with(active: Snapshot, ref: PolicyRef) -> Snapshot:
    grants = desired.grants(active)
    if any(one.name == ref.name for one in grants):
        raise ConfigError("grant_invalid", f"there is a grant {ref.name!r} already")
    if len(grants) >= MAX_GRANTS:
        raise ConfigError("grant_invalid", f"a node has at most {MAX_GRANTS} grants")
    return desired.with_grants(active, [*grants, ref])


def _without(active: Snapshot, name: str, file: str) -> Snapshot:
    grants = desired.grants(active)
    left = [one for one in grants if one.name != file]
    if len(left) == len(grants):
        raise ConfigError("grant_unknown", f"there is no grant {name!r}")
    return desired.with_grants(active, left)


def _target(snapshot: Snapshot, text: str) -> tuple[str, str]:
    """`function/NAME`, `model/NAME`, `route/NAME`, or a name alone: a function's, else a model's, else a route's."""
    known = all_resources(snapshot)
    kind, slash, name = text.rpartition("/")
    kinds = (
        {"function": ["Function"], "model": ["Model"], "route": ["Route"]}.get(kind, [])
        if slash
        else ["Function", "Model", "Route"]
    )
    for one in kinds:
        if (one, name) in known:
            return one, name
    raise ConfigError(
        "grant_invalid", f"there is no function, model or route {text[:80]!r} to be called"
    )


def _status(ref: PolicyRef, note: dict[str, Any]) -> GrantStatus:
    ends = datetime.fromtimestamp(ref.expires_at or 0, UTC)
    return GrantStatus(
        name=ref.name.removeprefix("grant-").removesuffix(".cedar"),
        principal=note.get("principal"),
        target=note.get("target"),
        methods=tuple(note.get("methods", ())),
        expires_at=to_rfc3339(ends),
        granted_at=note.get("at"),
        actor=note.get("actor"),
        reason=note.get("reason") or None,
    )
