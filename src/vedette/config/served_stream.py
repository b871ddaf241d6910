"""How a model that remembers answers a stream, as a snapshot says it: what an event becomes, what a run gives the next.

Owns: the shapes, and which tensors fit them. Must not: run anything; the model's process does (`crates/models`,
`streams`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Final

from pydantic import Field

from vedette.config.model import Count, Model
from vedette.config.served_media import READ_DATATYPES, TensorName
from vedette.config.tensor import Tensor

MAX_EVENT_BYTES: Final = 65_536
"""As `MAX_LINE` in crates/models/src/streams/event.rs: what a message of a WebSocket may have."""
MAX_STATE_ELEMENTS: Final = 1 << 24
_SIZES: Final = {"8": 1, "16": 2, "32": 4, "64": 8}
"""Bytes of an element, by the digits of its type."""

Size = Annotated[Count, Field(ge=1, le=MAX_STATE_ELEMENTS)]
Value = Annotated[float, Field(ge=-1e15, le=1e15)]
Threshold = Annotated[float, Field(ge=-1e9, le=1e9)]


class StreamState(Model):
    """What a run of a stream gives the next: zeros at first."""

    input: TensorName = Field(description="The input that takes it.")
    output: TensorName = Field(description="The output of the run before that it is.")
    shape: tuple[Size, ...] = Field(max_length=16, description="Its dimensions.")


class StreamConstant(Model):
    """An input that is the same in each run of each stream."""

    input: TensorName = Field(description="The input; a dimension that may be any is 1.")
    value: Value = Field(description="Each of its elements.")


class ServedStream(Model):
    """How a model that gives back what it needs to remember answers events of a stream."""

    tensor: TensorName = Field(description="The input that an event becomes.")
    shape: tuple[Size, ...] = Field(
        min_length=1, max_length=16, description="Its dimensions, with `context`."
    )
    context: Count = Field(
        default=0,
        le=MAX_EVENT_BYTES,
        description="Elements of the event before that go in before its own; zeros at first.",
    )
    state: tuple[StreamState, ...] = Field(
        min_length=1, max_length=64, description="What a run gives the next."
    )
    constants: tuple[StreamConstant, ...] = Field(
        default=(), max_length=64, description="Inputs that are always the same."
    )
    score: TensorName = Field(description="The output with the score of an event.")
    place: Count | None = Field(
        default=None,
        le=1 << 20,
        description="Which of its elements, from 0; absent: the greatest.",
    )
    threshold: Threshold | None = Field(
        default=None, description="Score from which on an event is an alarm; absent: none is."
    )


def problems_of_stream(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], stream: ServedStream
) -> Iterator[str]:
    """What does not fit between the tensors of a model and how it answers a stream."""
    takes = {each.name: each for each in inputs}
    gives = {each.name: each for each in outputs}
    fed = [
        stream.tensor,
        *(each.input for each in stream.state),
        *(each.input for each in stream.constants),
    ]
    for name, count in Counter(fed).items():
        if name not in takes:
            yield f"stream: the model has no input {name!r}"
        elif count > 1:
            yield f"stream: {name} is fed twice"
    missing = [name for name in takes if name not in fed]
    if missing:
        yield f"stream: nothing is given for {', '.join(missing[:5])}, which the model takes too"
    if stream.tensor in takes:
        yield from _problems_of_event(takes[stream.tensor], stream)
    for state in stream.state:
        yield from _problems_of_state(takes.get(state.input), gives.get(state.output), state)
    for constant in stream.constants:
        if constant.input in takes:
            yield from _problems_of_constant(takes[constant.input], constant.value)
    yield from _problems_of_score(gives.get(stream.score), stream)


def _problems_of_event(tensor: Tensor, stream: ServedStream) -> Iterator[str]:
    yield from _misfit("stream.event", tensor, stream.shape)
    size = _size(tensor)
    if size is None:
        yield f"stream.event: {tensor.name} is {tensor.datatype}, and an event is numbers"
    elif math.prod(stream.shape) * size > MAX_EVENT_BYTES:
        yield f"stream.size: an event has at most {MAX_EVENT_BYTES:,} bytes with its context"
    if stream.context and any(each > 1 for each in stream.shape[:-1]):
        yield f"stream.context: {tensor.name} has more than one row, so nothing goes in before it"
    if stream.context >= math.prod(stream.shape):
        yield "stream.context: an event has at least one element of its own"


def _problems_of_state(
    taken: Tensor | None, given: Tensor | None, state: StreamState
) -> Iterator[str]:
    if taken is not None:
        yield from _misfit("stream.state", taken, state.shape)
        if taken.datatype == "BYTES":
            yield f"stream.state: {taken.name} is texts, which nothing can begin with"
    if given is None:
        yield f"stream.state: the model has no output {state.output!r}"
        return
    yield from _misfit("stream.state", given, state.shape)
    if taken is not None and taken.datatype != given.datatype:
        yield f"stream.state: {taken.name} is {taken.datatype}, and {given.name} {given.datatype}"
    if math.prod(state.shape) > MAX_STATE_ELEMENTS:
        yield f"stream.state: {state.input} has more than {MAX_STATE_ELEMENTS:,} elements"


def _problems_of_constant(tensor: Tensor, value: float) -> Iterator[str]:
    if math.prod(each or 1 for each in tensor.shape) > MAX_EVENT_BYTES:
        yield f"stream.constants: {tensor.name} has more than {MAX_EVENT_BYTES:,} elements"
    size = _size(tensor)
    if tensor.datatype in ("FP32", "FP64"):
        return
    if size is None or tensor.datatype == "FP16":
        yield f"stream.constants: {tensor.name} is {tensor.datatype}, which no number is"
        return
    half = 0 if tensor.datatype.startswith("U") else 1 << (8 * size - 1)
    if not value.is_integer() or not -half <= value < (1 << 8 * size) - half:
        yield f"stream.constants: {tensor.name} is {tensor.datatype}, which {value:g} is not"


def _problems_of_score(tensor: Tensor | None, stream: ServedStream) -> Iterator[str]:
    if tensor is None:
        yield f"stream.score: the model has no output {stream.score!r}"
        return
    if tensor.datatype not in READ_DATATYPES:
        yield f"stream.score: {tensor.name} is {tensor.datatype}, and not one of {', '.join(READ_DATATYPES)}"
    elements = math.prod(tensor.shape)
    if stream.place is not None and elements and stream.place >= elements:
        yield f"stream.place: {tensor.name} has {elements} elements, counted from 0"


def _size(tensor: Tensor) -> int | None:
    """Bytes of an element; None: it is no number."""
    return _SIZES.get(tensor.datatype.lstrip("UINTFP"))


def _misfit(where: str, tensor: Tensor, wanted: Sequence[int]) -> Iterator[str]:
    shape = tensor.shape
    if len(shape) != len(wanted) or any(
        size not in (0, want) for size, want in zip(shape, wanted, strict=True)
    ):
        said = ", ".join(str(size) if size else "any" for size in shape)
        yield f"{where}: {tensor.name} is [{said}], and not [{', '.join(map(str, wanted))}]"
