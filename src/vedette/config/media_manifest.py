"""How a model is fed and read, as people write it: `input`, `output` and `stream` of the kind Model.

Owns: the shapes, and what is meant where something is left out, which the model's own tensors tell. Must not: read a
file; whoever resolves a manifest says what is in those that it names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from vedette.config.model import Count, Flag, Model
from vedette.config.served_media import (
    MAX_SIDE,
    BoxHead,
    FileRole,
    Label,
    Level,
    ModelExtra,
    Share,
    TensorName,
    TextTensors,
)
from vedette.config.stream_manifest import StreamSpec
from vedette.config.tensor import Tensor
from vedette.config.written import FileReference
from vedette.errors import ConfigError

Extra = Callable[[str, FileRole], ModelExtra]
"""What a file that is named is, as a snapshot says it."""
_USUAL_TOKENS: Final = 512
_USUAL_TENSORS: Final = {
    "ids": "input_ids",
    "mask": "attention_mask",
    "types": "token_type_ids",
}
_TOP: Final = 5
_BOXES: Final = 100


class ImageSpec(Model):
    """A picture (JPEG or PNG) as input."""

    tensor: TensorName | None = Field(
        default=None, description="The input that it becomes; absent: the only one."
    )
    width: Annotated[Count, Field(ge=1, le=MAX_SIDE)] | None = Field(
        default=None, description="Columns; absent: as the model says."
    )
    height: Annotated[Count, Field(ge=1, le=MAX_SIDE)] | None = Field(
        default=None, description="Rows; absent: as the model says."
    )
    resize: Literal["stretch", "fit", "fill", "crop"] = Field(
        default="fit",
        description="`stretch`: to these sides. `fit`: all of it, in the middle of `pad`. `fill`: as much from its "
        "middle as has these sides. `crop`: its shorter side to `shorterSide`, then the middle.",
    )
    shorter_side: Annotated[Count, Field(ge=1, le=2 * MAX_SIDE)] | None = Field(
        default=None, description="For `crop`, in pixels, such as 256."
    )
    layout: Literal["NCHW", "NHWC"] | None = Field(
        default=None, description="Order of the dimensions; absent: as the model's shape tells."
    )
    colors: Literal["RGB", "BGR", "GRAY"] = Field(
        default="RGB", description="Order of the channels."
    )
    scale: Level | None = Field(
        default=None,
        description="What 0 to 255 is multiplied by; absent: 1/255, for whole numbers 1.",
    )
    mean: tuple[Level, ...] = Field(
        default=(0.0,), min_length=1, max_length=3, description="Then taken away, by channel."
    )
    std: tuple[Annotated[float, Field(ge=1e-9, le=1e9)], ...] = Field(
        default=(1.0,), min_length=1, max_length=3, description="Then divided by, by channel."
    )
    pad: Count = Field(
        default=114, ge=0, le=255, description="The grey around a picture with `fit`."
    )

    def resolve(self, inputs: Sequence[Tensor]) -> dict[str, Any]:
        """As a snapshot says it. Raises `ConfigError` manifest_invalid."""
        tensor = _chosen(inputs, self.tensor, "input.image.tensor")
        rows, columns, layout = _order(tensor, self.layout)
        width, height = self.width or columns, self.height or rows
        if not width or not height:
            message = f"input.image: {tensor.name} takes any size; say `width` and `height`"
            raise ConfigError("manifest_invalid", message)
        is_whole = tensor.datatype in ("UINT8", "INT8")
        usual = 1.0 if is_whole else 1 / 255
        said = {
            "type": "Image",
            "tensor": tensor.name,
            "width": width,
            "height": height,
            "resize": self.resize,
            "shorterSide": self.shorter_side,
            "layout": layout,
            "colors": self.colors,
            "scale": usual if self.scale is None else self.scale,
            "mean": self.mean,
            "std": self.std,
            "pad": self.pad,
        }
        return {name: value for name, value in said.items() if value is not None}


def _order(tensor: Tensor, said: str | None) -> tuple[int, int, str]:
    """Rows and columns (0: any) and the order of the dimensions."""
    if len(tensor.shape) != 4:
        message = f"input.image: {tensor.name} has {len(tensor.shape)} dimensions, and a picture 4"
        raise ConfigError("manifest_invalid", message)
    _, first, second, last = tensor.shape
    layout = said or ("NHWC" if last in (1, 3) and first not in (1, 3) else "NCHW")
    rows, columns = (second, last) if layout == "NCHW" else (first, second)
    return rows, columns, layout


class AudioSpec(Model):
    """A sound (WAV) as input."""

    tensor: TensorName | None = Field(
        default=None, description="The input that it becomes; absent: the only one."
    )
    sample_rate: Count = Field(
        ge=1_000, le=384_000, description="Samples a second; a sound with another is refused."
    )
    seconds: Annotated[float, Field(gt=0, le=3_600)] | None = Field(
        default=None,
        description="Length: a longer sound is cut, a shorter one followed by silence; absent: as the model says, or "
        "all of it.",
    )

    def resolve(self, inputs: Sequence[Tensor]) -> dict[str, Any]:
        """As a snapshot says it. Raises `ConfigError` manifest_invalid."""
        tensor = _chosen(inputs, self.tensor, "input.audio.tensor")
        said = {"type": "Audio", "tensor": tensor.name, "sampleRate": self.sample_rate}
        samples = tensor.shape[-1] if tensor.shape else 0
        if self.seconds is not None:
            samples = max(1, round(self.seconds * self.sample_rate))
        return {**said, "samples": samples} if samples else said


class TextTensorsSpec(Model):
    """Which inputs a text becomes."""

    ids: TensorName = Field(description="Tokens.")
    mask: TensorName | None = Field(default=None, description="1 for a token, 0 for padding.")
    types: TensorName | None = Field(
        default=None, description="Which of two texts a token is of; 0."
    )


class TextSpec(Model):
    """A text as input."""

    tokenizer: FileReference = Field(
        description="A `tokenizer.json` of Hugging Face, relative to the manifest; at most 32 MiB."
    )
    max_tokens: Annotated[Count, Field(ge=1, le=65_536)] | None = Field(
        default=None,
        description="Further tokens are cut off; absent: as many as the model takes, or 512.",
    )
    tensors: TextTensorsSpec | None = Field(
        default=None,
        description="The inputs that they become; absent: `input_ids`, `attention_mask`, `token_type_ids`, as far as "
        "the model takes them.",
    )

    def resolve(self, inputs: Sequence[Tensor]) -> dict[str, Any]:
        """As a snapshot says it. Raises `ConfigError` manifest_invalid."""
        known = {each.name: each for each in inputs}
        if self.tensors is not None:
            tensors = {key: value for key, value in dict(self.tensors).items() if value is not None}
        else:
            tensors = {key: name for key, name in _USUAL_TENSORS.items() if name in known}
        if "ids" not in tensors:
            message = (
                "input.text.tensors: the model has no input `input_ids`; say which takes the tokens"
            )
            raise ConfigError("manifest_invalid", message)
        ids = known.get(tensors["ids"])
        taken = ids.shape[-1] if ids is not None and ids.shape else 0
        most = self.max_tokens or taken or _USUAL_TOKENS
        return {
            "type": "Text",
            "maxTokens": most,
            "tensors": TextTensors(**tensors).model_dump(by_alias=True, exclude_none=True),
        }


class InputSpec(Model):
    """What else than tensors a model takes: one of these."""

    image: ImageSpec | None = Field(default=None, description="Pictures.")
    audio: AudioSpec | None = Field(default=None, description="Sounds.")
    text: TextSpec | None = Field(default=None, description="Texts.")

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        _require_one_of(self)
        return self

    def resolve(self, inputs: Sequence[Tensor]) -> dict[str, Any]:
        """As a snapshot says it. Raises `ConfigError` manifest_invalid."""
        chosen = self.image or self.audio or self.text
        assert chosen is not None
        return chosen.resolve(inputs)


class LabelsSpec(Model):
    """The highest scores with their names."""

    tensor: TensorName | None = Field(
        default=None, description="The output with a score for each class; absent: the only one."
    )
    names: FileReference | tuple[Label, ...] = Field(
        default=(),
        description="Names of the classes, in order: a list, or a file (a line each, or JSON), relative to the "
        "manifest; absent: their numbers.",
    )
    softmax: Flag = Field(default=False, description="Whether scores are made to sum to 1 first.")
    top: Count = Field(default=_TOP, ge=1, le=1_000, description="How many, highest first.")

    def resolve(self, outputs: Sequence[Tensor]) -> dict[str, Any]:
        """As a snapshot says it. Raises `ConfigError` manifest_invalid."""
        return {
            "type": "Labels",
            "tensor": _chosen(outputs, self.tensor, "output.labels.tensor").name,
            "names": _listed(self.names),
            "softmax": self.softmax,
            "top": self.top,
        }


class EmbeddingSpec(Model):
    """One vector for each input."""

    tensor: TensorName | None = Field(
        default=None, description="The output that it is made of; absent: the only one."
    )
    pool: Literal["mean", "cls", "none"] | None = Field(
        default=None,
        description="Of [n, tokens, d]: the mean of those that the mask has, or the first. `none`: it is [n, d]. "
        "Absent: `mean` or `none`, as its dimensions tell.",
    )
    normalize: Flag = Field(default=True, description="Whether its length is made 1.")

    def resolve(self, outputs: Sequence[Tensor], mask: str | None) -> dict[str, Any]:
        """As a snapshot says it; `mask`: the input with it. Raises `ConfigError` manifest_invalid."""
        tensor = _chosen(outputs, self.tensor, "output.embedding.tensor")
        pool = self.pool or ("mean" if len(tensor.shape) == 3 else "none")
        said = {
            "type": "Embedding",
            "tensor": tensor.name,
            "pool": pool,
            "normalize": self.normalize,
        }
        return {**said, "mask": mask} if mask is not None and pool == "mean" else said


class RowsSpec(Model):
    """Each row is a box and its scores (YOLO)."""

    tensor: TensorName | None = Field(
        default=None, description="The output [1, boxes, 4 + classes]; absent: the only one."
    )
    transposed: Flag = Field(
        default=False, description="Whether it is [1, 4 + classes, boxes] (YOLOv8)."
    )
    coordinates: Literal["cxcywh", "xyxy"] = Field(
        default="cxcywh", description="Middle and sides, or two corners."
    )
    relative: Flag = Field(default=False, description="Whether 1 is a whole side, not a pixel.")
    objectness: Flag = Field(
        default=False,
        description="Whether the fifth number is how sure it is of anything (YOLOv5).",
    )
    sigmoid: Flag = Field(
        default=False, description="Whether scores still are to be put between 0 and 1."
    )


class GridSpec(Model):
    """Each cell of a grid has scores, and distances to the four sides as distributions (`PicoDet`, GFL)."""

    heads: tuple[BoxHead, ...] = Field(min_length=1, max_length=16, description="The grids.")
    sigmoid: Flag = Field(
        default=False, description="Whether scores still are to be put between 0 and 1."
    )


class BoxesSpec(Model):
    """What was found and where; `rows` or `grid` says how the outputs say it."""

    rows: RowsSpec | None = Field(default=None, description="A row for each box.")
    grid: GridSpec | None = Field(default=None, description="Cells of grids.")
    names: FileReference | tuple[Label, ...] = Field(
        default=(), description="Names of the classes, as for `labels`."
    )
    score: Share = Field(default=0.25, description="The least score that counts.")
    overlap: Share = Field(
        default=0.5,
        description="Of two boxes of a class that overlap more than this (intersection over union) the lower goes.",
    )
    top: Count = Field(default=_BOXES, ge=1, le=1_000, description="How many, highest first.")

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        if (self.rows is None) == (self.grid is None):
            raise ValueError("write one of rows, grid")
        return self

    def resolve(self, outputs: Sequence[Tensor]) -> dict[str, Any]:
        """As a snapshot says it. Raises `ConfigError` manifest_invalid."""
        if self.grid is not None:
            decode = {"type": "Grid", **self.grid.model_dump(by_alias=True)}
        else:
            assert self.rows is not None
            tensor = _chosen(outputs, self.rows.tensor, "output.boxes.rows.tensor").name
            decode = {"type": "Rows", **self.rows.model_dump(by_alias=True), "tensor": tensor}
        return {
            "type": "Boxes",
            "decode": decode,
            "names": _listed(self.names),
            "score": self.score,
            "overlap": self.overlap,
            "top": self.top,
        }


class OutputSpec(Model):
    """How a model's outputs are read: one of these."""

    labels: LabelsSpec | None = Field(default=None, description="Names with scores.")
    boxes: BoxesSpec | None = Field(default=None, description="Boxes in a picture.")
    embedding: EmbeddingSpec | None = Field(default=None, description="A vector.")

    @model_validator(mode="after")
    def _require_one(self) -> Self:
        _require_one_of(self)
        return self

    def resolve(self, outputs: Sequence[Tensor], mask: str | None) -> dict[str, Any]:
        """As a snapshot says it; `mask`: the input with it. Raises `ConfigError` manifest_invalid."""
        if self.embedding is not None:
            return self.embedding.resolve(outputs, mask)
        chosen = self.labels or self.boxes
        assert chosen is not None
        return chosen.resolve(outputs)


