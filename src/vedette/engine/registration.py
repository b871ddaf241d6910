"""A listening socket that the engine serves for somebody else, for as long as that one is there (ADR 0041).

Owns: handing the socket over on `engine.sock`, and doing so again with the next engine when one goes. Must not: make
the socket, or know what is asked through it.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vedette.errors import UnavailableError

_PATIENCE: Final = 10.0  # seconds for the engine to answer
_AGAIN: Final = 0.2  # seconds between two tries to register
_ASKED_AGAIN: Final = 1.0  # after the engine has said no
_SURE: Final = (
    3  # times in a row that the engine says it is over: one that starts has no snapshot yet
)
_QUIET: Final = 0.1  # seconds without an answer after which the engine that there was has gone
_STARTING: Final = "no worker takes it"
_LONGEST: Final = 64 * 1024  # bytes of its answer

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wish:
    """For whom the socket is: `says` is what the engine reads, `refused` the code of the error when it says no, `over`
    the engine's sentence after which asking again is of no use.
    """

    engine_socket: Path
    says: Mapping[str, Any]
    refused: str
    over: str | None = None


def _ignore(*_: Any) -> None:
    """What nobody wants to hear."""


class Registration:
    """The engine serves a socket for as long as this lasts; also the next engine, when one goes.

    `on_line` hears what the engine tells, `on_turn` why the socket is not served any more, and None when it is again,
    `on_over` that it will not be; all on one thread that is not the caller's. Raises `UnavailableError` engine_away, or
    with the code of the wish.
    """

    def __init__(
        self,
        wish: Wish,
        listener: socket.socket,
        on_line: Callable[[Line], None] = _ignore,
        on_turn: Callable[[str | None], None] = _ignore,
        on_over: Callable[[], None] = _ignore,
    ) -> None:
        self._wish = wish
        self._listener = listener
        self._on_line = on_line
        self._on_turn = on_turn
        self._on_over = on_over
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._connection = self._register()
        self._thread = threading.Thread(target=self._last, name="registration", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """What came through the socket is cut. Returns when everything that the engine told has been passed on."""
        with self._lock:
            self._over.set()
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_WR)
        self._thread.join(_PATIENCE)
        self._connection.close()
        self._listener.close()

    def _register(self, unanswered: Callable[[], None] = _ignore) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_PATIENCE)
            connection.connect(str(self._wish.engine_socket))
            line = b"\0" + json.dumps(dict(self._wish.says)).encode() + b"\n"
            socket.send_fds(connection, [line], [self._listener.fileno()])
            if not select.select([connection], [], [], _QUIET)[0]:
                unanswered()  # the supervisor's socket is there also while no engine is
            answer = json.loads(_line(connection))
            if not isinstance(answer, dict):
                raise ValueError("its answer is no object")
        except (OSError, ValueError) as error:
            connection.close()
            raise UnavailableError("engine_away", f"the engine does not answer: {error}") from error
        if "error" in answer:
            connection.close()
            raise _RefusedError(self._wish.refused, answer["error"])
        connection.settimeout(None)
        return connection

    def _last(self) -> None:
        while True:
            with contextlib.suppress(OSError), self._connection.makefile("rb") as lines:
                for line in lines:
                    self._tell(line)
            if self._over.is_set():
                return
            self._connection.close()
            if not self._find_next():
                return

    def _find_next(self) -> bool:
        """Registers with the next engine; False when this ends first, or it is over. Meanwhile connections wait in the
        socket's queue: nobody sees one refused.
        """
        pause, over, told = 0.0, 0, _Told(self._on_turn)
        while not self._over.wait(pause):
            try:
                connection = self._register(told.gone)
            except _RefusedError as error:
                pause = _ASKED_AGAIN
                over = over + 1 if error.sentence == self._wish.over else 0
                if over == _SURE:
                    self._on_over()
                    return False
                if error.sentence not in (self._wish.over, _STARTING):
                    told.tell(error.message)
                continue
            except UnavailableError:
                pause, over = _AGAIN, 0
                told.gone()
                continue
            with self._lock:
                self._connection = connection
                if self._over.is_set():
                    connection.shutdown(socket.SHUT_WR)
            told.served()
            return True
        return False

    def _tell(self, line: bytes) -> None:
        try:
            self._on_line(json.loads(line))
        except ValueError:
            print("vedette: a line of the engine could not be read", file=sys.stderr)


class _RefusedError(UnavailableError):
    """The engine is there and says no, in this sentence."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(code, f"the engine refuses: {sentence}")
        self.sentence = sentence


class _Told:
    """What was said of one time without an engine, each thing once."""

    def __init__(self, on_turn: Callable[[str | None], None]) -> None:
        self._on_turn = on_turn
        self._said: str | None = None

    def gone(self) -> None:
        """Nobody answers."""
        self.tell("the engine has gone")

    def tell(self, why: str) -> None:
        """The socket is not served, and why."""
        if why != self._said:
            self._said = why
            self._on_turn(why)

    def served(self) -> None:
        """It is again, by the next engine: however quick that was, what was open has been cut."""
        if self._said is None:
            self.gone()
        self._on_turn(None)


def _line(connection: socket.socket) -> bytes:
    """The first line; what follows stays in the socket."""
    line = b""
    deadline = time.monotonic() + _PATIENCE
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte or time.monotonic() > deadline:
            raise OSError("it closed the connection")
        if len(line) > _LONGEST:
            raise OSError("its answer is too long")
        line += byte
    return line
