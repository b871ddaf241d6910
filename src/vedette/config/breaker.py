"""When a service, an endpoint or a destination is left alone for a while, as a snapshot says it.

Owns: the shape. Must not: know what is left alone; `config.snapshot` and `config.egress` do.
"""

from __future__ import annotations

from pydantic import Field

from vedette.config.model import Count, Model


class Shares(Model):
    """Shares that are too much among the requests of some time."""

    interval_millis: Count = Field(
        default=10_000, ge=100, le=3_600_000, description="The time that is looked back over."
    )
    request_volume: Count = Field(
        default=50, ge=1, le=10_000, description="With fewer requests in it no share is too much."
    )
    failure_percent: Count | None = Field(
        default=None,
        ge=1,
        le=100,
        description="Failures (no answer, 502, 503, 504) in a hundred requests; absent: any.",
    )
    slow_millis: Count | None = Field(
        default=None,
        ge=1,
        le=86_400_000,
        description="What is slow: from the end of a request to the head of its answer; absent: nothing.",
    )
    slow_percent: Count = Field(
        default=50, ge=1, le=100, description="Slow answers in a hundred requests."
    )


class Breaker(Model):
    """When a service or destination is left alone for a while (circuit breaker)."""

    failures: Count = Field(
        default=5,
        ge=0,
        le=1_000,
        description="Failures in a row (no answer, 502, 503, 504) until nothing is sent; 0: any number.",
    )
    pause_millis: Count = Field(
        default=10_000, ge=100, le=3_600_000, description="How long nothing is sent then."
    )
    shares: Shares | None = Field(
        default=None, description="Shares of failures and slow answers until then; absent: any."
    )
    trials: Count | None = Field(
        default=None,
        ge=1,
        le=100,
        description="Requests let go after the pause, which must all go well; absent: one.",
    )
