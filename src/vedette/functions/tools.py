"""Running a build's programs: their words as they come, their end whatever happens here.

Owns: starting a program in a group of its own, and ending that group when the build is broken off
(Ctrl-C), so that nothing goes on writing behind our back. Must not: know a language, or use a shell.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from vedette.errors import ConfigError

Report = Callable[[str, int, int | None], None]

_KEPT_LINES: Final = 60
_MAX_LINE: Final = 2_000
_GRACE: Final = 3.0  # seconds between asking a broken-off program to end and ending it


def require_tool(name: str, hint: str) -> str:
    """The path of a program. Raises `ConfigError` tool_missing with `hint`."""
    found = shutil.which(name)
    if found is None:
        raise ConfigError("tool_missing", f"{name} is not installed", hint)
    return found


def run_step(
    command: Sequence[str],
    folder: Path,
    on_line: Callable[[str], None],
    environment: Mapping[str, str] | None = None,
) -> None:
    """Runs a program in `folder` and gives each line it says to `on_line`.

    Raises `ConfigError` tool_missing, or build_failed with the last lines.
    """
    kept: deque[str] = deque(maxlen=_KEPT_LINES)
    with started(command, folder, environment, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip()[:_MAX_LINE]
            if line:
                kept.append(line)
                on_line(line)
    if process.returncode != 0:
        told = "\n".join(kept)
        name = Path(command[0]).name
        raise ConfigError("build_failed", f"{name} ended with {process.returncode}\n{told}".strip())


@contextlib.contextmanager
def started(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A running program whose stdout is a pipe; it has ended when the block is left.

    Raises `ConfigError` tool_missing.
    """
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=None if environment is None else {**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
    except OSError as error:
        raise ConfigError("tool_missing", f"cannot run {command[0]}: {error.strerror}") from None
    with process:
        try:
            yield process
        except BaseException:
            _end(process)
            raise


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
