"""A model as people write it: the kind Model.

Owns: its shape, in the units people write. Must not: know what is in the file, or which versions there were.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from vedette.config.manifest import Metadata
from vedette.config.media_manifest import MediaSpec
from vedette.config.model import Count, Model, build
from vedette.config.quantities import parse_size
from vedette.config.samples_manifest import SamplesSpec
from vedette.config.served import (
    MAX_REMOTE_REQUEST,
    TASK_PATTERN,
    Datatype,
    ModelLimits,
    RemoteModel,
)
from vedette.config.tiers import TensorName
from vedette.config.written import Duration, FileReference, Size, millis
from vedette.errors import ConfigError

Task = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=TASK_PATTERN)]

_ANY: Final = -1
_OF_REMOTE: Final = {"task", "inputs", "outputs", "limits"}


def _dimension(size: int) -> int:
    if size == 0:
        raise ValueError("a dimension is 1 or more, or -1: any")
    return size


Dimension = Annotated[int, Field(strict=True, ge=_ANY, le=2**40), AfterValidator(_dimension)]
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


class TensorSpec(Model):
    """An input or output of a model that only tiers have."""

    name: TensorName = Field(description="Its name, as the tiers have it.")
    datatype: Datatype = Field(description="Type of its elements.")
    shape: tuple[Dimension, ...] = Field(max_length=16, description="Its dimensions; -1: any.")

    def resolve(self) -> dict[str, Any]:
        """The same as a snapshot says it."""
        shape = [0 if each == _ANY else each for each in self.shape]
        return {"name": self.name, "datatype": self.datatype, "shape": shape}


Tensors = Annotated[tuple[TensorSpec, ...], Field(min_length=1, max_length=256)]


class ModelSpec(ModelSettings):
    """Which file, which version of it, and how it runs; or what goes in and comes out, where only tiers have it."""

    file: FileReference | None = Field(
        default=None,
        description="The model's file (ONNX, TensorFlow Lite, or a detector in JSON), relative to the manifest, or "
        "the digest of one that the node has. Absent: only tiers have the model, and a Route with tiers leads to it.",
    )
    inputs: Tensors | None = Field(
        default=None,
        description="What a model without `file` takes; of a file, it says that itself.",
    )
    outputs: Tensors | None = Field(
        default=None,
        description="What a model without `file` gives; of a file, it says that itself.",
    )
    version: Annotated[int, Field(strict=True, ge=1, le=2**53)] | None = Field(
        default=None,
        description="Its version: higher than every one before it, or one that the node keeps of this file. Absent: "
        "that of this file, or the next.",
    )

    @model_validator(mode="after")
    def _require_file_or_tensors(self) -> Self:
        if self.file is not None:
            if self.inputs or self.outputs:
                raise ValueError(
                    "inputs and outputs are for a model without `file`, which says them"
                )
            return self
        if not self.inputs or not self.outputs:
            raise ValueError(
                "file is missing; a model that only tiers have says `inputs` and `outputs` instead"
            )
        limits = self.limits.model_fields_set - {"request_size"}
        said = {each for each in self.model_fields_set if getattr(self, each) is not None}
        names = [*sorted(said - _OF_REMOTE), *(f"limits.{each}" for each in sorted(limits))]
        if names:
            head, dot, field = names[0].partition(".")
            raise ValueError(f"{to_camel(head)}{dot}{to_camel(field)} is for a model with a file")
        if self._most() > MAX_REMOTE_REQUEST:
            raise ValueError("limits.requestSize is at most 16MB for a model without `file`")
        return self

    def _most(self) -> int:
        is_said = "request_size" in self.limits.model_fields_set
        return parse_size(self.limits.request_size) if is_said else MAX_REMOTE_REQUEST

    def remote(self, name: str) -> RemoteModel:
        """A model without `file`, as a snapshot says it. Raises `ConfigError` manifest_invalid."""
        data = {
            "name": name,
            "task": self.task,
            "inputs": [each.resolve() for each in self.inputs or ()],
            "outputs": [each.resolve() for each in self.outputs or ()],
            "requestBytes": self._most(),
        }
        return build(RemoteModel, data, code="manifest_invalid")


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
