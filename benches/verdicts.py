"""Says, target by target, whether a run met it.

Owns: the comparison of a figure with its limit and goal.
Must not: measure, or hold a limit (`targets`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from measure import Spread
from results import Results
from target import Target
from targets import TARGETS


@dataclass(frozen=True)
class Verdict:
    """`ratio` is figure / limit, and None where the limit is 0; `said` is goal met, met, missed or not measured."""

    name: str
    text: str
    unit: str
    at_most: bool
    limit: float
    goal: float | None
    figure: Spread | None
    ratio: float | None
    said: str

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def judge(results: Results) -> list[Verdict]:
    """One verdict for each target, in the order of the issue."""
    return [_judge(target, results) for target in TARGETS]


def _judge(target: Target, results: Results) -> Verdict:
    figure = target.figure(results)
    fields = {k: getattr(target, k) for k in ("name", "text", "unit", "at_most", "limit", "goal")}
    if figure is None:
        return Verdict(**fields, figure=None, ratio=None, said="not measured")
    said = "missed"
    if _within(figure.median, target.limit, target.at_most):
        said = "met"
        if target.goal is not None and _within(figure.median, target.goal, target.at_most):
            said = "goal met"
    ratio = figure.median / target.limit if target.limit else None
    return Verdict(**fields, figure=figure, ratio=ratio, said=said)


def _within(value: float, bound: float, at_most: bool) -> bool:
    return value <= bound if at_most else value >= bound
