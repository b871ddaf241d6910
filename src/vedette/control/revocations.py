"""What counts no more: tokens, certificates, SPIFFE IDs, trust domains.

Owns: the two steps of a revocation (the engine first, then the snapshot: ADR 0038), control/revoked.json (when each
revoked token ends) and control/revocations.json (who revoked what, when and why). Must not: see a token; its issuer,
its id and its end are enough.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any, Final

from vedette.clock import from_rfc3339, now, to_rfc3339
from vedette.config.snapshot import Snapshot
from vedette.control import desired
from vedette.control.activate import Activator, Outcome
from vedette.control.messages import RevocationStatus, RevokedToken
from vedette.errors import ConfigError, UnavailableError
from vedette.identity.revocation import Revocation, from_engine
from vedette.identity.tokens import MAX_LONG_TTL
from vedette.store.atomic import read_json, write_json
from vedette.store.home import Home

_log = logging.getLogger("vedette.control.revocations")
LEEWAY: Final = timedelta(seconds=300)  # the most an issuer may have
MAX_REVOKED: Final = 10_000
"""Of each kind; of certificates, of each authority. The engine keeps as many ahead of a snapshot."""
_LONGEST: Final = timedelta(days=366)
Listener = Callable[[frozenset[Revocation]], None]


class Revocations:
    """What a node revoked. Methods may be called from any thread."""

    def __init__(
        self, home: Home, activator: Activator, clock: Callable[[], datetime] = now
    ) -> None:
        self._file = home.revoked_file
        self._notes_file = home.revocations_file
        self._activator = activator
        self._clock = clock
        self._lock = threading.RLock()
        self._listeners: list[Listener] = []
        activator.unsettled = self.settle

    def listen(self, listener: Listener) -> None:
        """Calls `listener` with all that is revoked: now, and after each change, on the changing thread."""
        self._listeners.append(listener)
        listener(self._revoked())

    def tokens(self) -> list[RevokedToken]:
        """The revoked tokens, sorted by issuer and id."""
        with self._lock:
            ends = _mapping(self._file)
        return [
            RevokedToken(
                issuer=one.owner, jti=one.name, expires_at=to_rfc3339(self._end(ends, str(one)))
            )
            for one in sorted(self._revoked())
            if one.kind == "token"
        ]

    def list(self) -> list[RevocationStatus]:
        """What is revoked, by its spelling."""
        with self._lock:
            ends, notes = _mapping(self._file), _mapping(self._notes_file)
        told = []
        for one in sorted(self._revoked()):
            note = notes.get(str(one), {})
            end = self._end(ends, str(one)) if one.kind == "token" else None
            told.append(
                RevocationStatus(
                    what=str(one),
                    kind=one.kind,
                    revoked_at=note.get("at"),
                    actor=note.get("actor"),
                    reason=note.get("reason"),
                    expires_at=None if end is None else to_rfc3339(end),
                )
            )
        return told

    def revoke(
        self,
        one: Revocation,
        actor: str,
        reason: str | None = None,
        expires_at: datetime | None = None,
    ) -> Outcome:
        """Refuses `one` from the next request on and ends what goes on of it; when this returns, that is in force and
        durable. `expires_at` is for a token: its own end.

        Raises `ConfigError` issuer_unknown, authority_unknown, revocation_refused; and as `Activator.change` does: then
        it is in force until the engine ends, and made durable as soon as that is possible.
        """
        self._require(one, self._activator.latest())
        self._tell_engine(one)
        with self._lock:
            self._note(one, actor, reason, expires_at)
            outcome = self._activator.change(
                lambda active: _with(active, [one]), f"revoke {_word(one)}", actor
            )
        self._tell()
        return outcome

    def lift(self, one: Revocation, actor: str) -> Outcome:
        """Takes a revocation back. Raises `ConfigError` revocation_unknown."""
        with self._lock:
            outcome = self._activator.change(
                lambda active: _without(active, one), f"lift revocation of {_word(one)}", actor
            )
            self._forget_notes(self._revoked())
        self._tell()
        return outcome

    def settle(self) -> None:
        """Puts into the snapshot what the engine refuses ahead of it: control or the disk failed between the steps."""
        with self._lock:
            ahead = [from_engine(row) for row in self._activator.engine.revoked()]
            self._activator.change(lambda active: _with(active, ahead), "revoke", "control")
        self._tell()

    def prune(self) -> None:
        """Forgets tokens that have ended by themselves."""
        with self._lock:
            ends = _mapping(self._file)
            revoked = self._revoked()
            limit = self._clock() - LEEWAY
            ended = {
                one for one in revoked if one.kind == "token" and self._end(ends, str(one)) <= limit
            }
            if ended:
                self._activator.change(
                    lambda active: desired.with_revocations(
                        active, desired.revocations(active) - ended
                    ),
                    "prune revoked tokens",
                    "control",
                )
            tokens = [str(one) for one in revoked - ended if one.kind == "token"]
            kept = {token: to_rfc3339(self._end(ends, token)) for token in tokens}
            if kept != ends:
                write_json(self._file, kept)
            self._forget_notes(revoked - ended)

    def _tell_engine(self, one: Revocation) -> None:
        """The first step. One that fails is made up for by the second."""
        try:
            self._activator.engine.revoke([one.to_engine()])
        except (UnavailableError, ConfigError) as error:
            _log.warning("not revoked ahead of the snapshot: %s", error)

    def _require(self, one: Revocation, snapshot: Snapshot) -> None:
        identity = snapshot.identity
        if one.kind == "token" and one.owner not in {each.issuer for each in identity.issuers}:
            raise ConfigError("issuer_unknown", f"no trusted issuer has the iss {one.owner!r}")
        if one.kind == "certificate":
            desired.require_authority(snapshot, one.owner)
        if one.kind == "trustDomain" and one.name == snapshot.node.trust_domain:
            message = f"{one.name} is this node's own trust domain"
            raise ConfigError("revocation_refused", message)
        _require_room({*desired.revocations(snapshot), one}, one)

    def _note(
        self, one: Revocation, actor: str, reason: str | None, expires_at: datetime | None
    ) -> None:
        """Before the snapshot: a crash in between leaves a note that means nothing."""
        moment = self._clock()
        note = {"at": to_rfc3339(moment), "actor": actor}
        if reason:
            note["reason"] = reason
        write_json(self._notes_file, {**_mapping(self._notes_file), str(one): note})
        if one.kind == "token":
            end = min(expires_at or moment + MAX_LONG_TTL, moment + _LONGEST)
            write_json(self._file, {**_mapping(self._file), str(one): to_rfc3339(end)})

    def _forget_notes(self, kept: Collection[Revocation]) -> None:
        wanted = {str(one) for one in kept}
        notes = _mapping(self._notes_file)
        left = {what: note for what, note in notes.items() if what in wanted}
        if left != notes:
            write_json(self._notes_file, left)

    def _end(self, ends: dict[str, Any], token: str) -> datetime:
        """When a token ends; one that nobody noted is kept as long as the longest of the node's own."""
        return from_rfc3339(ends[token]) if token in ends else self._clock() + MAX_LONG_TTL

    def _revoked(self) -> frozenset[Revocation]:
        return desired.revocations(self._activator.active()[1])

    def _tell(self) -> None:
        revoked = self._revoked()
        for listener in self._listeners:
            listener(revoked)


def _mapping(file: Any) -> dict[str, Any]:
    found = read_json(file)
    return found if isinstance(found, dict) else {}


def _with(active: Snapshot, more: Collection[Revocation]) -> Snapshot:
    wanted = {*desired.revocations(active), *more}
    for one in more:
        _require_room(wanted, one)
    return desired.with_revocations(active, wanted)


def _without(active: Snapshot, one: Revocation) -> Snapshot:
    revoked = desired.revocations(active)
    if one not in revoked:
        raise ConfigError("revocation_unknown", f"{_word(one)} is not revoked")
    return desired.with_revocations(active, revoked - {one})


def _require_room(wanted: Collection[Revocation], one: Revocation) -> None:
    owner = one.owner if one.kind == "certificate" else None
    alike = sum(each.kind == one.kind and owner in (None, each.owner) for each in wanted)
    if alike > MAX_REVOKED:
        raise ConfigError(
            "revocation_refused", f"{MAX_REVOKED} are revoked; stop trusting who issues them"
        )


def _word(one: Revocation) -> str:
    """For the history: what it is, not which token."""
    return "token" if one.kind == "token" else str(one)
