"""Where else a route to a model is answered, and which answers it remembers, as a snapshot says them.

Owns: the shape. Must not: know routes, models or egress policies; `config.invariants` and the engine do.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from vedette.config.model import Count, Flag, Model
from vedette.ids import NAME_PATTERN

EDGE: Final = "edge"
"""The tier that the node itself is."""
MAX_TIERS: Final = 4

MODEL_THERE_PATTERN: Final = r"^[A-Za-z0-9_-][A-Za-z0-9 !$&'()*+,.:;=@_~-]{0,255}$"
"""What a segment of a path says without an escape (RFC 3986 §3.3, `pchar`), or with one that everybody undoes alike: a
space. It begins with no dot, so it is none that leads elsewhere; an escaped slash or `%` is read in two ways.
"""

ModelThere = Annotated[str, StringConstraints(pattern=MODEL_THERE_PATTERN)]
TensorName = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Trigger = Literal["Overload", "Missing", "Failure", "LowConfidence"]
"""Why a request goes on: there is no room or time for it, the model or version is not ready here, it failed, its answer
is not sure."""


class Tier(Model):
    """A remote endpoint of the Open Inference Protocol that answers in place of the node."""

    name: Annotated[str, StringConstraints(pattern=NAME_PATTERN)] = Field(
        description="Its name, in answers, records and metrics."
    )
    url: str = Field(
        min_length=1,
        max_length=512,
        description="Scheme, host and port; an `EgressPolicy` for the route has to allow it.",
    )
    model: ModelThere = Field(
        description="Name of the model there: a segment of a path, escaped where it has to be."
    )
    on: tuple[Trigger, ...] = Field(
        min_length=1, max_length=4, description="Why a request goes there, sorted."
    )
    inputs: tuple[TensorName, ...] = Field(
        default=(), max_length=256, description="Inputs that leave, sorted; nothing else does."
    )
    all_inputs: Flag = Field(
        default=False, description="Whether all inputs leave, bytes that are no tensors included."
    )
    timeout_millis: Count = Field(
        default=10_000,
        ge=1,
        le=3_600_000,
        description="How long an answer may take, in milliseconds; never longer than the caller and the route wait.",
    )


class Confidence(Model):
    """How sure an answer has to be."""

    output: TensorName = Field(
        description="The output that says how sure it is: its greatest element."
    )
    below_millionths: Count = Field(
        ge=0,
        le=1_000_000_000_000,
        description="In millionths; an answer below it is not sure.",
    )


class ResultCache(Model):
    """Which answers of the model are remembered: those with status 200 to the same request."""

    ttl_millis: Count = Field(ge=1, le=86_400_000, description="For how long, in milliseconds.")
    entries: Count = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="Most answers; the one unused longest goes first.",
    )
    bytes: Count = Field(
        default=67_108_864,
        ge=65_536,
        le=17_179_869_184,
        description="Most memory for them, in bytes.",
    )
    scope: Literal["Caller", "Route"] = Field(
        default="Caller", description="Whom an answer is for: who asked, or everybody who may ask."
    )
