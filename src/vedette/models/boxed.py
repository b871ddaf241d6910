"""A process in a box that makes a model of a model: started, told, listened to, and ended.

Owns: its environment, what it may use, and what becomes of its words. Must not: import numpy, onnx or onnxruntime: that
process does (`boxed_process`), and ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vedette.errors import CATALOGUE, ConfigError, UnavailableError, VedetteError, error_from_dict

_PASSED_ON: Final = ("PATH", "LANG", "TZ")
_MOST_LINE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What the process may use; there is no bound on time but that of its processor time."""

    memory_bytes: int = 16 << 30
    cpu_seconds: int = 4 * 3600


@dataclass(frozen=True, slots=True)
class Task:
    """Which module makes it, and the codes for what it could not, and for an end without a word."""

    module: str
    failed: str
    ended: str

    def program(self) -> tuple[str, ...]:
        """How it is started."""
        return (sys.executable, "-P", "-m", self.module)


def run(
    task: Task,
    wanted: dict[str, Any],
    limits: Limits,
    progress: Callable[[str], None] = lambda step: None,
    program: Sequence[str] | None = None,
) -> dict[str, Any]:
    """What came of it. `wanted` has the `folder` that it may write to and the files that it `reads`.

    Raises `VedetteError` as the process says it, box_refused among them; `UnavailableError` with `task.ended`.
    """
    folder = wanted["folder"]
    wanted |= {"memoryBytes": limits.memory_bytes, "cpuSeconds": limits.cpu_seconds}
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= {"HOME": folder, "TMPDIR": folder, "ORT_DISABLE_TELEMETRY": "1"}
    with subprocess.Popen(
        program or task.program(),
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
                said = _said(line, task)
                if "error" in said:
                    raise _refusal(said["error"], task)
                if "done" in said:
                    return dict(said["done"])
                progress(str(said.get("step", "")))
            raise _ended(process.wait(), task)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


def _said(line: bytes, task: Task) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise UnavailableError(task.ended, "it said what nobody understands")
    return said


def _refusal(error: Any, task: Task) -> VedetteError:
    if isinstance(error, dict) and error.get("code") in CATALOGUE:
        return error_from_dict(error)
    return ConfigError(task.failed, str(error)[:2_000])


def _ended(status: int, task: Task) -> UnavailableError:
    how = f"was stopped by signal {-status}" if status < 0 else f"ended with status {status}"
    return UnavailableError(task.ended, f"the process {how} and gave no reason")


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
