"""Who would be refused if sidecars were strict, from the records of requests.

Owns: counting records of `NAME.inbound`, and those of `ANOTHER.outbound` that the route `sidecar-NAME` answered on the
same node, by caller and cause (`wouldBreak`), in bounded memory. Must not: know which sidecars there are now, or how a
report looks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vedette.observability import spool

MOST_CALLERS: Final = 10_000
MOST_SIDECARS: Final = 1_000
_INBOUND: Final = ".inbound"
_OUTBOUND: Final = ".outbound"
_OWN_ROUTE: Final = "sidecar-"
_MARKS: Final = (b'.inbound"', b'"sidecar-')
"""What is not in a line need not be read as JSON: most lines are of other listeners."""


@dataclass(slots=True)
class Span:
    """How often, and when first and last (RFC 3339)."""

    count: int = 0
    first: str = ""
    last: str = ""

    def add(self, time: str) -> None:
        """Once more."""
        self.count += 1
        self.first = min(self.first or time, time)
        self.last = max(self.last, time)


@dataclass(slots=True)
class SidecarCalls:
    """Calls of one sidecar: all of them, those refused, and those that strict would refuse, by caller and cause."""

    all: Span = field(default_factory=Span)
    refused: int = 0
    breaking: dict[tuple[str, str], Span] = field(default_factory=dict)
    broken: int = 0

    @property
    def fine(self) -> int:
        """Those that strict would let in as well."""
        return self.all.count - self.refused - self.broken


@dataclass(slots=True)
class MeshCalls:
    """Calls of all sidecars. `since`: the oldest record that there still is, of any kind; `untold`: calls that would
    be refused of callers beyond `MOST_CALLERS`, or of sidecars beyond `MOST_SIDECARS`.
    """

    since: str | None = None
    sidecars: dict[str, SidecarCalls] = field(default_factory=dict)
    untold: int = 0

    def callers(self) -> int:
        """How many rows of callers there are."""
        return sum(len(each.breaking) for each in self.sidecars.values())


def mesh_calls(folder: Path, since: str = "") -> MeshCalls:
    """What the records in `folder` say, of requests that began at `since` (RFC 3339, microseconds) or later.

    A caller is its SPIFFE ID, or the address of one that proved none.
    """
    found = MeshCalls()
    for segment in spool.segments(folder):
        raw = b""
        for raw in spool.lines_backwards(segment):
            if any(mark in raw for mark in _MARKS):
                _count(found, _parsed(raw), since)
        oldest = _parsed(raw).get("time")  # a segment is in order, and was read from its end
        if isinstance(oldest, str):
            found.since = min(found.since or oldest, oldest)
    return found


def _parsed(raw: bytes) -> dict[str, Any]:
    """Nothing of a torn line (full disk, power cut): it must not hide those around it."""
    try:
        line = json.loads(raw)
    except ValueError:
        return {}
    return line if isinstance(line, dict) else {}


def _count(found: MeshCalls, line: dict[str, Any], since: str) -> None:
    name, time, cause = _called(line), line.get("time"), line.get("wouldBreak")
    if name is None or not isinstance(time, str) or time < since or line.get("kind") != "request":
        return
    if name not in found.sidecars and len(found.sidecars) >= MOST_SIDECARS:
        found.untold += cause is not None
        return
    calls = found.sidecars.setdefault(name, SidecarCalls())
    calls.all.add(time)
    if cause is None:
        calls.refused += line.get("outcome") == "refused"
        return
    calls.broken += 1
    key = (_caller(line), str(cause))
    if key not in calls.breaking and found.callers() >= MOST_CALLERS:
        found.untold += 1
        return
    calls.breaking.setdefault(key, Span()).add(time)


def _called(line: dict[str, Any]) -> str | None:
    """The sidecar that was called. Between two of one node there is no hop: what has a record is the caller's side."""
    listener, route = line.get("listener"), line.get("route")
    if not isinstance(listener, str):
        return None
    if listener.endswith(_INBOUND):
        return listener.removesuffix(_INBOUND)
    if listener.endswith(_OUTBOUND) and isinstance(route, str) and route.startswith(_OWN_ROUTE):
        return route.removeprefix(_OWN_ROUTE)
    return None


def _caller(line: dict[str, Any]) -> str:
    certificate = line.get("certificate")
    shown = certificate.get("spiffeId") if isinstance(certificate, dict) else None
    for known in (shown, line.get("principal")):
        if isinstance(known, str) and known.startswith("spiffe://") and "#" not in known:
            return known
    return str(line.get("client", "")).rpartition(":")[0].strip("[]") or "unknown"
