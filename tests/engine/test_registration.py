"""Sockets that the engine serves for others: handed over, kept, taken back."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from tests.engine.conftest import SECONDS, Engine, asked

from vedette.engine import registration as registration_module
from vedette.engine.registration import Registration, Wish
from vedette.errors import UnavailableError


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    made = socket.create_server(("127.0.0.1", 0))
    yield made
    made.close()


def wish(engine: Engine) -> Wish:
    return Wish(engine.path, {"sidecar": "shop", "side": "inbound"}, "sidecar_not_served")


def test_the_engine_serves_the_socket_until_the_launcher_ends_it(
    engine: Engine, listener: socket.socket
) -> None:
    address = listener.getsockname()
    registration = Registration(wish(engine), listener)
    assert engine.registrar.wishes == [{"sidecar": "shop", "side": "inbound"}]
    assert b'"side": "inbound"' in asked(address)
    registration.end()
    with pytest.raises(OSError, match="refused"):
        asked(address)
    assert engine.registrar.open == []


def test_the_next_engine_is_asked_and_nobody_is_refused_meanwhile(
    engine: Engine, listener: socket.socket
) -> None:
    turns: queue.Queue[str | None] = queue.Queue()
    address = listener.getsockname()
    registration = Registration(wish(engine), listener, on_turn=turns.put)
    engine.go()
    assert turns.get(timeout=SECONDS) == "the engine has gone"
    waiting: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=lambda: waiting.put(asked(address)), daemon=True).start()
    engine.come()
    assert turns.get(timeout=SECONDS) is None
    assert b"inbound" in waiting.get(timeout=SECONDS)
    assert len(engine.registrar.wishes) == 2
    registration.end()


def test_an_engine_that_says_no_later_is_asked_again_and_told_of_once(
    engine: Engine, listener: socket.socket
) -> None:
    turns: queue.Queue[str | None] = queue.Queue()
    registration = Registration(wish(engine), listener, on_turn=turns.put)
    engine.registrar.serve_only({"another"})
    assert turns.get(timeout=SECONDS) == "the engine refuses: there is no sidecar of that name"
    refused = len(engine.registrar.wishes)
    deadline = time.monotonic() + SECONDS
    while len(engine.registrar.wishes) <= refused:  # it asks again without being told to
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert turns.empty()
    engine.registrar.sidecars = None
    assert turns.get(timeout=SECONDS) is None
    registration.end()


def test_it_is_over_when_the_engine_says_so_again_and_again(
    engine: Engine, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration_module, "_ASKED_AGAIN", 0.01)
    turns: queue.Queue[str | None] = queue.Queue()
    over = threading.Event()
    says = {"sidecar": "shop", "side": "inbound"}
    final = Wish(engine.path, says, "sidecar_not_served", "there is no sidecar of that name")
    registration = Registration(final, listener, on_turn=turns.put, on_over=over.set)
    engine.registrar.serve_only({"another"})
    assert over.wait(SECONDS)
    assert turns.empty(), "the engine has not gone"
    assert len(engine.registrar.wishes) == 4, "once in vain may be an engine that starts"
    registration.end()


def test_what_an_engine_that_starts_cannot_do_yet_is_not_told(
    engine: Engine, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration_module, "_ASKED_AGAIN", 0.01)
    turns: queue.Queue[str | None] = queue.Queue()
    registration = Registration(wish(engine), listener, on_turn=turns.put)
    engine.registrar.refusal = "no worker takes it"
    engine.registrar.serve_only({"another"})
    deadline = time.monotonic() + SECONDS
    while len(engine.registrar.wishes) < 6:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    engine.registrar.sidecars = None
    while not engine.registrar.open:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [turns.get(timeout=SECONDS) for _ in range(2)] == ["the engine has gone", None]
    registration.end()
    assert turns.empty()


def test_what_the_engine_tells_is_passed_on_to_the_last_line(
    engine: Engine, listener: socket.socket
) -> None:
    told: queue.Queue[object] = queue.Queue()
    registration = Registration(wish(engine), listener, told.put)
    for number in range(3):
        engine.registrar.tell({"number": number})
    registration.end()
    assert [told.get_nowait() for _ in range(3)] == [{"number": number} for number in range(3)]


def test_an_end_while_there_is_no_engine_ends(engine: Engine, listener: socket.socket) -> None:
    turns: queue.Queue[str | None] = queue.Queue()
    registration = Registration(wish(engine), listener, on_turn=turns.put)
    engine.go()
    turns.get(timeout=SECONDS)
    registration.end()
    assert listener.fileno() == -1


def test_a_refusal_has_the_code_of_the_wish(engine: Engine, listener: socket.socket) -> None:
    engine.registrar.sidecars = set()
    with pytest.raises(UnavailableError) as caught:
        Registration(wish(engine), listener)
    assert (caught.value.code, caught.value.message) == (
        "sidecar_not_served",
        "the engine refuses: there is no sidecar of that name",
    )


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "closed"),
        (b"hello\n", "Expecting value"),
        (b"[1]\n", "no object"),
        (b"x" * 100_000, "too long"),
    ],
)
def test_what_is_no_answer_is_no_engine(
    tmp_path_factory: pytest.TempPathFactory, listener: socket.socket, answer: bytes, said: str
) -> None:
    path = tmp_path_factory.mktemp("e") / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()

        def one() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(1_000)
                connection.sendall(answer)

        threading.Thread(target=one, daemon=True).start()
        with pytest.raises(UnavailableError) as caught:
            Registration(Wish(path, {}, "sidecar_not_served"), listener)
    assert (caught.value.code, said in caught.value.message) == ("engine_away", True)
