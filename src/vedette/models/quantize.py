"""INT8 models of models: the process that makes one, started and listened to.

Owns: what the process is told, its environment and its end, and the refusal of a result that lost too much. Must
not: import numpy, onnx or onnxruntime: that process does (`quantize_process`), in a box, and ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vedette.errors import CATALOGUE, ConfigError, UnavailableError, VedetteError, error_from_dict

PROGRAM: Final = (sys.executable, "-P", "-m", "vedette.models.quantize_process")
_PASSED_ON: Final = ("PATH", "LANG", "TZ")
_MOST_LINE: Final = 1 << 20
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
class Limits:
    """What the process may use; there is no bound on time but that of its processor time."""

    memory_bytes: int = 16 << 30
    cpu_seconds: int = 4 * 3600


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
    program: Sequence[str] = PROGRAM,
) -> Iterator[Quantized]:
    """Makes an INT8 model; `progress` hears what is being done.

    Raises `ConfigError` model_accuracy when it lost more than it may, model_quantize_failed, tool_missing,
    samples_invalid, model_missing; `UnavailableError` box_refused, quantize_ended.
    """
    files = [str(each) for each in (wish.model.resolve(), *_files(wish))]
    with tempfile.TemporaryDirectory(prefix="vedette-quantize-") as folder:
        limits = limits or Limits()
        told = _run(
            program,
            {
                "model": str(wish.model.resolve()),
                "calibration": [str(each) for each in _listed(wish.calibration)],
                "samples": [str(each) for each in _listed(wish.samples)],
                "excluded": list(wish.excluded),
                "output": wish.output,
                "folder": folder,
                "reads": files,
                "memoryBytes": limits.memory_bytes,
                "cpuSeconds": limits.cpu_seconds,
            },
            folder,
            progress,
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


def _run(
    program: Sequence[str], wanted: dict[str, Any], folder: str, progress: Callable[[str], None]
) -> dict[str, Any]:
    """Lines of JSON as they come: steps, and at last what came of it."""
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= {"HOME": folder, "TMPDIR": folder, "ORT_DISABLE_TELEMETRY": "1"}
    with subprocess.Popen(
        program,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd=folder,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(json.dumps(wanted).encode())
            while line := process.stdout.readline(_MOST_LINE):
                said = _said(line)
                if "error" in said:
                    raise _refusal(said["error"])
                if "done" in said:
                    return dict(said["done"])
                progress(str(said.get("step", "")))
            raise _ended(process.wait())
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


def _said(line: bytes) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise UnavailableError("quantize_ended", "it said what nobody understands")
    return said


def _refusal(error: Any) -> VedetteError:
    if isinstance(error, dict) and error.get("code") in CATALOGUE:
        return error_from_dict(error)
    return ConfigError("model_quantize_failed", str(error)[:2_000])


def _ended(status: int) -> UnavailableError:
    how = f"was stopped by signal {-status}" if status < 0 else f"ended with status {status}"
    return UnavailableError("quantize_ended", f"the process {how} and gave no reason")


def _require_accuracy(told: dict[str, Any], most_drop: float) -> None:
    measured = told["accuracy"]
    # Outputs that are no numbers any more are worse than any drop.
    if measured is None or measured["drop"] <= most_drop:
        return
    raise ConfigError(
        "model_accuracy",
        f"{measured['sentence']}: {measured['drop']:.2%} is lost, and {most_drop:.2%} may be; nothing was written",
    )


def copy_out(file: Path, out: Path) -> None:
    """Puts the file where it is wanted, whole or not at all. Raises `ConfigError` file_unwritable."""
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        shutil.copyfile(file, beside)
        beside.replace(out)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        message = f"{out}: {error.strerror}"
        raise ConfigError("file_unwritable", message) from None
