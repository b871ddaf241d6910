"""What is kept of what a model is asked, as a snapshot says it: how often, which inputs, and what is taken out of them.

Owns: the shapes, and which inputs can be kept. Must not: see an input; the model's process takes out what is named
(`crates/models`, `samples`), control keeps the rest (`vedette.control.model_samples`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Final

from pydantic import Field

from vedette.config.model import Count, Model
from vedette.config.served_media import TensorName
from vedette.config.tensor import Tensor

LEAST_BYTES: Final = 1 << 20
MOST_BYTES: Final = 4 << 30
LEAST_MILLIS: Final = 60_000
MOST_MILLIS: Final = 365 * 86_400_000
MILLION: Final = 1_000_000
MOST_INPUTS: Final = 64
MOST_PLACES: Final = 4_096

Place = Annotated[Count, Field(ge=0, le=1 << 20)]
"""Of the last dimension of an input, from 0."""


class RedactedPlaces(Model):
    """Elements of an input that are never kept: zero, or an empty text, in their place."""

    input: TensorName = Field(description="The input.")
    places: tuple[Place, ...] = Field(
        min_length=1,
        max_length=MOST_PLACES,
        description="Places in its last dimension, from 0.",
    )


class ServedSamples(Model):
    """What is kept of requests that were answered: some of them, some of their inputs, redacted, for a time."""

    per_million: Count = Field(
        ge=1, le=MILLION, description="Requests of a million that are kept, drawn by chance."
    )
    inputs: tuple[TensorName, ...] = Field(
        min_length=1, max_length=MOST_INPUTS, description="The inputs that are kept of those."
    )
    redact: tuple[RedactedPlaces, ...] = Field(
        default=(), max_length=MOST_INPUTS, description="Elements of them that are not."
    )
    keep_millis: Count = Field(
        ge=LEAST_MILLIS, le=MOST_MILLIS, description="How long each is kept, in milliseconds."
    )
    bytes: Count = Field(
        ge=LEAST_BYTES,
        le=MOST_BYTES,
        description="What they may take on the disk, in bytes; the oldest go first.",
    )


def problems_of_samples(inputs: Sequence[Tensor], samples: ServedSamples) -> Iterator[str]:
    """What does not fit between the inputs of a model and what is to be kept of them."""
    takes = {each.name: each for each in inputs}
    for name, count in Counter(samples.inputs).items():
        if name not in takes:
            yield f"samples.inputs: the model has no input {name!r}"
        elif count > 1:
            yield f"samples.inputs: {name} is there twice"
    for name, count in Counter(each.input for each in samples.redact).items():
        if name not in samples.inputs:
            yield f"samples.redact: {name} is not among samples.inputs"
        elif count > 1:
            yield f"samples.redact: {name} is there twice"
    for each in samples.redact:
        if each.input in takes:
            yield from _problems_of_places(takes[each.input], each)


def _problems_of_places(tensor: Tensor, redacted: RedactedPlaces) -> Iterator[str]:
    last = tensor.shape[-1] if tensor.shape else 1
    if last and max(redacted.places) >= last:
        yield f"samples.redact: {tensor.name} has {last} elements in its last dimension, counted from 0"
