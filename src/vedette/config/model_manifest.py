"""A model as people write it: the kind Model.

Owns: its shape, in the units people write. Must not: know what is in the file, or which versions there were.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from vedette.config.manifest import Metadata
from vedette.config.media_manifest import MediaSpec
from vedette.config.model import Count, Model, build
from vedette.config.quantities import parse_size
from vedette.config.samples_manifest import SamplesSpec
from vedette.config.served import TASK_PATTERN, ModelLimits
from vedette.config.written import Duration, FileReference, Size, millis
from vedette.errors import ConfigError

Task = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=TASK_PATTERN)]

_LEAST_IDLE, _LONGEST_IDLE = 1_000, 30 * 86_400_000


class ModelLimitsSpec(Model):
    """What a model may use of the node, and how much may wait for it."""

    memory: Size = Field(default="2GB", description="Memory of its process.")
    run: Duration = Field(default="10s", description="Longest run; beyond: 504.")
    queue: Count = Field(default=64, description="Requests that may wait; beyond: 503.")
    batch: Count = Field(
        default=8, description="Requests of one caller that may run together; 1: each alone."
    )
    request_size: Size = Field(default="64MB", description="Largest request body; beyond: 413.")
    streams: Count = Field(
        default=1_000, description="Streams of which a model keeps what they have seen."
    )

    @model_validator(mode="after")
    def _require_bounds(self) -> Self:
        try:
            self.resolve()
        except ConfigError as error:
            raise ValueError(error.message) from None
        return self

    def resolve(self) -> ModelLimits:
        """The same as a snapshot says it. Raises `ConfigError` manifest_invalid when one is out of bounds."""
        data = {
            "memoryBytes": parse_size(self.memory),
            "runMillis": millis(self.run),
            "queue": self.queue,
            "batch": self.batch,
            "requestBytes": parse_size(self.request_size),
            "streams": self.streams,
        }
        return build(ModelLimits, data, code="manifest_invalid")


class ModelSettings(MediaSpec):
    """How a model runs, is fed and is read."""

    task: Task = Field(
        default="tensors",
        description="What it is for, such as `image-classification`; `tensors`: nothing is known.",
    )
    sessions: Count = Field(
        default=1, ge=1, le=256, description="Sessions, each of which runs one request at a time."
    )
    threads: Count = Field(default=1, ge=1, le=256, description="Threads of each session.")
    limits: ModelLimitsSpec = Field(default_factory=ModelLimitsSpec, description="What it may use.")
    idle: Duration | None = Field(
        default=None,
        description="Its process ends when nobody asks for so long (1s to 30d), and starts when somebody does. "
        "Absent: it is always there.",
    )
    samples: SamplesSpec | None = Field(
        default=None,
        description="Which inputs of which requests are kept, redacted, and for how long; absent: none.",
    )

    @model_validator(mode="after")
    def _require_idle(self) -> Self:
        if self.idle is not None and not _LEAST_IDLE <= millis(self.idle) <= _LONGEST_IDLE:
            raise ValueError("idle is 1s to 30d")
        return self

    def settings(self) -> dict[str, Any]:
        """How it runs, as a snapshot says it."""
        limits = self.limits.resolve()
        return {
            "task": self.task,
            "sessions": self.sessions,
            "threads": self.threads,
            "limits": limits.model_dump(by_alias=True),
            "idleMillis": millis(self.idle) if self.idle else None,
            "samples": self.samples.resolve() if self.samples else None,
        }


class ModelSpec(ModelSettings):
    """Which file, which version of it, and how it runs."""

    file: FileReference = Field(
        description="The model's file (ONNX, or a detector in JSON), relative to the manifest, or the digest of "
        "one that the node has."
    )
    version: Annotated[int, Field(strict=True, ge=1, le=2**53)] | None = Field(
        default=None,
        description="Its version: higher than every one before it, or one that the node keeps of this file. Absent: "
        "that of this file, or the next.",
    )


class FolderSpec(ModelSettings):
    """`model.yaml` in a folder that is taken in: the spec of a kind Model, whose file may be left out."""

    file: FileReference | None = Field(
        default=None, description="The model's file, relative to the folder; absent: the only one."
    )


class ModelManifest(Model):
    """A model that the node serves by the Open Inference Protocol, at `/v2/models/NAME` unless a Route leads to it."""

    api_version: Literal["vedette.dev/v1alpha1"] = Field(description="Version of this shape.")
    kind: Literal["Model"] = Field(description="Always `Model`.")
    metadata: Metadata = Field(description="What it is called; requests and routes name it.")
    spec: ModelSpec = Field(description="Which file, and how it runs.")
