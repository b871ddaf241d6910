"""The lines of RESULTS.md about models.

Owns: their words and form. Must not: judge, or know a limit.
"""

from __future__ import annotations

from collections.abc import Callable

from measure import spread
from results import Results

from models import DENSE, ORIENTATION, ROWS, Modelled

Line = tuple[str, tuple[str, ...]]
_MODELS = {
    ORIENTATION: "a convolution, 110 kB in",
    DENSE: "dense layers, 256 bytes in",
    ROWS: "the same for any number of rows",
}
_LINES: tuple[tuple[str, Callable[[Modelled], float | None], str], ...] = (
    (
        "called in process (Python, one thread): p50",
        lambda it: it.bare_p50_us,
        "µs",
    ),
    ("called in process: p99", lambda it: it.bare_p99_us, "µs"),
    ("called in process: calls a second", lambda it: it.bare_per_second, "/s"),
    (
        "through this node, every stage on, TLS, binary tensors: p50",
        lambda it: it.node_p50_us,
        "µs",
    ),
    ("through this node: p99", lambda it: it.node_p99_us, "µs"),
    ("through this node: answers a second, 8 callers", lambda it: it.node_per_second, "/s"),
    ("through this node, the client on its core: p50", lambda it: it.near_p50_us, "µs"),
    ("through this node, the client on its core: p99", lambda it: it.near_p99_us, "µs"),
    ("MLServer, plain HTTP, JSON: p50", lambda it: it.peer_p50_us, "µs"),
    ("MLServer: p99", lambda it: it.peer_p99_us, "µs"),
    ("MLServer: answers a second, 8 callers", lambda it: it.peer_per_second, "/s"),
)


def part_lines(results: Results) -> list[Line]:
    """A line for each figure of each model; nothing when models were not measured."""
    found: list[Line] = []
    for name, title in _MODELS.items():
        rounds = [each for each in results.modelled if each.model == name]
        for text, pick, unit in _LINES:
            values = [value for each in rounds if (value := pick(each)) is not None]
            if values:
                over = spread(values)
                cell = f"{over.median:,.0f} [{over.least:,.0f} to {over.most:,.0f}] {unit}"
                found.append((f"a model ({title}), {text}", (cell,)))
    return found
