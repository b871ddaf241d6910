"""The sockets of a sidecar: bound, handed over with their sides, and let go by a signal."""

from __future__ import annotations

import signal
import socket
import threading

import pytest
from tests.engine.conftest import Engine, asked

from vedette.engine import registration
from vedette.engine.sidecar import Side, listening, serve, shown_address
from vedette.errors import ConfigError, UnavailableError


def test_both_sides_are_served_until_a_signal_comes(engine: Engine) -> None:
    sockets: dict[Side, socket.socket] = {
        "inbound": listening("127.0.0.1", 0),
        "outbound": listening("127.0.0.1", 0),
    }
    addresses = {side: one.getsockname() for side, one in sockets.items()}
    answers = []

    def begun() -> None:
        answers.extend(asked(address) for address in addresses.values())
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    serve(engine.path, "shop", sockets, begun, lambda _side, _why: None)
    assert [b'"side": "inbound"' in answers[0], b'"side": "outbound"' in answers[1]] == [True, True]
    for address in addresses.values():
        with pytest.raises(OSError, match="refused"):
            asked(address)
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_when_the_engine_takes_one_side_only_neither_is_served(engine: Engine) -> None:
    inbound, outbound = listening("127.0.0.1", 0), listening("127.0.0.1", 0)
    address = inbound.getsockname()
    engine.registrar.refused_sides = {"outbound"}
    with pytest.raises(UnavailableError) as caught:
        serve(
            engine.path,
            "shop",
            {"inbound": inbound, "outbound": outbound},
            _never,
            lambda _, __: None,
        )
    assert (caught.value.code, caught.value.message) == (
        "sidecar_not_served",
        "the engine refuses: not this side",
    )
    assert engine.registrar.open == []
    outbound.close()
    with pytest.raises(OSError, match="refused"):
        asked(address)


def _never() -> None:
    raise AssertionError("it has not begun")


def test_an_address_that_is_taken_is_told(engine: Engine) -> None:
    first = listening("127.0.0.1", 0)
    with first, pytest.raises(UnavailableError) as caught:
        listening("127.0.0.1", first.getsockname()[1])
    assert caught.value.code == "address_in_use"
    assert "port 0" in (caught.value.hint or "")
    with pytest.raises(ConfigError) as refused:
        listening("192.0.2.1", 0)  # of no machine (RFC 5737)
    assert refused.value.code == "address_invalid"


def test_addresses_are_shown_as_people_write_them() -> None:
    assert shown_address(("127.0.0.1", 80)) == "127.0.0.1:80"
    assert shown_address(("::1", 80, 0, 0)) == "[::1]:80"


def test_one_that_is_taken_away_ends_with_an_error(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "_ASKED_AGAIN", 0.01)
    inbound = listening("127.0.0.1", 0)
    address = inbound.getsockname()
    turns: list[str | None] = []
    with pytest.raises(ConfigError) as caught:
        serve(
            engine.path,
            "shop",
            {"inbound": inbound},
            lambda: engine.registrar.serve_only(set()),
            lambda _, why: turns.append(why),
        )
    assert (caught.value.code, caught.value.message) == (
        "sidecar_unknown",
        "the sidecar shop was taken away",
    )
    assert turns == []
    with pytest.raises(OSError, match="refused"):
        asked(address)
