"""The client of the engine's socket, against a real HTTP server on a Unix socket."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.simulators.engine import METRICS, UPSTREAMS, EngineSimulator, serve_control

from vedette.engine.client import EngineClient
from vedette.errors import ConfigError, UnavailableError

DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("e") / "s"


@pytest.fixture
def listener(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
        made.listen()
        yield made


def answer_raw(listener: socket.socket, answer: bytes) -> None:
    def run() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    threading.Thread(target=run, daemon=True).start()


def test_status_and_metrics_are_read(path: Path, listener: socket.socket, tmp_path: Path) -> None:
    simulator = EngineSimulator(tmp_path)
    threading.Thread(target=serve_control, args=(listener, simulator), daemon=True).start()
    client = EngineClient(path)
    assert client.status()["error"] is not None
    assert client.metrics() == METRICS
    assert client.upstreams() == UPSTREAMS
    client.reload_tls()
    assert simulator.tls_loads == 1


def test_a_refused_snapshot_is_a_configuration_error_with_the_engines_reason(
    path: Path, listener: socket.socket, tmp_path: Path
) -> None:
    simulator = EngineSimulator(tmp_path)
    threading.Thread(target=serve_control, args=(listener, simulator), daemon=True).start()
    with pytest.raises(ConfigError, match="No such file") as refusal:
        EngineClient(path).apply(DIGEST, 2)
    assert refusal.value.code == "engine_refused"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{}",
    ],
)
def test_an_answer_that_makes_no_sense_is_an_engine_that_is_away(
    path: Path, listener: socket.socket, answer: bytes
) -> None:
    answer_raw(listener, answer)
    with pytest.raises(UnavailableError) as refusal:
        EngineClient(path).status()
    assert refusal.value.code == "engine_away"


@pytest.mark.parametrize("prepare", [lambda path: None, lambda path: path.write_text("")])
def test_no_socket_or_no_listener_is_an_engine_that_is_away(
    path: Path, prepare: Callable[[Path], object]
) -> None:
    prepare(path)
    with pytest.raises(UnavailableError):
        EngineClient(path).status()


def test_an_engine_that_says_nothing_is_given_up_on(path: Path, listener: socket.socket) -> None:
    with pytest.raises(UnavailableError, match="timed out"):
        EngineClient(path, timeout=0.05).status()


def test_apply_sends_digest_and_generation(path: Path, listener: socket.socket) -> None:
    received: list[bytes] = []

    def run() -> None:
        connection, _ = listener.accept()
        with connection:
            data = connection.recv(65536)
            while not data.endswith(b"}"):
                data += connection.recv(65536)
            received.append(data)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")

    thread = threading.Thread(target=run)
    thread.start()
    EngineClient(path).apply(DIGEST, 7)
    thread.join()
    head, _, body = received[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /apply HTTP/1.1")
    assert json.loads(body) == {"digest": DIGEST, "generation": 7}
