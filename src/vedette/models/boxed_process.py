"""What a process in a box does first and last: the box, and the words that `boxed` hears.

Owns: the box that it is in before it imports anything that parses a model (no network, no file but those named, its own
folder to write). It says a line of JSON for each step, and at last `{"done": …}` or `{"error": …}`. Must not: know what
is made.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import site
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from vedette.errors import ConfigError, UnavailableError, VedetteError

MOST_WORDS: Final = 500
_SYSTEM: Final = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache"),
    *(
        "/proc/self",
        "/proc/cpuinfo",
        "/proc/meminfo",
        "/sys/devices/system",
        "/dev/null",
        "/dev/urandom",
    ),
)


def serve(make: Callable[[dict[str, Any]], dict[str, Any]], failed: str) -> int:
    """Reads what is wanted from standard input, enters the box, and says what came of it. Exit code 0 in both cases."""
    wanted = json.loads(sys.stdin.buffer.read())
    try:
        _enter(wanted)
        _write({"done": make(wanted)})
    except VedetteError as error:
        _write({"error": error.to_dict()})
    except MemoryError:
        message = f"it needs more than {wanted['memoryBytes']:,} bytes of memory"
        _write({"error": ConfigError(failed, message).to_dict()})
    except Exception as error:  # noqa: BLE001 (what these libraries raise is no family: told, never passed over)
        message = f"{type(error).__name__}: {words_of(error)}"
        _write({"error": ConfigError(failed, message).to_dict()})
    return 0


def say(step: str) -> None:
    """What is being done."""
    _write({"step": step})


def words_of(error: BaseException) -> str:
    """What a library says, on a line."""
    return " ".join(str(error).split())[:MOST_WORDS]


def require(packages: Sequence[str], what: str) -> None:
    """Raises `ConfigError` tool_missing."""
    for name in packages:
        try:
            importlib.import_module(name)
        except ImportError as error:
            hint = f"Install what {what} models: pip install 'vedette[quantize]'"
            message = f"the package {name} is not installed ({error})"
            raise ConfigError("tool_missing", message, hint) from None


def _write(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _enter(wanted: dict[str, Any]) -> None:
    """Limits first, then no network, then no files. Raises `UnavailableError` box_refused."""
    os.nice(5)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    seconds = wanted["cpuSeconds"]
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
    resource.setrlimit(resource.RLIMIT_DATA, (wanted["memoryBytes"], wanted["memoryBytes"]))
    try:
        from vedette.engine import _native
    except ImportError as error:
        message = f"the native engine is not built: {error}"
        raise UnavailableError("box_refused", message) from None
    python = {sys.prefix, sys.base_prefix, *sys.path, *sysconfig.get_paths().values()}
    python |= {*site.getsitepackages(), str(Path(sys.executable).resolve())}
    files = {
        "read": [*_SYSTEM, *sorted(filter(None, python)), *wanted["reads"]],
        "write": [wanted["folder"]],
    }
    try:
        _native.isolate()
        _native.confine(json.dumps(files).encode())
    except ValueError as error:
        raise UnavailableError("box_refused", str(error)[:MOST_WORDS]) from None
