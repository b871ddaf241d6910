"""Models as a snapshot says them: which file, how it is run, and what goes in and comes out.

Owns: the shape. The words are those of the Open Inference Protocol (KServe V2). Must not: say who may ask one; policies
do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from vedette.config.model import Count, Model, build, wire_value
from vedette.config.served_media import ModelExtra, ServedInput, ServedOutput, problems_of_media
from vedette.config.served_samples import ServedSamples, problems_of_samples
from vedette.config.served_stream import ServedStream, problems_of_stream
from vedette.config.tensor import Datatype, Tensor
from vedette.ids import DIGEST_PATTERN, NAME_PATTERN

__all__ = ["Datatype", "Tensor"]
WORKER_PATTERN: Final = r"^[0-9a-f]{16}$"
MAX_REMOTE_REQUEST: Final = 16_777_216
"""What the engine keeps of a request to send it to one tier after another."""


TASK_PATTERN: Final = r"^[a-z][a-z0-9-]*$"
ModelFormat = Literal["onnx", "tflite", "detector"]
"""`detector`: JSON that says how anomalies of a stream are found (docs/models.md)."""


class ModelLimits(Model):
    """What a model may use of the node, and how much may wait for it."""

    memory_bytes: Count = Field(
        default=2_147_483_648,
        ge=67_108_864,
        le=1_099_511_627_776,
        description="Memory of its process, in bytes; beyond: the run fails, and 503.",
    )
    run_millis: Count = Field(
        default=10_000,
        ge=1,
        le=3_600_000,
        description="Longest run, in milliseconds; beyond: 504, and it is told to stop. One that does not within a "
        "second starts anew.",
    )
    queue: Count = Field(
        default=64,
        ge=0,
        le=100_000,
        description="Requests that may wait for a session; beyond: 503 with `retry-after`.",
    )
    batch: Count = Field(
        default=8,
        ge=1,
        le=1_024,
        description="Requests of one caller that may run together; 1: each alone.",
    )
    request_bytes: Count = Field(
        default=67_108_864,
        ge=1_024,
        le=1_073_741_824,
        description="Largest request body, in bytes; beyond: 413.",
    )
    streams: Count = Field(
        default=1_000,
        ge=1,
        le=100_000,
        description="Streams of which a model keeps what they have seen, while one has a connection and after; of "
        "the caller who has most, the one that was idle longest makes room. All have one: 503.",
    )


class ServedModel(Model):
    """A model, one version of it, and how it runs."""

    name: Annotated[str, StringConstraints(pattern=NAME_PATTERN)] = Field(
        description="Name of the model, unique on the node."
    )
    version: Count = Field(ge=1, le=2**53, description="Its version; the registry counts upwards.")
    blob: Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)] = Field(
        description="Digest of its file."
    )
    size: Count = Field(ge=1, le=1_099_511_627_776, description="Size of its file, in bytes.")
    format: ModelFormat = Field(description="What the file is.")
    task: str = Field(
        default="tensors",
        min_length=1,
        max_length=63,
        pattern=TASK_PATTERN,
        description="What it is for, such as `image-classification`; `tensors`: nothing is known.",
    )
    inputs: tuple[Tensor, ...] = Field(
        min_length=1, max_length=256, description="What it takes, in the file's order."
    )
    outputs: tuple[Tensor, ...] = Field(
        min_length=1, max_length=256, description="What it gives, in the file's order."
    )
    input: ServedInput | None = Field(
        default=None,
        description="How a picture, a sound or a text becomes its input; absent: it takes tensors only.",
    )
    output: ServedOutput | None = Field(
        default=None, description="How its output is read; absent: it gives tensors only."
    )
    stream: ServedStream | None = Field(
        default=None,
        description="How it answers events of a stream, remembering; absent: it takes requests only.",
    )
    files: tuple[ModelExtra, ...] | None = Field(
        default=None,
        max_length=2,
        description="What it needs beside its own file; absent: nothing.",
    )
    sessions: Count = Field(
        default=1, ge=1, le=256, description="Sessions, each of which runs one request at a time."
    )
    threads: Count = Field(default=1, ge=1, le=256, description="Threads of each session.")
    limits: ModelLimits = Field(default_factory=ModelLimits, description="What it may use.")
    idle_millis: Annotated[Count, Field(ge=1_000, le=2_592_000_000)] | None = Field(
        default=None,
        description="Its process ends when nobody asks for so many milliseconds, and starts when somebody does; "
        "absent: it is always there.",
    )
    samples: ServedSamples | None = Field(
        default=None, description="What is kept of what it is asked; absent: nothing."
    )
    worker: Annotated[str, StringConstraints(pattern=WORKER_PATTERN)] = Field(
        description="Name of its process and socket: everything above, hashed. What changes any of it runs in "
        "a process of its own beside the one before."
    )

    @model_validator(mode="after")
    def _require_fitting_media(self) -> Self:
        roles = [each.role for each in self.files or ()]
        found = problems_of_media(self.inputs, self.outputs, self.input, self.output, roles)
        problems = list(found)
        if self.stream is not None:
            problems += problems_of_stream(self.inputs, self.outputs, self.stream)
            if self.format != "onnx":
                problems.append("stream: only a model of ONNX gives back what it needs to remember")
        if self.samples is not None:
            problems += problems_of_samples(self.inputs, self.samples)
            if self.format == "detector":
                problems.append("samples: events of a detector are not kept")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def blobs(self) -> dict[str, int]:
        """Sizes of its file and of those beside it, by digest."""
        extras = {each.blob: each.size for each in self.files or ()}
        return {**extras, self.blob: self.size}


class RemoteModel(Model):
    """A model that only tiers have: no file, no process, and what goes in and comes out as somebody declared it."""

    name: Annotated[str, StringConstraints(pattern=NAME_PATTERN)] = Field(
        description="Name of the model, unique on the node."
    )
    task: str = Field(
        default="tensors",
        min_length=1,
        max_length=63,
        pattern=TASK_PATTERN,
        description="What it is for; `tensors`: nothing is known.",
    )
    inputs: tuple[Tensor, ...] = Field(
        min_length=1, max_length=256, description="What it takes; anything else is refused here."
    )
    outputs: tuple[Tensor, ...] = Field(
        min_length=1, max_length=256, description="What it gives; anything else is not believed."
    )
    request_bytes: Count = Field(
        default=MAX_REMOTE_REQUEST,
        ge=1_024,
        le=MAX_REMOTE_REQUEST,
        description="Largest request body, in bytes; beyond: 413.",
    )

    @model_validator(mode="after")
    def _require_names_once(self) -> Self:
        for side in (self.inputs, self.outputs):
            names = [each.name for each in side]
            if repeated := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{', '.join(repeated)} is there more than once")
        return self


def served_model(data: Mapping[str, Any], *, code: str = "snapshot_invalid") -> ServedModel:
    """The model that `data` (names in camelCase) says, under the name of its worker: the first 16 digits of SHA-256 of
    its canonical JSON without that name. Raises `ConfigError` with `code`.
    """
    unnamed = build(ServedModel, {**data, "worker": "0" * 16}, code=code)
    return unnamed.model_copy(update={"worker": worker_of(unnamed)})


def worker_of(model: ServedModel) -> str:
    """The name that the model's worker has to have."""
    said = {name: value for name, value in wire_value(model).items() if name != "worker"}
    text = json.dumps(said, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