class MediaSpec(Model):
    """How a model is fed, and how it is read."""

    input: InputSpec | None = Field(
        default=None,
        description="How a picture, a sound or a text becomes its input; absent: it takes tensors only.",
    )
    output: OutputSpec | None = Field(
        default=None, description="How its output is read; absent: it gives tensors only."
    )
    stream: StreamSpec | None = Field(
        default=None,
        description="How a model that gives back what it needs to remember answers events of a stream; absent: it "
        "takes requests only.",
    )

    def named_files(self) -> dict[str, FileRole]:
        """The files that are named, as written, with what each is for."""
        found: dict[str, FileRole] = {}
        if self.input is not None and self.input.text is not None:
            found[self.input.text.tokenizer] = "tokenizer"
        read = self.output and (self.output.labels or self.output.boxes)
        if read and isinstance(read.names, str):
            found[read.names] = "names"
        return found

    def resolve(
        self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], extra: Extra
    ) -> dict[str, Any]:
        """As a snapshot says it, for a model with these tensors. Raises `ConfigError` manifest_invalid."""
        said: dict[str, Any] = {}
        if self.input is not None:
            said["input"] = self.input.resolve(inputs)
        if self.output is not None:
            mask = said.get("input", {}).get("tensors", {}).get("mask")
            said["output"] = self.output.resolve(outputs, mask)
        if self.stream is not None:
            said["stream"] = self.stream.resolve(inputs, outputs)
        files = [extra(written, role) for written, role in self.named_files().items()]
        if files:
            said["files"] = [each.model_dump(by_alias=True) for each in files]
        return said


def _chosen(tensors: Sequence[Tensor], name: str | None, place: str) -> Tensor:
    """The tensor that is meant. Raises `ConfigError` manifest_invalid."""
    names = ", ".join(each.name for each in tensors[:8])
    if name is None and len(tensors) == 1:
        return tensors[0]
    if name is None:
        raise ConfigError("manifest_invalid", f"{place}: say which of {names}")
    for each in tensors:
        if each.name == name:
            return each
    raise ConfigError("manifest_invalid", f"{place}: the model has no {name!r}; it has {names}")


def _listed(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return () if isinstance(names, str) else names


def _require_one_of(spec: Model) -> None:
    known = list(type(spec).model_fields)
    if len([name for name in known if getattr(spec, name) is not None]) != 1:
        raise ValueError(f"write one of {', '.join(known)}")
