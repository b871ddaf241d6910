"""What the admin API gives of drift.

Owns: these shapes in docs/reference/openapi.json. Must not: hold behaviour.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vedette.config.model import Model

DriftState = Literal["learning", "steady", "drifted"]
Side = Literal["input", "score"]


class DriftColumn(Model):
    """An input of a model, or the output that counts as its score, beside how it was."""

    name: str = Field(description="Name of the tensor.")
    side: Side = Field(description="input or score.")
    state: DriftState = Field(
        description="learning: it is not known yet what is usual; steady; drifted: its psi is 0.25 or more."
    )
    runs: int = Field(
        description="Requests that it has learnt from, of 1,000; once learnt: those of this window, of 500."
    )
    psi: float | None = Field(
        description="Population stability index of the last 500 to 1,000 requests; null: not that many yet."
    )
    ks: float | None = Field(
        description="Distance of Kolmogorov and Smirnov of the same, from 0 to 1."
    )


class ModelDrift(Model):
    """Whether what a version is asked and answers is as it was."""

    state: DriftState = Field(
        description="drifted: at least one is; learning: at least one that was seen is; else steady."
    )
    psi: float | None = Field(
        description="The highest of all; null: none is known yet.",
    )
    columns: tuple[DriftColumn, ...] = Field(description="Inputs, then the score.")
