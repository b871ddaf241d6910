"""An engine's socket that takes registrations, which can go and come back."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.simulators.registrar import Registrar

SECONDS = 30.0


class Engine:
    """An engine's socket with a registrar behind it, which can go and come back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.registrar = Registrar()
        self._listener: socket.socket | None = None

    def come(self) -> None:
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen()
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve_one, args=(connection,), daemon=True).start()

    def _serve_one(self, connection: socket.socket) -> None:
        with connection:
            self.registrar.serve(connection)

    def go(self) -> None:
        assert self._listener is not None
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.registrar.drop()


@pytest.fixture
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = Engine(tmp_path_factory.mktemp("e") / "engine.sock")
    made.come()
    yield made
    with contextlib.suppress(OSError):
        made.go()


def asked(address: tuple[str, int]) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{address[1]}/", timeout=SECONDS) as answer:
        return bytes(answer.read())
