"""The lines of RESULTS.md about identity: what pairs of sidecars add, SVIDs, revocations, `vedette verify`.

Owns: their words and form.
Must not: judge, or know a limit.
"""

from __future__ import annotations

from collections.abc import Sequence

from figures import added, p50, p99
from measure import Spread, spread
from results import Results
from revocation import KINDS
from rows import ROWS
from server import Mode

MESH_COLUMNS = ("row", "p50 µs", "p99 µs", "added p50 µs", "added p99 µs")
DIRECT = "mesh-direct"
Line = tuple[str, tuple[str, ...]]


def mesh_lines(results: Results) -> list[Line]:
    """A line for each row of the mesh, in microseconds; what is added is taken round by round."""
    found = []
    for row in ROWS:
        samples = results.of(Mode.PINNED, row.name)
        if row.rate is None or not samples:
            continue
        own = [spread([figure(each) for each in samples]) for figure in (p50, p99)]
        more = [added(row.name, DIRECT, figure)(results) for figure in (p50, p99)]
        is_base = row.name == DIRECT
        cells = [_micros(each) for each in (*own, *([None, None] if is_base else more))]
        found.append((row.title, tuple(cells)))
    return found


def part_lines(results: Results) -> list[Line]:
    """A line for each figure of SVIDs, revocations and verify."""
    found: list[Line] = []
    if results.issued:
        signed = _over([one.signed_per_second for one in results.issued], "{:,.0f}")
        pushed = _over([one.pushed_per_second for one in results.issued], "{:,.0f}")
        p50s = _over([one.change_p50_ms for one in results.issued], "{:.1f}")
        p99s = _over([one.change_p99_ms for one in results.issued], "{:.1f}")
        found += [
            ("X509-SVIDs signed in a second of CPU", (signed,)),
            ("the same, pushed to watchers as well, of control's CPU", (pushed,)),
            ("entry changed → SVID on the stream: p50, p99", (f"{p50s} ms, {p99s} ms",)),
        ]
    for kind, one in results.revoked.items():
        ended = f"{one.p50_ms:.1f} ms, {one.p99_ms:.1f} ms, {one.most_ms:.1f} ms"
        kept = f"{one.answered_p50_ms:.0f} ms, {one.answered_p99_ms:.0f} ms"
        found.append((f"revoked → last byte, {one.live:,} {KINDS[kind]}: p50, p99, most", (ended,)))
        found.append(("the same, until it is kept and answered: p50, p99", (kept,)))
    if results.verify_seconds:
        took = _over(results.verify_seconds, "{:.1f}")
        found.append(("`vedette verify`, the whole suite", (f"{took} s",)))
    return found


def _over(values: Sequence[float], form: str) -> str:
    over = spread(values)
    median, least, most = (form.format(value) for value in (over.median, over.least, over.most))
    return f"{median} [{least} to {most}]"


def _micros(over: Spread | None) -> str:
    if over is None:
        return ""
    return f"{over.median:,.0f} [{over.least:,.0f} to {over.most:,.0f}]"
