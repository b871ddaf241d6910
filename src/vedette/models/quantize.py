"""INT8 models of models: what the process that makes one is told, and the refusal of a result that lost too much.

Owns: both. Must not: import numpy, onnx or onnxruntime: that process does (`quantize_process`), in a box, and ends.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vedette.errors import ConfigError
from vedette.models import boxed
from vedette.models.boxed import Limits

TASK: Final = boxed.Task(
    "vedette.models.quantize_process", "model_quantize_failed", "quantize_ended"
)
_MOST_FILES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be made of `model`.

    `calibration`: a .npz or .npy file, or a folder of them; without, activations are quantised as they come (dynamic).
    `samples`: what the result is measured on; without, `calibration`. `most_drop`: the part of accuracy that may be
    lost, 0.01 for one per cent. `excluded`: names of nodes that stay as they are.
    """

    model: Path
    calibration: Path | None = None
    samples: Path | None = None
    most_drop: float = 0.01
    excluded: tuple[str, ...] = ()
    output: str | None = None


@dataclass(frozen=True, slots=True)
class Quantized:
    """The file that was made, which is gone when the `with` ends, and what `quantize_process` found out."""

    file: Path
    told: dict[str, Any]


@contextmanager
def quantized(
    wish: Wish,
    progress: Callable[[str], None] = lambda step: None,
    limits: Limits | None = None,
    program: Sequence[str] | None = None,
) -> Iterator[Quantized]:
    """Makes an INT8 model; `progress` hears what is being done.

    Raises `ConfigError` model_accuracy when it lost more than it may, model_quantize_failed, tool_missing,
    samples_invalid, model_missing; `UnavailableError` box_refused, quantize_ended.
    """
    files = [str(each) for each in (wish.model.resolve(), *_files(wish))]
    with tempfile.TemporaryDirectory(prefix="vedette-quantize-") as folder:
        told = boxed.run(
            TASK,
            {
                "model": str(wish.model.resolve()),
                "calibration": [str(each) for each in _listed(wish.calibration)],
                "samples": [str(each) for each in _listed(wish.samples)],
                "excluded": list(wish.excluded),
                "output": wish.output,
                "folder": folder,
                "reads": files,
            },
            limits or Limits(),
            progress,
            program,
        )
        _require_accuracy(told, wish.most_drop)
        yield Quantized(Path(folder, "quantized.onnx"), told)


def _files(wish: Wish) -> list[Path]:
    return [*_listed(wish.calibration), *_listed(wish.samples)]


def _listed(path: Path | None) -> list[Path]:
    """The files that `path` is or holds, by name. Raises `ConfigError` samples_invalid."""
    if path is None:
        return []
    if not path.is_dir():
        if not path.is_file():
            raise ConfigError("samples_invalid", f"there is no file or folder {path}")
        return [path.resolve()]
    found = [each for each in sorted(path.iterdir()) if each.suffix in (".npy", ".npz")]
    if not found or len(found) > _MOST_FILES:
        message = f"{path} holds {len(found):,} files of numpy; 1 to {_MOST_FILES:,} are taken"
        raise ConfigError("samples_invalid", message)
    return [each.resolve() for each in found]


def _require_accuracy(told: dict[str, Any], most_drop: float) -> None:
    measured = told["accuracy"]
    # Outputs that are no numbers any more are worse than any drop.
    if measured is None or measured["drop"] <= most_drop:
        return
    raise ConfigError(
        "model_accuracy",
        f"{measured['sentence']}: {measured['drop']:.2%} is lost, and {most_drop:.2%} may be; nothing was written",
    )
