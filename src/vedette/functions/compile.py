"""Compiling components to machine code, on this node, in a process of its own.

Owns: starting that process, its wall clock, and what its end means. The process limits its own
memory and CPU time before it reads the component; wasmtime does not count slow or hungry
compilation as a defect, so we bound it (see wasmtime's "What is considered a security
vulnerability"). Must not: load the native module; the process named in `PROGRAM` does, which
belongs to a floor above.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vedette.errors import CATALOGUE, ConfigError, VedetteError, error_from_dict

PROGRAM: Final = (sys.executable, "-P", "-m", "vedette.engine.precompile")
_LIMIT_SIGNALS: Final = {signal.SIGXCPU, signal.SIGKILL, signal.SIGABRT}
_MAX_STDERR: Final = 65_536


@dataclass(frozen=True, slots=True)
class CompileLimits:
    """What compiling one component may use.

    Measured: 1.3 s of CPU and 25 MB for each MB of a component that carries CPython or SpiderMonkey,
    so the largest that is admitted takes 84 s here. The limits leave room for a slower, busier machine.
    """

    memory_bytes: int = 4 << 30
    cpu_seconds: int = 300
    wall_seconds: float = 420.0


@dataclass(frozen=True, slots=True)
class CompileResult:
    """The machine code's file, whether it was there already, and how long it took."""

    output: Path
    cached: bool
    seconds: float


def compile_component(
    component: Path,
    output: Path,
    limits: CompileLimits | None = None,
    program: Sequence[str] = PROGRAM,
) -> CompileResult:
    """Compiles `component` into `output` (`Home.compiled_file`), unless it is there.

    The file appears whole or not at all. Raises `ConfigError` with the compiler's code
    (import_missing, export_missing, not_a_component, compile_failed) or compile_limit.
    """
    if output.is_file():
        return CompileResult(output, True, 0.0)
    limits = limits or CompileLimits()
    output.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    started = time.monotonic()
    command = [
        *program,
        f"--memory-bytes={limits.memory_bytes}",
        f"--cpu-seconds={limits.cpu_seconds}",
        str(component),
        str(output),
    ]
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=limits.wall_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(
            "compile_limit", f"compiling took more than {limits.wall_seconds:g} s"
        ) from None
    if ended.returncode != 0:
        raise _explain(ended.returncode, ended.stderr[-_MAX_STDERR:], limits)
    if not output.is_file():
        raise ConfigError("compile_failed", "the compiler ended without writing its output")
    return CompileResult(output, False, time.monotonic() - started)


def _explain(returncode: int, stderr: bytes, limits: CompileLimits) -> VedetteError:
    lines = stderr.decode(errors="replace").strip().splitlines()
    if returncode == 1 and lines:
        try:
            body = json.loads(lines[-1])
            if body["code"] in CATALOGUE:
                return error_from_dict(body)
            return ConfigError("compile_failed", f"{body['message']} ({body['code']})")
        except (ValueError, KeyError, TypeError):
            pass
    if returncode < 0 and -returncode in _LIMIT_SIGNALS:
        return ConfigError(
            "compile_limit",
            f"compiling was stopped by signal {-returncode}: more than {limits.cpu_seconds} s of CPU "
            f"time or {limits.memory_bytes >> 20} MB of memory",
        )
    last = lines[-1] if lines else "no message"
    return ConfigError("compile_failed", f"the compiler failed (status {returncode}): {last}")
