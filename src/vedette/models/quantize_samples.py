"""Samples of people for a model: arrays of numpy by the names of its inputs, perhaps with labels.

Owns: what a file of samples may be. Must not: run a model, or unpickle (`allow_pickle` is off, with which numpy
would run code). Imports numpy: only in a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from vedette.errors import ConfigError

LABELS: Final = "labels"
"""The array of a .npz with what is right, unless an input of the model is called so."""
_MOST_SAMPLES: Final = 1_000_000
_MOST_BYTES: Final = 8 << 30
_HINT: Final = (
    "Give a .npz with an array for each input (numpy.savez), the first dimension of which counts samples, "
    "or a .npy for a model of one input."
)

Array = np.ndarray[Any, Any]


class Samples:
    """Inputs of a model, sample by sample; also what `onnxruntime.quantization` calls a CalibrationDataReader."""

    def __init__(
        self, inputs: Mapping[str, Array], labels: Array | None, batch: int | None
    ) -> None:
        """`batch`: how many samples the model takes at once; None: as many as one likes, and it gets one."""
        self.inputs = inputs
        self.labels = labels
        self.batch = batch or 1
        first = next(iter(inputs.values()))
        self.count = len(first)
        self._feeds = iter(self)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        """Inputs for one run after the other; what does not fill a batch is left out."""
        for start in range(0, self.count - self.batch + 1, self.batch):
            yield {
                name: np.ascontiguousarray(array[start : start + self.batch])
                for name, array in self.inputs.items()
            }

    def get_next(self) -> dict[str, Array] | None:
        """The inputs of the next run; None: there are no more."""
        return next(self._feeds, None)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Asked for by onnxruntime only for strides, which are not used."""
        raise NotImplementedError


def read_samples(
    files: Sequence[str], inputs: Mapping[str, tuple[str, Sequence[Any]]]
) -> Samples | None:
    """What the files hold, one after the other; None without files. `inputs`: numpy's type and the shape of each.

    Raises `ConfigError` samples_invalid.
    """
    if not files:
        return None
    parts = [_read(Path(each), inputs) for each in files]
    whole = {}
    for name in inputs:
        try:
            whole[name] = np.concatenate([part[name] for part in parts])
        except ValueError as error:
            raise _wrong(f"samples of {name!r} do not fit each other: {error}") from None
    labels = None
    if LABELS not in inputs and all(LABELS in part for part in parts):
        labels = np.concatenate([part[LABELS] for part in parts])
    counts = {len(array) for array in whole.values()} | (
        {len(labels)} if labels is not None else set()
    )
    if len(counts) != 1:
        raise _wrong(
            f"there are {' and '.join(map(str, sorted(counts)))} samples of the same thing"
        )
    if not 1 <= (count := counts.pop()) <= _MOST_SAMPLES:
        raise _wrong(f"there are {count:,} samples; 1 to {_MOST_SAMPLES:,} are taken")
    batches = {
        shape[0]
        for _, shape in inputs.values()
        if shape and isinstance(shape[0], int) and shape[0] > 0
    }
    batch = max(batches, default=None)
    if batch is not None and count < batch:
        raise _wrong(f"there are {count} samples, and the model takes {batch} at once")
    return Samples(whole, labels, batch)


def _read(file: Path, inputs: Mapping[str, tuple[str, Sequence[Any]]]) -> dict[str, Array]:
    if file.stat().st_size > _MOST_BYTES:
        raise _wrong(f"{file.name} has more than {_MOST_BYTES:,} bytes")
    try:
        loaded = np.load(file, allow_pickle=False)
        arrays = {next(iter(inputs)): loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except (OSError, ValueError, EOFError) as error:
        raise _wrong(f"{file.name} is no .npy or .npz of plain numbers: {error}") from None
    missing = [name for name in inputs if name not in arrays]
    if missing:
        has = ", ".join(sorted(arrays)) or "none"
        raise _wrong(f"{file.name} has no array {missing[0]!r}; it has {has}")
    return {name: _fitting(file, name, array, inputs.get(name)) for name, array in arrays.items()}


def _fitting(
    file: Path, name: str, array: Array, wanted: tuple[str, Sequence[Any]] | None
) -> Array:
    """The array with the type that the model takes. Raises `ConfigError` samples_invalid."""
    if wanted is None:
        return array
    kind, shape = wanted
    if array.ndim != len(shape):
        shown = "x".join(str(each) for each in shape)
        raise _wrong(
            f"{name!r} in {file.name} has {array.ndim} dimensions; the model takes {shown}"
        )
    for at, (has, takes) in enumerate(zip(array.shape, shape, strict=True)):
        if at and isinstance(takes, int) and takes > 0 and has != takes:
            raise _wrong(
                f"{name!r} in {file.name} has {has} elements in dimension {at}; the model takes {takes}"
            )
    if not np.can_cast(array.dtype, kind, casting="same_kind"):
        raise _wrong(f"{name!r} in {file.name} is {array.dtype}; the model takes {kind}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise _wrong(f"{name!r} in {file.name} has elements that are no numbers (NaN or infinity)")
    return array.astype(kind)


def _wrong(message: str) -> ConfigError:
    return ConfigError("samples_invalid", message, _HINT)
