"""The lines of RESULTS.md about models.

Owns: their words and form. Must not: judge, or know a limit.
"""

from __future__ import annotations

from collections.abc import Callable

from measure import spread
from results import Results

from models import Modelled

Line = tuple[str, tuple[str, ...]]
_LINES: tuple[tuple[str, Callable[[Modelled], float | None], str], ...] = (
    (
        "a model of 0.5 ms, called in process (Python, one thread): p50",
        lambda it: it.bare_p50_us,
        "µs",
    ),
    ("the same: p99", lambda it: it.bare_p99_us, "µs"),
    ("the same: calls a second", lambda it: it.bare_per_second, "/s"),
    (
        "through this node, every stage on, TLS, binary tensors: p50",
        lambda it: it.node_p50_us,
        "µs",
    ),
    ("the same: p99", lambda it: it.node_p99_us, "µs"),
    ("the same: answers a second, 8 callers", lambda it: it.node_per_second, "/s"),
    ("MLServer, plain HTTP, JSON: p50", lambda it: it.peer_p50_us, "µs"),
    ("the same: p99", lambda it: it.peer_p99_us, "µs"),
    ("the same: answers a second, 8 callers", lambda it: it.peer_per_second, "/s"),
)


def part_lines(results: Results) -> list[Line]:
    """A line for each figure; nothing when models were not measured."""
    found: list[Line] = []
    for text, pick, unit in _LINES:
        values = [value for each in results.modelled if (value := pick(each)) is not None]
        if values:
            over = spread(values)
            cell = f"{over.median:,.0f} [{over.least:,.0f} to {over.most:,.0f}] {unit}"
            found.append((text, (cell,)))
    return found
