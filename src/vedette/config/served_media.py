"""How bytes that are no tensors become a model's input, and how its output is read, as a snapshot says it.

Owns: the shapes, and which tensors fit them. Must not: decode anything; the model's process does (`crates/models`,
`media` and `reading`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints

from vedette.config.model import Count, Flag, Model
from vedette.config.tensor import Tensor
from vedette.ids import DIGEST_PATTERN

MAX_SIDE: Final = 4_096
"""Pixels of a side of what a model takes."""
MAX_MODEL_FILE_BYTES: Final = 32 << 20
"""Of a tokenizer, or a list of names."""
IMAGE_DATATYPES: Final = ("FP32", "FP16", "UINT8", "INT8")
AUDIO_DATATYPES: Final = ("FP32", "FP16", "INT16")
TEXT_DATATYPES: Final = ("INT64", "INT32")
READ_DATATYPES: Final = ("FP32", "FP16", "FP64")

TensorName = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Level = Annotated[float, Field(ge=-1e9, le=1e9)]
Share = Annotated[float, Field(ge=0, le=1)]
FileRole = Literal["names", "tokenizer"]


class ModelExtra(Model):
    """A file that a model needs beside its own."""

    role: FileRole = Field(description="What it is for.")
    blob: Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)] = Field(
        description="Digest of its bytes."
    )
    size: Count = Field(ge=1, le=MAX_MODEL_FILE_BYTES, description="Its size, in bytes.")


class ImageInput(Model):
    """A picture (JPEG, PNG) becomes one tensor, a batch of one."""

    type: Literal["Image"] = Field(default="Image", description="Always `Image`.")
    tensor: TensorName = Field(description="The input that it becomes.")
    width: Count = Field(ge=1, le=MAX_SIDE, description="Columns of the tensor.")
    height: Count = Field(ge=1, le=MAX_SIDE, description="Rows of the tensor.")
    resize: Literal["stretch", "fit", "fill", "crop"] = Field(
        description="`stretch`: to these sides. `fit`: all of it, in the middle of `pad`. `fill`: as much from its "
        "middle as has these sides. `crop`: its shorter side to `shorterSide`, then the middle."
    )
    shorter_side: Count | None = Field(
        default=None, ge=1, le=2 * MAX_SIDE, description="For `crop`, in pixels."
    )
    layout: Literal["NCHW", "NHWC"] = Field(description="Order of the dimensions.")
    colors: Literal["RGB", "BGR", "GRAY"] = Field(description="Order of the channels.")
    scale: Level = Field(description="What 0 to 255 is multiplied by.")
    mean: tuple[Level, ...] = Field(
        min_length=1, max_length=3, description="Then taken away, by channel."
    )
    std: tuple[Annotated[float, Field(ge=1e-9, le=1e9)], ...] = Field(
        min_length=1, max_length=3, description="Then divided by, by channel."
    )
    pad: Count = Field(ge=0, le=255, description="The grey around a picture with `fit`.")


class AudioInput(Model):
    """A sound (WAV) becomes one tensor, a batch of one: one channel, the mean of all."""

    type: Literal["Audio"] = Field(default="Audio", description="Always `Audio`.")
    tensor: TensorName = Field(description="The input that it becomes.")
    sample_rate: Count = Field(
        ge=1_000, le=384_000, description="Samples a second; a sound with another is refused."
    )
    samples: Count | None = Field(
        default=None,
        ge=1,
        le=100_000_000,
        description="Samples of the tensor: a longer sound is cut, a shorter one followed by silence; absent: all.",
    )


class TextTensors(Model):
    """Which inputs a text becomes."""

    ids: TensorName = Field(description="Tokens.")
    mask: TensorName | None = Field(default=None, description="1 for a token, 0 for padding.")
    types: TensorName | None = Field(
        default=None, description="Which of two texts a token is of; 0."
    )


class TextInput(Model):
    """A text (UTF-8) becomes tokens, a batch of one, by the file with the role `tokenizer`."""

    type: Literal["Text"] = Field(default="Text", description="Always `Text`.")
    max_tokens: Count = Field(ge=1, le=65_536, description="Further tokens are cut off.")
    tensors: TextTensors = Field(description="The inputs that they become.")


ServedInput = Annotated[ImageInput | AudioInput | TextInput, Field(discriminator="type")]


class LabelsOutput(Model):
    """The highest scores with their names: `label` BYTES [n, k] and `score` FP32 [n, k]."""

    type: Literal["Labels"] = Field(default="Labels", description="Always `Labels`.")
    tensor: TensorName = Field(description="The output with a score for each class.")
    names: tuple[Label, ...] = Field(
        default=(),
        max_length=1_000,
        description="Names of the classes; else the file with the role `names`, else their numbers.",
    )
    softmax: Flag = Field(description="Whether scores are made to sum to 1 first.")
    top: Count = Field(ge=1, le=1_000, description="How many, highest first.")


class EmbeddingOutput(Model):
    """One vector for each input: `embedding` FP32 [n, d]."""

    type: Literal["Embedding"] = Field(default="Embedding", description="Always `Embedding`.")
    tensor: TensorName = Field(description="The output that it is made of.")
    pool: Literal["mean", "cls", "none"] = Field(
        description="Of [n, tokens, d]: the mean of those that the mask has, or the first. `none`: it is [n, d]."
    )
    mask: TensorName | None = Field(
        default=None, description="The input that says which tokens count; absent: all."
    )
    normalize: Flag = Field(description="Whether its length is made 1.")


class RowBoxes(Model):
    """Each row of [1, boxes, 4 + classes] is a box and its scores (YOLO)."""

    type: Literal["Rows"] = Field(default="Rows", description="Always `Rows`.")
    tensor: TensorName = Field(description="The output.")
    transposed: Flag = Field(description="Whether it is [1, 4 + classes, boxes].")
    coordinates: Literal["cxcywh", "xyxy"] = Field(description="Middle and sides, or two corners.")
    relative: Flag = Field(description="Whether 1 is a whole side, and not a pixel.")
    objectness: Flag = Field(
        description="Whether the fifth number is how sure it is of anything, by which each score is multiplied."
    )
    sigmoid: Flag = Field(description="Whether scores still are to be put between 0 and 1.")


class BoxHead(Model):
    """A grid of cells over the picture."""

    stride: Count = Field(ge=1, le=MAX_SIDE, description="Pixels from one cell to the next.")
    scores: TensorName = Field(description="The output [1, cells, classes].")
    distances: TensorName = Field(
        description="The output [1, cells, 4 n]: for left, top, right and bottom how likely 0, 1, … n - 1 strides are."
    )


class GridBoxes(Model):
    """Each cell of a grid has scores, and distances to the four sides as distributions (`PicoDet`, GFL)."""

    type: Literal["Grid"] = Field(default="Grid", description="Always `Grid`.")
    heads: tuple[BoxHead, ...] = Field(min_length=1, max_length=16, description="The grids.")
    sigmoid: Flag = Field(description="Whether scores still are to be put between 0 and 1.")


class BoxesOutput(Model):
    """What was found and where: `box` FP32 [n, 4] (x1, y1, x2, y2 in pixels of the picture), `label` BYTES [n], `score`
    FP32 [n].
    """

    type: Literal["Boxes"] = Field(default="Boxes", description="Always `Boxes`.")
    decode: Annotated[RowBoxes | GridBoxes, Field(discriminator="type")] = Field(
        description="How the outputs say them."
    )
    names: tuple[Label, ...] = Field(
        default=(),
        max_length=1_000,
        description="Names of the classes; else the file with the role `names`, else their numbers.",
    )
    score: Share = Field(description="The least score that counts.")
    overlap: Share = Field(
        description="Of two boxes of a class that overlap more than this (intersection over union) the lower goes."
    )
    top: Count = Field(ge=1, le=1_000, description="How many, highest first.")


ServedOutput = Annotated[LabelsOutput | EmbeddingOutput | BoxesOutput, Field(discriminator="type")]
READ_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "Labels": ("label", "score"),
    "Embedding": ("embedding",),
    "Boxes": ("box", "label", "score"),
}
"""Names of the outputs that are read, by type."""


def problems_of_media(
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    given: Any,
    read: Any,
    roles: Sequence[str],
) -> Iterator[str]:
    """What does not fit between the tensors of a model, how it is fed and how it is read."""
    if len(set(roles)) != len(roles):
        yield "files: two have one role"
    if given is not None:
        yield from _problems_of_input(inputs, given, roles)
    elif "tokenizer" in roles:
        yield "files: there is a tokenizer, and nothing takes text"
    if read is not None:
        yield from _problems_of_output(inputs, outputs, read)
        if isinstance(read, BoxesOutput) and not isinstance(given, ImageInput):
            yield "output.boxes needs `input.image`: where boxes are is told in pixels of a picture"
    if "names" in roles and getattr(read, "names", None) != ():
        yield "files: there are names that nothing is called by"


def _problems_of_input(inputs: Sequence[Tensor], given: Any, roles: Sequence[str]) -> Iterator[str]:
    known = {each.name: each for each in inputs}
    match given:
        case ImageInput():
            fed = [given.tensor]
            yield from _problems_of_image(known.get(given.tensor), given)
        case AudioInput():
            fed = [given.tensor]
            yield from _problems_of_audio(known.get(given.tensor), given)
        case _:
            names = given.tensors
            fed = [each for each in (names.ids, names.mask, names.types) if each is not None]
            if len(set(fed)) != len(fed):
                yield "input.text.tensors: one input cannot be two things"
            if "tokenizer" not in roles:
                yield "input.text: there is no tokenizer"
            for name in fed:
                yield from _problems_of_tokens(known.get(name), name, given.max_tokens)
    missing = [each.name for each in inputs if each.name not in fed]
    if missing:
        yield f"input: nothing is given for {', '.join(missing[:5])}, which the model takes too"


def _problems_of_image(tensor: Tensor | None, image: ImageInput) -> Iterator[str]:
    channels = 1 if image.colors == "GRAY" else 3
    if tensor is None:
        yield f"input.image.tensor: the model has no input {image.tensor!r}"
    else:
        sides = (image.height, image.width)
        wanted = (1, channels, *sides) if image.layout == "NCHW" else (1, *sides, channels)
        yield from _misfit("input.image", tensor, wanted, IMAGE_DATATYPES)
    for name, values in (("mean", image.mean), ("std", image.std)):
        if len(values) not in (1, channels):
            yield f"input.image.{name} has {len(values)} numbers for {channels} channels"
    if image.resize == "crop":
        least = max(image.width, image.height)
        if image.shorter_side is None or image.shorter_side < least:
            yield f"input.image.shorterSide: `crop` needs at least {least}"
    elif image.shorter_side is not None:
        yield "input.image.shorterSide is for `crop`"


def _problems_of_audio(tensor: Tensor | None, audio: AudioInput) -> Iterator[str]:
    if tensor is None:
        yield f"input.audio.tensor: the model has no input {audio.tensor!r}"
        return
    if not 1 <= len(tensor.shape) <= 3 or any(size > 1 for size in tensor.shape[:-1]):
        yield f"input.audio: {tensor.name} is {_shown(tensor)}; a sound is [samples], [1, samples] or [1, 1, samples]"
    elif tensor.shape[-1] not in (0, audio.samples):
        yield f"input.audio: {tensor.name} takes {tensor.shape[-1]} samples, not {audio.samples or 'any number'}"
    if tensor.datatype not in AUDIO_DATATYPES:
        yield f"input.audio: {tensor.name} is {tensor.datatype}, and not one of {', '.join(AUDIO_DATATYPES)}"


def _problems_of_tokens(tensor: Tensor | None, name: str, most: int) -> Iterator[str]:
    if tensor is None:
        yield f"input.text.tensors: the model has no input {name!r}"
    else:
        sizes = tensor.shape[1:]
        wanted = (1, sizes[0] if sizes and sizes[0] else most)
        yield from _misfit("input.text", tensor, wanted, TEXT_DATATYPES)
        if sizes and sizes[0] and most > sizes[0]:
            yield f"input.text.maxTokens: {name} takes {sizes[0]} tokens"


def _misfit(
    where: str, tensor: Tensor, wanted: Sequence[int], datatypes: Sequence[str]
) -> Iterator[str]:
    shape = tensor.shape
    if len(shape) != len(wanted) or any(
        size not in (0, want) for size, want in zip(shape, wanted, strict=True)
    ):
        yield f"{where}: {tensor.name} is {_shown(tensor)}, and [{', '.join(map(str, wanted))}] is to go in"
    if tensor.datatype not in datatypes:
        yield f"{where}: {tensor.name} is {tensor.datatype}, and not one of {', '.join(datatypes)}"


def _problems_of_output(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], read: Any
) -> Iterator[str]:
    known = {each.name: each for each in outputs}
    for name in READ_NAMES[read.type]:
        if name in known:
            yield f"output: the model has an output {name!r} of its own, which what is read would hide"
    for place, name in _sources(read):
        tensor = known.get(name)
        if tensor is None:
            yield f"{place}: the model has no output {name!r}"
        elif tensor.datatype not in READ_DATATYPES:
            yield f"{place}: {name} is {tensor.datatype}, and not one of {', '.join(READ_DATATYPES)}"
    if isinstance(read, EmbeddingOutput):
        yield from _problems_of_embedding(inputs, known.get(read.tensor), read)
    for name in _sources_of_grid(read):
        tensor = known.get(name)
        if (
            tensor is not None
            and tensor.shape[2:]
            and len(tensor.shape) == 3
            and tensor.shape[2] % 4
        ):
            yield f"output.boxes: {name} is {_shown(tensor)}; its last dimension is four times the number of steps"


def _problems_of_embedding(
    inputs: Sequence[Tensor], tensor: Tensor | None, read: EmbeddingOutput
) -> Iterator[str]:
    rank = 2 if read.pool == "none" else 3
    if tensor is not None and len(tensor.shape) != rank:
        yield f"output.embedding.pool: `{read.pool}` is of {rank} dimensions, and {tensor.name} is {_shown(tensor)}"
    if read.mask is not None:
        mask = next((each for each in inputs if each.name == read.mask), None)
        if mask is None or len(mask.shape) != 2 or mask.datatype not in TEXT_DATATYPES:
            yield f"output.embedding.mask: the model takes no mask {read.mask!r} of whole numbers [n, tokens]"


def _sources(read: Any) -> list[tuple[str, str]]:
    """Where the outputs that are read are named, and their names."""
    if isinstance(read, BoxesOutput):
        if isinstance(read.decode, RowBoxes):
            return [("output.boxes.rows.tensor", read.decode.tensor)]
        heads = read.decode.heads
        return [
            ("output.boxes.grid.heads", name)
            for each in heads
            for name in (each.scores, each.distances)
        ]
    return [(f"output.{read.type.lower()}.tensor", read.tensor)]


def _sources_of_grid(read: Any) -> list[str]:
    if isinstance(read, BoxesOutput) and isinstance(read.decode, GridBoxes):
        return [each.distances for each in read.decode.heads]
    return []


def _shown(tensor: Tensor) -> str:
    return f"[{', '.join(str(size) if size else 'any' for size in tensor.shape)}]"
