"""Faults that the node injects on purpose, as a snapshot says them.

Owns: the shape. Must not: know routes.
"""

from __future__ import annotations

from pydantic import Field

from vedette.config.model import Count, Model


class FaultDelay(Model):
    """A request waits before it is answered."""

    per_million: Count = Field(ge=0, le=1_000_000, description="Of how many in a million requests.")
    fixed_millis: Count = Field(ge=1, le=600_000, description="How long.")


class FaultAbort(Model):
    """A request is answered by the node, with an error."""

    per_million: Count = Field(ge=0, le=1_000_000, description="Of how many in a million requests.")
    status: Count = Field(ge=400, le=599, description="Status of the answer.")


class Fault(Model):
    """What goes wrong on purpose. Each is drawn by itself; a request may get both, the delay first."""

    delay: FaultDelay | None = Field(default=None, description="Waits; absent: none.")
    abort: FaultAbort | None = Field(default=None, description="Errors; absent: none.")
