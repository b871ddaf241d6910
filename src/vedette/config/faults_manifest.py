"""Faults that the node injects on purpose, as people write them: Istio's HTTPFaultInjection.

Owns: the shape, and reading a percentage exactly. Must not: know routes.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from vedette.config.model import Count, Model
from vedette.config.written import Duration, millis


def per_million(percentage: float) -> int:
    """A percentage as a number of a million, exactly. Raises `ValueError` for one that is none, or finer than
    0.0001.
    """
    number = Decimal(str(percentage)) * 10_000
    if not 0 <= number <= 1_000_000:
        raise ValueError("it is 0 to 100")
    if number != number.to_integral_value():
        raise ValueError("it has at most four digits after the point")
    return int(number)


def _checked(percentage: float) -> float:
    per_million(percentage)
    return percentage


Percentage = Annotated[float, Field(strict=True, ge=0, le=100), AfterValidator(_checked)]


class FaultDelaySpec(Model):
    """A request waits before it is answered (`HTTPFaultInjection.Delay`)."""

    percentage: Percentage = Field(
        description="Share of requests, 0 to 100 with up to four digits after the point."
    )
    fixed_delay: Duration = Field(description="How long, 1ms to 10m; timeouts begin after it.")


class FaultAbortSpec(Model):
    """A request is answered by the node, with an error (`HTTPFaultInjection.Abort`)."""

    percentage: Percentage = Field(
        description="Share of requests, 0 to 100 with up to four digits after the point."
    )
    http_status: Count = Field(description="Status of the answer, 400 to 599.")


class FaultSpec(Model):
    """What goes wrong on purpose, for those who may call at all (`HTTPFaultInjection`). A request may get both,
    the delay first.
    """

    delay: FaultDelaySpec | None = Field(default=None, description="Waits; absent: none.")
    abort: FaultAbortSpec | None = Field(default=None, description="Errors; absent: none.")

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        if self.delay is None and self.abort is None:
            raise ValueError("nothing goes wrong: give it a delay or an abort")
        return self

    def resolve(self) -> dict[str, Any]:
        """The same as a snapshot says it."""
        data: dict[str, Any] = {}
        if self.delay is not None:
            data["delay"] = {
                "perMillion": per_million(self.delay.percentage),
                "fixedMillis": millis(self.delay.fixed_delay),
            }
        if self.abort is not None:
            data["abort"] = {
                "perMillion": per_million(self.abort.percentage),
                "status": self.abort.http_status,
            }
        return data
