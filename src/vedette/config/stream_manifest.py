"""How a model that remembers answers a stream, as people write it: `stream` of the kind Model.

Owns: the shape, and what is meant where something is left out, which the model's own tensors tell. Must not: say which
tensors fit; `served_stream` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from vedette.config.model import Count, Model
from vedette.config.served_media import TensorName
from vedette.config.served_stream import MAX_EVENT_BYTES, Size, Threshold, Value
from vedette.config.tensor import Tensor
from vedette.errors import ConfigError


class StateSpec(Model):
    """What a run gives the next one of its stream."""

    input: TensorName = Field(description="The input that takes it; zeros at first.")
    output: TensorName = Field(description="The output that the next run takes.")
    shape: tuple[Size, ...] | None = Field(
        default=None,
        max_length=16,
        description="Its dimensions; absent: as the input says, 1 where it may be any.",
    )


class StreamSpec(Model):
    """Events one after the other, each a run with what the one before gave (docs/models.md)."""

    event: TensorName | None = Field(
        default=None, description="The input that an event becomes; absent: the one that is left."
    )
    size: Annotated[Count, Field(ge=1, le=MAX_EVENT_BYTES)] | None = Field(
        default=None,
        description="What an event brings of the last dimension; absent: as the model says. Other dimensions that may "
        "be any are 1.",
    )
    context: Count = Field(
        default=0,
        le=MAX_EVENT_BYTES,
        description="Elements of the event before that go in before its own; zeros at first.",
    )
    state: tuple[StateSpec, ...] = Field(
        min_length=1, max_length=64, description="What a run gives the next."
    )
    constants: dict[TensorName, Value] = Field(
        default_factory=dict,
        max_length=64,
        description="Inputs that are always the same, such as `sr: 16000`.",
    )
    score: TensorName | None = Field(
        default=None, description="The output with the score; absent: the one that is left."
    )
    place: Annotated[Count, Field(le=1 << 20)] | None = Field(
        default=None, description="Which element of it, from 0; absent: the greatest."
    )
    threshold: Threshold | None = Field(
        default=None, description="Score from which on an event is an alarm; absent: none is."
    )

    def resolve(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> dict[str, Any]:
        """As a snapshot says it. Raises `ConfigError` manifest_invalid."""
        fed = {each.input for each in self.state} | set(self.constants)
        tensor = _left(inputs, fed, self.event, "stream.event")
        taken = {each.name: each for each in inputs}
        state = [
            {
                "input": each.input,
                "output": each.output,
                "shape": each.shape
                if each.shape is not None
                else [size or 1 for size in taken[each.input].shape]
                if each.input in taken
                else [],
            }
            for each in self.state
        ]
        given = {each.output for each in self.state}
        said = {
            "tensor": tensor.name,
            "shape": self._shape(tensor),
            "context": self.context,
            "state": state,
            "constants": [
                {"input": name, "value": value} for name, value in self.constants.items()
            ],
            "score": _left(outputs, given, self.score, "stream.score").name,
            "place": self.place,
            "threshold": self.threshold,
        }
        return {name: value for name, value in said.items() if value is not None}

    def _shape(self, tensor: Tensor) -> list[int]:
        """Of the input that an event becomes. Raises `ConfigError` manifest_invalid."""
        if not tensor.shape:
            raise ConfigError("manifest_invalid", f"stream.event: {tensor.name} is a single number")
        *rest, last = tensor.shape
        if self.size is None and not last:
            message = f"stream.size: {tensor.name} takes any number of elements; say how many an event has"
            raise ConfigError("manifest_invalid", message)
        own = last if self.size is None else self.size + self.context
        return [*(size or 1 for size in rest), own]


def _left(tensors: Sequence[Tensor], used: set[str], name: str | None, place: str) -> Tensor:
    """The tensor that is meant. Raises `ConfigError` manifest_invalid."""
    wanted = [
        each for each in tensors if (each.name not in used if name is None else each.name == name)
    ]
    if len(wanted) == 1:
        return wanted[0]
    names = ", ".join(each.name for each in tensors[:8])
    message = (
        f"say which of {names}" if name is None else f"the model has no {name!r}; it has {names}"
    )
    raise ConfigError("manifest_invalid", f"{place}: {message}")
