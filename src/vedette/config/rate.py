"""How often, as a snapshot says it.

Owns: the shape. Must not: count.
"""

from __future__ import annotations

from pydantic import Field

from vedette.config.model import Count, Model


class Rate(Model):
    """How many requests in how much time: a token bucket."""

    requests: Count = Field(ge=1, le=1_000_000_000, description="Requests per period.")
    period_millis: Count = Field(
        default=1_000, ge=1, le=86_400_000, description="The period, in milliseconds."
    )
    burst: Count | None = Field(
        default=None, ge=1, le=1_000_000_000, description="Most at once; absent: one period's."
    )
