"""Addresses to listen on: what is accepted, and that a port in use is noticed."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest
from tests.control.conftest import simulated_options

from vedette.control.supervisor import launch, sockets
from vedette.errors import ConfigError, UnavailableError
from vedette.store.home import Home


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("localhost:8443", "https://localhost:8443"),
        ("LOCALHOST:8443", "https://localhost:8443"),
        ("0.0.0.0:443", "https://localhost:443"),
        ("[::1]:9000", "https://[::1]:9000"),
        ("https://edge.example.com:443", "https://edge.example.com:443"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
    ],
)
def test_an_address_is_read_and_shown_as_a_url(text: str, url: str) -> None:
    assert sockets.parse_address(text).url == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        ":8443",
        "localhost:",
        "localhost:70000",
        "::1:8443",
        "ftp://localhost:21",
        "a/b:1",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        sockets.parse_address(text)
    assert refusal.value.code == "address_invalid"


@pytest.mark.parametrize("text", ["http://0.0.0.0:8080", "http://192.0.2.1:8080", "http://[::]:80"])
def test_plain_http_is_refused_on_anything_but_loopback(text: str) -> None:
    with pytest.raises(ConfigError, match="plain HTTP"):
        sockets.parse_address(text)


def test_every_worker_gets_a_socket_on_the_same_port() -> None:
    listeners = sockets.bind_listeners([sockets.parse_address("localhost:0")], workers=3)
    try:
        ports = {bound.getsockname()[1] for one in listeners for bound in one.sockets}
        assert len(ports) == 1
        assert all(len(one.sockets) == 3 for one in listeners)
        assert not any(bound.getblocking() for one in listeners for bound in one.sockets)
        assert listeners[0].address == f"127.0.0.1:{ports.pop()}"
        assert {one.name for one in listeners} == {"https"}
    finally:
        _close(listeners)


def test_two_addresses_have_two_names() -> None:
    addresses = [sockets.parse_address(f"127.0.0.{number}:0") for number in (1, 2)]
    listeners = sockets.bind_listeners(addresses, workers=1)
    try:
        assert [one.name for one in listeners] == ["https", "https-2"]
    finally:
        _close(listeners)


def test_a_port_in_use_is_refused_even_when_its_owner_would_share_it() -> None:
    first = sockets.bind_listeners([sockets.parse_address("127.0.0.1:0")], workers=2)
    try:
        with pytest.raises(UnavailableError) as refusal:
            sockets.bind_listeners([sockets.parse_address(first[0].address)], workers=2)
        assert refusal.value.code == "address_in_use"
        assert first[0].address in refusal.value.message
    finally:
        _close(first)


def test_a_refused_address_leaves_none_of_the_others_bound() -> None:
    taken = sockets.bind_listeners([sockets.parse_address("127.0.0.1:0")], workers=1)
    free = socket.create_server(("127.0.0.1", 0))
    address = sockets.shown_address(free)
    free.close()
    try:
        wanted = [sockets.parse_address(text) for text in (address, taken[0].address)]
        with pytest.raises(UnavailableError):
            sockets.bind_listeners(wanted, workers=1)
        _close(sockets.bind_listeners([sockets.parse_address(address)], workers=1))
    finally:
        _close(taken)


def test_a_unix_socket_is_for_its_owner_only_and_replaces_a_dead_one(tmp_path: Path) -> None:
    path = tmp_path / "s"
    sockets.bind_unix(path).close()
    with sockets.bind_unix(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_metrics_port_falls_back_only_when_it_was_not_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    address = sockets.shown_address(taken)
    monkeypatch.setattr(sockets, "DEFAULT_METRICS", address)
    with taken, sockets.bind_metrics(None) as other:
        assert sockets.shown_address(other) != address
        with pytest.raises(UnavailableError):
            sockets.bind_metrics(address)


def _close(listeners: list[sockets.Listener]) -> None:
    for one in listeners:
        for bound in one.sockets:
            bound.close()


@pytest.mark.parametrize("text", ["0.0.0.0:0", "[::]:0", "https://127.0.0.1:0"])
def test_the_metrics_port_is_plain_and_for_this_machine_only(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sockets.bind_metrics(text)
    assert caught.value.code == "address_invalid"


@pytest.mark.parametrize("text", ["0.0.0.0:9464", "192.0.2.1:9464", "https://127.0.0.1:9464"])
def test_a_metrics_address_from_outside_says_what_to_write_before_anything_is_made(
    text: str, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    with pytest.raises(ConfigError, match="metrics are") as caught:
        launch.launch(home, simulated_options(metrics=text))
    assert caught.value.code == "address_invalid"
    assert "--metrics 127.0.0.1:9464" in caught.value.hint
    assert not home.root.exists()
