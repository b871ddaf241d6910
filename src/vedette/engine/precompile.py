"""The process that compiles one component: `python -m vedette.engine.precompile IN OUT`.

Owns: limiting itself before it touches the component, which may be hostile, and telling its failure
as one line of JSON on stderr. Must not: import more than it needs, or be called inside another
process (`functions.compile` starts it).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from vedette.errors import ConfigError, VedetteError, error_from_dict
from vedette.store.atomic import write_atomic


def main(arguments: Sequence[str] | None = None) -> int:
    """Compiles, and returns the exit status: 0, or 1 with `{"code","message",…}` on stderr."""
    parser = argparse.ArgumentParser(prog="python -m vedette.engine.precompile")
    parser.add_argument("--memory-bytes", type=int, required=True)
    parser.add_argument("--cpu-seconds", type=int, required=True)
    parser.add_argument("component", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args(arguments)
    _limit(options.memory_bytes, options.cpu_seconds)
    try:
        write_atomic(options.output, _compile(options.component.read_bytes()))
    except VedetteError as error:
        return _fail(error)
    except MemoryError:
        return _fail(ConfigError("compile_limit", "compiling used too much memory"))
    return 0


def _limit(memory_bytes: int, cpu_seconds: int) -> None:
    """RLIMIT_DATA counts memory that can be written, not address space: the engine reserves far
    more of that.
    """
    os.nice(5)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))


def _compile(component: bytes) -> bytes:
    from vedette.engine import _native  # after the limits: its threads inherit them

    try:
        return _native.precompile(component)
    except ValueError as error:
        raise _refusal(str(error)) from None


def _refusal(text: str) -> VedetteError:
    try:
        return error_from_dict(json.loads(text))
    except (ValueError, KeyError, TypeError):
        return ConfigError("compile_failed", text)


def _fail(error: VedetteError) -> int:
    print(json.dumps(error.to_dict()), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
