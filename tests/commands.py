"""Runs Python programs, such as the command `vedette`, as processes of their own that begin with its modules loaded.

Most of what a command costs is Python's start and its imports, and the tests run a thousand commands. So a keeper, a
process of one thread, has imported them; each command is a fork of it that runs the program's own file to its end.

Owns: the keeper, and what is a command's own: arguments, environment, folder, standard files, exit code. Must not: be
used where the start itself is tested: `vedette up` and the commands in documents are started as a person would.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

_LOADED = ("vedette.cli", "vedette.config", "vedette.functions")
_MOST = 1 << 17  # bytes of one message


def run(
    command: Sequence[str], timeout: float, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` that captures text, with nothing on stdin. `command` begins with the program's file."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with (
        ours,
        Path(os.devnull).open("rb") as nothing,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
    ):
        with theirs:
            told = [[*command], environment or {**os.environ}, str(Path.cwd())]
            files = [file.fileno() for file in (theirs, nothing, stdout, stderr)]
            socket.send_fds(_keeper(), [json.dumps(told).encode()], files)
        code = _exit_code(ours, command, timeout)
        return subprocess.CompletedProcess([*command], code, _text(stdout), _text(stderr))


def _exit_code(told: socket.socket, command: Sequence[str], timeout: float) -> int:
    process = int(told.recv(_MOST))
    told.settimeout(timeout)
    try:
        said = told.recv(_MOST)
    except TimeoutError:
        os.kill(process, signal.SIGKILL)
        raise subprocess.TimeoutExpired([*command], timeout) from None
    return int(said) if said else 1  # it was killed, or an exception is on stderr


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


@functools.cache
def _keeper() -> socket.socket:
    """Where this process's keeper takes commands; it ends when this is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, __file__, str(theirs.fileno())]
        nowhere = subprocess.DEVNULL
        subprocess.Popen(command, stdin=nowhere, stdout=nowhere, pass_fds=[theirs.fileno()])
    return ours


def _keep(asked: socket.socket) -> None:
    for name in _LOADED:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            importlib.import_module(module.name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    while True:
        message, files, _, _ = socket.recv_fds(asked, _MOST, 4)
        if not message:
            return
        if os.fork() == 0:
            asked.close()
            os._exit(_become(*json.loads(message), *files))
        for file in files:
            os.close(file)


def _become(
    command: list[str], environment: dict[str, str], folder: str, teller: int, *standard: int
) -> int:
    """Runs the command in this process, and tells its exit code, which nobody can ask for."""
    told = socket.socket(fileno=teller)
    told.send(str(os.getpid()).encode())
    for number, file in enumerate(standard):
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    code = _exit_code_of(command)
    sys.stdout.flush()
    sys.stderr.flush()
    told.send(str(code).encode())
    return code


def _exit_code_of(command: list[str]) -> int:
    sys.argv = command
    sys.path[0] = str(Path(command[0]).parent)
    try:
        runpy.run_path(command[0], run_name="__main__")
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as _asked:
        _keep(_asked)
