"""Where else a route to a model is answered, and which answers it remembers, as people write them.

Owns: the shape, in the units people write. Must not: know routes, models or egress policies.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from vedette.config.model import Count, Model
from vedette.config.quantities import parse_size
from vedette.config.snapshot import Name
from vedette.config.tiers import EDGE, ModelThere, TensorName
from vedette.config.written import Duration, OriginUrl, Size, millis, parse_origin

TriggerText = Literal["overload", "missing", "failure", "lowConfidence"]
_TRIGGERS: Final[dict[TriggerText, str]] = {
    "overload": "Overload",
    "missing": "Missing",
    "failure": "Failure",
    "lowConfidence": "LowConfidence",
}
_PORTS: Final = {"http": 80, "https": 443}


def millionths(number: float) -> int:
    """A number as millionths, exactly. Raises `ValueError` for one that is finer."""
    scaled = Decimal(str(number)) * 1_000_000
    if scaled != scaled.to_integral_value():
        raise ValueError("it has at most six digits after the point")
    return int(scaled)


def _checked(number: float) -> float:
    millionths(number)
    return number


Score = Annotated[float, Field(ge=0, le=1_000_000), AfterValidator(_checked)]


class TierSendSpec(Model):
    """What of a request leaves the node. Nothing that is not named here does, but the model's name, the version and
    outputs asked for, how long an answer is waited for, and the trace's id.
    """

    inputs: tuple[TensorName, ...] | Literal["all"] = Field(
        description="Names of inputs, or `all`: also a picture, sound or text that came as such."
    )


class TierSpec(Model):
    """A remote endpoint of the Open Inference Protocol that answers in place of the node. An EgressPolicy for this
    route has to allow it; `peers`, `credential`, `breaker` and `rate` of its rule count.
    """

    name: Name = Field(description="Its name, in answers, records and metrics, such as `regional`.")
    url: OriginUrl = Field(
        description="Scheme, host and port, such as `https://models.regional.example:8443`."
    )
    model: ModelThere | None = Field(
        default=None,
        description="Name of the model there, such as `Digits_v2.1` or `llama:8b`; absent: as it is here.",
    )
    on: tuple[TriggerText, ...] = Field(
        default=("overload", "missing", "failure"),
        min_length=1,
        description="Why a request goes there: no room or time for it here (`overload`), its version not there or not "
        "loaded yet (`missing`), an error or no answer of the model (`failure`), an answer below `confidence` "
        "(`lowConfidence`).",
    )
    send: TierSendSpec = Field(description="What leaves.")
    timeout: Duration = Field(
        default="10s",
        description="How long an answer may take; never longer than the caller and the rule wait.",
    )

    @model_validator(mode="after")
    def _require_name(self) -> Self:
        if self.name == EDGE:
            raise ValueError(f"{EDGE} is the node itself")
        return self

    def resolve(self, model: str) -> dict[str, Any]:
        """The same as a snapshot says it; `model`: what the route leads to."""
        is_all = self.send.inputs == "all"
        data: dict[str, Any] = {
            "name": self.name,
            "url": self._url(),
            "model": self.model or model,
            "on": sorted({_TRIGGERS[each] for each in self.on}),
            "timeoutMillis": millis(self.timeout),
        }
        if is_all:
            return {**data, "allInputs": True}
        return {**data, "inputs": sorted(set(self.send.inputs))}

    def _url(self) -> str:
        origin = parse_origin(self.url)
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        port = "" if origin.port == _PORTS[origin.scheme] else f":{origin.port}"
        return f"{origin.scheme}://{host}{port}"


class ConfidenceSpec(Model):
    """How sure an answer has to be, or it is asked for elsewhere. Answers of more than 64 KiB are not looked at."""

    output: TensorName = Field(
        description="The output that says how sure it is: its greatest element counts."
    )
    below: Score = Field(
        description="An answer below it is not sure; up to six digits after the point."
    )

    def resolve(self) -> dict[str, Any]:
        """The same as a snapshot says it."""
        return {"output": self.output, "belowMillionths": millionths(self.below)}


class ResultCacheSpec(Model):
    """Answers that are given again to the same request: for models whose answer depends on nothing else."""

    ttl: Duration = Field(description="For how long, 1ms to 1d.")
    entries: Count = Field(default=10_000, description="Most answers, 1 to 1000000.")
    bytes: Size = Field(default="64MB", description="Most memory for them, 64KB to 16GB.")
    scope: Literal["caller", "route"] = Field(
        default="caller",
        description="Whom an answer is for: who asked (`caller`), or everybody who may ask (`route`).",
    )

    def resolve(self) -> dict[str, Any]:
        """The same as a snapshot says it."""
        return {
            "ttlMillis": millis(self.ttl),
            "entries": self.entries,
            "bytes": parse_size(self.bytes),
            "scope": self.scope.capitalize(),
        }
