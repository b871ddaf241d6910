"""Runs a program in a box: a network of its own in which nothing answers but the engine's broker and the Workload API.

Owns: the order of a start (namespaces, the listening sockets in them, their registration with the engine, files and
system calls, the program). Must not: decide where the program may
go; the engine does, at each call.

The program's process is a fork of this one: it makes the namespaces and the sockets, hands them to this process,
waits for the engine to have one of them, takes from itself what leads out, and becomes the program. This process stays
outside and holds the connection that the registration lasts as long as.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vedette.engine.box_relay import Relay
from vedette.engine.registration import Line, Registration, Wish
from vedette.errors import ConfigError, UnavailableError, VedetteError

PROXY_PORT: Final = 3128
"""Where the broker is reached in every box; nobody else is in there to take the port."""
WORKLOAD_PORT: Final = 3129
"""Where the Workload API is."""
NOT_FOUND: Final = 127
NOT_RUN: Final = 126
_BACKLOG: Final = 128
_FORWARDED: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)

Refusal = Line
"""The record of a call that was refused, or let go to be reported, as the engine writes it."""


@dataclass(frozen=True, slots=True)
class Box:
    """What to run, and what it may touch. `read` and `write` are files and folders."""

    workload: str
    command: Sequence[str]
    engine_socket: Path
    read: Sequence[Path]
    write: Sequence[Path]
    environment: Mapping[str, str]
    find_workload_api: Callable[[], Path]
    """Opens the Workload API for this box, and says where it is."""
    reports: bool = False


def run(box: Box, on_refusal: Callable[[Refusal], None]) -> int:
    """Runs the program to its end and returns its exit status, as a shell counts it (128 and a signal's number).

    `on_refusal` is called on a thread of its own. Raises `UnavailableError` engine_away, box_refused, `ConfigError`
    command_not_found.
    """
    from vedette.engine import (
        _native,
    )  # before the fork: inside there may be no file to load it from

    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        _become(box, theirs, _native)
    theirs.close()
    waiting = _Signals(child)
    try:
        with ours:
            gate, workload_api = _sockets_of(ours)
            says = {"workload": box.workload, "report": box.reports}
            wish = Wish(box.engine_socket, says, "box_refused")
            registration = Registration(wish, gate, on_refusal)
            relay = Relay(workload_api, box.find_workload_api)
            ours.sendall(b"go")
            _require_begun(box, ours)
        return _end_of(child)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        _end_of(child)
        raise
    finally:
        waiting.restore()
        with contextlib.suppress(UnboundLocalError):
            registration.end()
            relay.end()


def _become(box: Box, outside: socket.socket, native: Any) -> None:
    """In the fork: never returns."""
    status = NOT_RUN
    try:
        try:
            native.isolate()
            with _listening(PROXY_PORT) as gate, _listening(WORKLOAD_PORT) as workload_api:
                descriptors = [gate.fileno(), workload_api.fileno()]
                socket.send_fds(outside, [b"sockets"], descriptors)
            if outside.recv(16) != b"go":
                os._exit(status)
            files = {"read": [*map(str, box.read)], "write": [*map(str, box.write)]}
            native.seal(json.dumps(files["write"]).encode())
            native.confine(json.dumps(files).encode())
            for number in (signal.SIGPIPE, signal.SIGINT, *_FORWARDED):
                signal.signal(number, signal.SIG_DFL)
            os.execvpe(box.command[0], list(box.command), dict(box.environment))
        except FileNotFoundError as error:
            status, why = NOT_FOUND, {"code": "command_not_found", "message": str(error)}
        except OSError as error:
            why = {"code": "command_not_run", "message": str(error)}
        except ValueError as error:
            why = json.loads(str(error))
        outside.sendall(json.dumps(why).encode())
    finally:
        os._exit(status)


def _listening(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.bind(("127.0.0.1", port))
    made.listen(_BACKLOG)
    return made


def _sockets_of(inside: socket.socket) -> tuple[socket.socket, socket.socket]:
    said, descriptors, _, _ = socket.recv_fds(inside, 4096, 2)
    if len(descriptors) != 2:
        raise _refused(said)
    gate, workload_api = (socket.socket(fileno=number) for number in descriptors)
    return gate, workload_api


def _require_begun(box: Box, inside: socket.socket) -> None:
    """Returns when the program runs: its process closes the socket as it becomes the program."""
    said = inside.recv(4096)
    if said:
        raise _refused(said, box.command[0])


def _refused(said: bytes, command: str = "") -> VedetteError:
    why = json.loads(said) if said else {"code": "box_refused", "message": "it ended at once"}
    if why["code"] == "command_not_found":
        return ConfigError("command_not_found", f"{command}: there is no such program in the box")
    if why["code"] == "command_not_run":
        return ConfigError("command_not_run", f"{command}: {why['message']}")
    return UnavailableError("box_refused", f"the program was not started: {why['message']}")


def _end_of(child: int) -> int:
    while True:
        with contextlib.suppress(InterruptedError):
            _, status = os.waitpid(child, 0)
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


class _Signals:
    """What is sent to this process is meant for the program. Ctrl-C reaches both by itself."""

    def __init__(self, child: int) -> None:
        self._before = {number: signal.getsignal(number) for number in (*_FORWARDED, signal.SIGINT)}
        for number in _FORWARDED:
            signal.signal(number, lambda number, _: self._forward(child, number))
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    @staticmethod
    def _forward(child: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    def restore(self) -> None:
        """As it was before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
