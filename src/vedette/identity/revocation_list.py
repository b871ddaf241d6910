"""The serials that this node's CAs take back, signed (RFC 5280 §5), until they would have ended anyway.

Owns: when the list is signed anew. Must not: decide what is revoked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

from vedette.errors import ConfigError
from vedette.identity.authority import CRL_LIFETIME, Authority
from vedette.store.identities import IdentityStore, RevokedSerial

MAX_REVOKED: Final = 10_000  # the list is in every message of the Workload API


class RevocationList:
    """The CRLs of a node's CAs: one of each that has signed. Methods may be called from any thread.

    A serial is on all of them: it is random, so no other certificate has it, and who signed it need not be kept.
    """

    def __init__(
        self, authorities: Callable[[], tuple[Authority, ...]], store: IdentityStore
    ) -> None:
        """`authorities` says who has signed something, the active one first."""
        self._authorities = authorities
        self._store = store
        self._lock = threading.Lock()
        self._ders: tuple[bytes, ...] = ()
        self._signers: tuple[Authority, ...] = ()
        self._number = 0
        self._signed_at: datetime | None = None

    def revoke(self, serials: Iterable[tuple[int, datetime]], at: datetime) -> None:
        """Takes back serials, each with the time when it would end. Raises `ConfigError` svid_invalid for too many."""
        rows = [RevokedSerial(serial, at, ends) for serial, ends in serials]
        with self._lock:
            self._store.forget_revoked(at)
            known = {one.serial for one in self._store.revoked()}
            rows = [one for one in rows if one.serial not in known]
            if len(known) + len(rows) > MAX_REVOKED:
                raise ConfigError("svid_invalid", f"{MAX_REVOKED} serials are revoked already")
            self._store.revoke(rows)
            self._signed_at = None

    def ders(self, at: datetime) -> tuple[bytes, ...]:
        """The CRLs, DER; signed anew when they changed, another CA signs, or at half of their life."""
        with self._lock:
            is_same = self._signers == self._authorities()
            if self._signed_at is None or not is_same or not _is_fresh(self._signed_at, at):
                self._sign(at)
            return self._ders

    def _sign(self, at: datetime) -> None:
        self._store.forget_revoked(at)
        revoked = [(one.serial, one.revoked_at) for one in self._store.revoked()]
        # Milliseconds since 1970: it grows from one start to the next without a write (RFC 5280 §5.2.3).
        self._number = max(self._number + 1, int(at.timestamp() * 1_000))
        self._signers = self._authorities()
        self._ders = tuple(one.issue_crl(self._number, revoked, at) for one in self._signers)
        self._signed_at = at


def _is_fresh(signed: datetime, at: datetime) -> bool:
    """A clock that went back counts as one that went on."""
    return abs(at - signed) < CRL_LIFETIME / 2
