"""Tokens that count no more, until they would have ended anyway.

Owns: control/revoked.json (when each revoked token ends) and the list in the snapshot. Must not: see a token; its
issuer, its id and its end are enough.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from vedette.clock import from_rfc3339, now, to_rfc3339
from vedette.config.snapshot import Snapshot
from vedette.control import desired
from vedette.control.activate import Activator, Outcome
from vedette.control.messages import RevokedToken
from vedette.errors import ConfigError
from vedette.identity.tokens import MAX_LONG_TTL
from vedette.store.atomic import read_json, write_json
from vedette.store.home import Home

LEEWAY: Final = timedelta(seconds=300)  # the most an issuer may have
MAX_REVOKED: Final = 10_000
_LONGEST: Final = timedelta(days=366)


class Revocations:
    """The revoked tokens of a node. Methods may be called from any thread."""

    def __init__(
        self, home: Home, activator: Activator, clock: Callable[[], datetime] = now
    ) -> None:
        self._file = home.revoked_file
        self._activator = activator
        self._clock = clock
        self._lock = threading.RLock()

    def list(self) -> list[RevokedToken]:
        """The revoked tokens, sorted by issuer and id."""
        with self._lock:
            ends = self._read()
        revoked = self._activator.active()[1].identity.revoked_tokens
        return [
            RevokedToken(issuer=issuer, jti=jti, expires_at=to_rfc3339(self._end(ends, token)))
            for token in revoked
            for issuer, _, jti in [token.partition("#")]
        ]

    def revoke(self, issuer: str, jti: str, expires_at: datetime | None, actor: str) -> Outcome:
        """Refuses a token from the next request on.

        Raises `ConfigError` issuer_unknown for an issuer whose tokens do not count anyway, request_invalid when too
        many are revoked.
        """
        trusted = {one.issuer for one in self._activator.active()[1].identity.issuers}
        if issuer not in trusted or "#" in issuer:
            raise ConfigError("issuer_unknown", f"no trusted issuer has the iss {issuer!r}")
        moment = self._clock()
        latest = moment + _LONGEST
        end = min(expires_at or moment + MAX_LONG_TTL, latest)
        token = f"{issuer}#{jti}"
        with self._lock:
            # Before the snapshot: a crash in between leaves an entry that means nothing.
            self._write({**self._read(), token: to_rfc3339(end)})
            return self._activator.change(
                lambda active: _with(active, token), "revoke token", actor
            )

    def prune(self) -> None:
        """Forgets tokens that have ended by themselves."""
        with self._lock:
            ends = self._read()
            revoked = self._activator.active()[1].identity.revoked_tokens
            limit = self._clock() - LEEWAY
            unknown = {token: to_rfc3339(self._end(ends, token)) for token in revoked}
            alive = {token for token in revoked if from_rfc3339(unknown[token]) > limit}
            if alive != set(revoked):
                self._activator.change(
                    lambda active: desired.with_revoked_tokens(
                        active, set(active.identity.revoked_tokens) & alive
                    ),
                    "prune revoked tokens",
                    "control",
                )
            kept = {token: unknown[token] for token in alive}
            if kept != ends:
                self._write(kept)

    def _end(self, ends: dict[str, str], token: str) -> datetime:
        """When a token ends; one that nobody noted is kept as long as the longest of the node's own."""
        return from_rfc3339(ends[token]) if token in ends else self._clock() + MAX_LONG_TTL

    def _read(self) -> dict[str, str]:
        ends = read_json(self._file)
        return ends if isinstance(ends, dict) else {}

    def _write(self, ends: dict[str, str]) -> None:
        write_json(self._file, ends)


def _with(active: Snapshot, token: str) -> Snapshot:
    tokens = {*active.identity.revoked_tokens, token}
    if len(tokens) > MAX_REVOKED:
        raise ConfigError(
            "request_invalid", f"{MAX_REVOKED} tokens are revoked; remove their issuer instead"
        )
    return desired.with_revoked_tokens(active, tokens)
