"""Asking what goes into a model and comes out of it, in a process that ends.

Owns: starting that process, its wall clock, how much of what it says is read, and what its end means. The process puts
itself into the sandbox of a worker before it reads the file, which may be hostile. Must not: load the model here, or
import the runtime.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from vedette.config.model import Model, build
from vedette.config.served import ModelFormat, Tensor
from vedette.errors import CATALOGUE, ConfigError, UnavailableError, VedetteError, error_from_dict

PROGRAM: Final = (sys.executable, "-P", "-m", "vedette.models.inspect")
VARIABLE: Final = "VEDETTE_MODEL"
_MOST_SAID: Final = 4 << 20  # 512 tensors with names of 256 characters are less than 1 MB
_CODES: Final = {
    "confinement_refused": "inspection_failed",
    "model_reaches_out": "model_reaches_outside",
    "runtime_too_old": "runtime_invalid",
}
"""Codes of crates/models that are called otherwise here; whatever is in no catalogue is model_invalid."""
_LARGE: Final = (
    "Looking at it may take four times its size in memory, and at least 2 GiB: see what the machine has left "
    "(free -h), or quantise the model."
)
_SLOW: Final = "Try again when the machine has less to do, or make the model smaller."
_HINTS: Final = {"model_out_of_memory": _LARGE, "model_too_slow": _SLOW}
_PASSED_ON: Final = ("PATH", "LANG", "TZ", "TMPDIR")


class Inspected(Model):
    """What a model takes and gives, as the runtime sees it."""

    inputs: tuple[Tensor, ...] = Field(min_length=1, max_length=256, description="What it takes.")
    outputs: tuple[Tensor, ...] = Field(min_length=1, max_length=256, description="What it gives.")
    load_millis: float = Field(ge=0, description="How long loading took, in milliseconds.")
    runtime: str = Field(
        max_length=128, description="What loaded it, such as `onnxruntime 1.31.1`."
    )


@dataclass(frozen=True, slots=True)
class InspectionLimits:
    """What loading one model may use; the memory is that of a worker unless its manifest says otherwise."""

    memory_bytes: int = 2 << 30
    run_millis: int = 60_000
    wall_seconds: float = 120.0


def inspect_model(
    file: Path,
    format_: ModelFormat,
    library: Path,
    limits: InspectionLimits | None = None,
    program: Sequence[str] = PROGRAM,
) -> Inspected:
    """What the model in `file` takes and gives; `library` is the runtime.

    Raises `ConfigError` with the worker's code (model_invalid, model_reaches_outside, …), or model_invalid when it
    takes too long, needs too much memory or ends the process; `UnavailableError` inspection_failed when the process
    says nothing that makes sense.
    """
    limits = limits or InspectionLimits()
    wanted = {
        "file": str(file),
        "format": format_,
        "library": str(library),
        "memoryBytes": limits.memory_bytes,
        "runMillis": limits.run_millis,
    }
    said, status = _run(program, json.dumps(wanted), limits.wall_seconds)
    line = said.split(b"\n", 1)[0]
    try:
        answer = json.loads(line)
    except ValueError:
        raise _ended(status) from None
    if not isinstance(answer, dict):
        raise UnavailableError("inspection_failed", "the inspection gave no answer")
    if "error" in answer:
        raise _refusal(answer["error"])
    return build(Inspected, answer, code="model_invalid")


def _run(program: Sequence[str], wanted: str, seconds: float) -> tuple[bytes, int]:
    """What the process says on stdout, and how it ended. What it says beside that goes nowhere: it is hostile's."""
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= {
        "HOME": "/nonexistent",
        "ORT_DISABLE_TELEMETRY": "1",
        VARIABLE: wanted,
    }
    with subprocess.Popen(
        program,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            said = _read(process, time.monotonic() + seconds, seconds)
            return said, process.wait(timeout=10.0)
        except subprocess.TimeoutExpired:
            raise ConfigError("model_invalid", "its inspection said all and did not end") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


def _read(process: subprocess.Popen[bytes], deadline: float, seconds: float) -> bytes:
    assert process.stdout is not None
    said = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                message = f"loading it took more than {seconds:g} s"
                raise ConfigError("model_invalid", message, _SLOW)
            chunk = os.read(process.stdout.fileno(), 65_536)
            if not chunk:
                return bytes(said)
            said += chunk
            if len(said) > _MOST_SAID:
                raise UnavailableError("inspection_failed", "the inspection said too much")


def _refusal(error: Any) -> VedetteError:
    """The worker's own words. What it says is a hostile file's at worst, so it is shortened and is never a hint."""
    code, message = "model_invalid", "the runtime refused it"
    if isinstance(error, dict):
        code, message = str(error.get("code")), str(error.get("message"))[:2_000]
    hint = _HINTS.get(code)
    code = _CODES.get(code, code)
    if code in CATALOGUE:
        return error_from_dict({"code": code, "message": message})
    return ConfigError("model_invalid", message, hint)


def _ended(status: int) -> VedetteError:
    if status < 0:
        message = f"loading it was stopped by signal {-status}: it needs too much memory, or crashed the runtime"
        return ConfigError("model_invalid", message, _LARGE)
    return UnavailableError("inspection_failed", f"the inspection ended with status {status}")
