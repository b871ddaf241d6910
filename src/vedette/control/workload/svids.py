"""The X509-SVIDs that are out: one for each entry, made when first wanted, renewed at half of its life.

Owns: when one is made, and which serials an entry has out. Must not: know a caller.

All callers of an entry share its SVID, as those of a SPIRE agent do: they are the same identity, and a renewal costs
one signature however many there are.
"""

from __future__ import annotations

import heapq
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from vedette.control.workload.entries import Entry
from vedette.control.workload.identities import Identities
from vedette.identity.x509_svid import BACKDATED, X509Issuer, X509Svid
from vedette.store.issued import IssuedSerial, IssuedSerials

JITTER: Final = 0.1
"""A renewal comes at 45 to 50 % of a life, so that what was made together is not renewed together."""
_MOST_EARLIER: Final = 64
_SLACK: Final = 1_024
_WENT_BACK: Final = timedelta(seconds=5)


@dataclass(slots=True)
class _Out:
    """What an entry has out: its SVID, from when on another is due, and serials of before that have not ended."""

    entry: Entry
    svid: X509Svid
    signer: X509Issuer
    proof: str
    made_at: datetime
    due: datetime
    earlier: list[tuple[int, datetime]] = field(default_factory=list)


class Svids:
    """The SVIDs of all entries. Methods may be called from any thread."""

    def __init__(
        self,
        identities: Identities,
        is_wanted: Callable[[Entry], bool],
        luck: random.Random,
        issued: IssuedSerials | None = None,
    ) -> None:
        """`is_wanted` says whether an entry is still as it is kept: no other one gets an SVID. `issued` remembers
        serials when this process dies.
        """
        self._issued = issued
        self._identities = identities
        self._is_wanted = is_wanted
        self._luck = luck
        self._lock = threading.Lock()
        self._out: dict[str, _Out] = {}
        self._due: list[tuple[datetime, str]] = []
        self._latest = identities.clock()

    def current(self, entry: Entry) -> X509Svid | None:
        """The SVID of an entry, made now when there is none that lasts; None for an entry that is gone."""
        at = self._identities.clock()
        with self._lock:
            self._latest = max(self._latest, at)
            if not self._is_wanted(entry):
                return None
            held = self._out.get(entry.name)
            if held is not None and self._may_stay(held, entry, at):
                return held.svid
            return self._make(entry, held, at)

    def due(self) -> list[str]:
        """Names of entries whose SVID is to be renewed now; each is told once."""
        at = self._identities.clock()
        with self._lock:
            if at < self._latest - _WENT_BACK:
                # What was made in the time that is now to come would not be valid yet.
                self._due = [(at, name) for name in self._out]
            self._latest = at
            found = set()
            while self._due and self._due[0][0] <= at:
                _, name = heapq.heappop(self._due)
                held = self._out.get(name)
                if held is not None and not _lasts(held, at):
                    found.add(name)
            return sorted(found)

    def end(self, name: str, entry: Entry | None) -> list[tuple[int, datetime]]:
        """Serials, each with its end, that must be revoked now that `name` is `entry`, or gone (None)."""
        before = self._ended_before(name, entry)
        with self._lock:
            held = self._out.get(name)
            if held is None or (entry is not None and entry.proves_the_same(held.entry)):
                return before
            del self._out[name]
            return [*before, *held.earlier, (held.svid.serial, held.svid.not_after)]

    def ended_while_away(self, entries: Mapping[str, Entry]) -> list[tuple[int, datetime]]:
        """Serials of before this process started that prove what `entries` say no more: who changed one died before it
        could revoke them.
        """
        names = [] if self._issued is None else self._issued.names()
        return [one for name in names for one in self._ended_before(name, entries.get(name))]

    def _ended_before(self, name: str, entry: Entry | None) -> list[tuple[int, datetime]]:
        if self._issued is None:
            return []
        return self._issued.end(name, None if entry is None else entry.proof)

    def forget(self, name: str) -> None:
        """An entry that nobody watches: its SVID is not renewed, and dropped when it has ended."""
        at = self._identities.clock()
        with self._lock:
            held = self._out.get(name)
            if held is not None and held.svid.not_after <= at:
                del self._out[name]
            elif held is not None:
                heapq.heappush(self._due, (held.svid.not_after, name))

    def _may_stay(self, held: _Out, entry: Entry, at: datetime) -> bool:
        """Not when another CA signs by now."""
        is_of_active = held.signer is self._identities.x509
        return is_of_active and _lasts(held, at) and _still_fits(held, entry)

    def _make(self, entry: Entry, held: _Out | None, at: datetime) -> X509Svid:
        signer = self._identities.x509
        svid = signer.mint(entry.spiffe_id, entry.ttl, at, entry.dns_names)
        proof = held.proof if held is not None and held.entry is entry else entry.proof
        if self._issued is not None:
            self._issued.add(IssuedSerial(entry.name, proof, svid.serial, svid.not_after), at)
        earlier = []
        if held is not None:
            before = [*held.earlier, (held.svid.serial, held.svid.not_after)]
            earlier = [(serial, ends) for serial, ends in before if ends > at]
        due = at + entry.ttl / 2 * (1 - JITTER * self._luck.random())
        self._out[entry.name] = _Out(entry, svid, signer, proof, at, due, earlier)
        heapq.heappush(self._due, (due, entry.name))
        if len(self._due) > 2 * len(self._out) + _SLACK:
            self._due = [(one.due, name) for name, one in self._out.items()]
            heapq.heapify(self._due)
        return svid


def _still_fits(held: _Out, entry: Entry) -> bool:
    """Another life is given at once, unless that was done again and again."""
    if not held.entry.proves_the_same(entry):
        return False
    return held.entry.ttl == entry.ttl or len(held.earlier) >= _MOST_EARLIER


def _lasts(held: _Out, at: datetime) -> bool:
    """Before its renewal is due, and not made in a time that has not come: the clock went back."""
    return held.made_at - BACKDATED <= at < held.due
