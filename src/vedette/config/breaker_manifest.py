"""When a service, an endpoint or a destination is left alone for a while, as people write it.

Owns: the shape; names are Envoy's (outlier detection) and Resilience4j's (slow calls). Must not: know what is
left alone; `config.kinds` and `config.egress_manifest` do.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from vedette.config.model import Count, Model
from vedette.config.written import Duration, millis


class FailuresSpec(Model):
    """What is held against who answers."""

    consecutive_failures: Count = Field(
        default=5, description="Failures in a row: no answer, or 502, 503, 504; `0`: any number."
    )
    failure_percentage: Count | None = Field(
        default=None, description="Failures in a hundred requests, 1 to 100; absent: any."
    )
    slow_duration: Duration | None = Field(
        default=None,
        description="What is slow, from the end of a request to the head of its answer; absent: nothing.",
    )
    slow_percentage: Count | None = Field(
        default=None, description="Slow answers in a hundred requests; absent: 50."
    )
    request_volume: Count = Field(
        default=50,
        description="Requests within the interval below which no percentage is too much, at most 10,000.",
    )
    interval: Duration = Field(
        default="10s", description="The time that percentages look back over, 100ms to 1h."
    )

    @model_validator(mode="after")
    def _require_duration(self) -> Self:
        if self.slow_percentage is not None and self.slow_duration is None:
            raise ValueError("slowPercentage needs slowDuration")
        idle = {"request_volume": "requestVolume", "interval": "interval"}
        if self.shares() is None and (
            said := [idle[one] for one in idle if one in self.model_fields_set]
        ):
            raise ValueError(
                f"{said[0]} is about shares: give it failurePercentage or slowDuration"
            )
        return self

    def shares(self) -> dict[str, Any] | None:
        """The percentages as a snapshot says them."""
        if self.failure_percentage is None and self.slow_duration is None:
            return None
        shares: dict[str, Any] = {
            "intervalMillis": millis(self.interval),
            "requestVolume": self.request_volume,
        }
        if self.failure_percentage is not None:
            shares["failurePercent"] = self.failure_percentage
        if self.slow_duration is not None:
            percent = 50 if self.slow_percentage is None else self.slow_percentage
            shares |= {"slowMillis": millis(self.slow_duration), "slowPercent": percent}
        return shares


class BreakerSpec(FailuresSpec):
    """When all of it is left alone for a while (circuit breaker)."""

    pause: Duration = Field(default="10s", description="How long nothing is sent then.")
    trials: Count | None = Field(
        default=None,
        description="Requests let go after that, at most so many at once: when all go well it is used "
        "again, when one does not it pauses anew; absent: one.",
    )

    @model_validator(mode="after")
    def _require_reason(self) -> Self:
        if not self.consecutive_failures and self.shares() is None:
            raise ValueError("it never opens: give it failures in a row or a percentage")
        return self

    def resolve(self) -> dict[str, Any]:
        """The same as a snapshot says it."""
        data: dict[str, Any] = {
            "failures": self.consecutive_failures,
            "pauseMillis": millis(self.pause),
        }
        if (shares := self.shares()) is not None:
            data["shares"] = shares
        if self.trials is not None:
            data["trials"] = self.trials
        return data
