"""What a target is: a figure with its limit and its goal.

Owns: Target and the two ways to make one.
Must not: hold the limit of one target (`targets`, `model_targets`), or judge (`verdicts`).
"""

from __future__ import annotations

from dataclasses import dataclass

from figures import Figure

P99_UNMOVED = 1.10
"""A p99 within a tenth of what it was counts as unmoved: rounds of one server differ by more."""


@dataclass(frozen=True)
class Target:
    """`at_most` says on which side of limit and goal the figure must be."""

    name: str
    text: str
    unit: str
    at_most: bool
    limit: float
    goal: float | None
    figure: Figure


def at_most(
    name: str, text: str, unit: str, limit: float, goal: float | None, figure: Figure
) -> Target:
    """The figure must not be above."""
    return Target(name, text, unit, at_most=True, limit=limit, goal=goal, figure=figure)


def at_least(
    name: str, text: str, unit: str, limit: float, goal: float | None, figure: Figure
) -> Target:
    """The figure must not be below."""
    return Target(name, text, unit, at_most=False, limit=limit, goal=goal, figure=figure)
