"""The one form of a host."""

from __future__ import annotations

import pytest

from vedette.config.hosts import covers, host_of_address, normalise_host
from vedette.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("LocalHost", "localhost"),
        ("api.example.com.", "api.example.com"),
        ("*.Example.com", "*.example.com"),
        ("[::1]", "::1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("127.0.0.1", "127.0.0.1"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("my_host", "my_host"),
    ],
)
def test_a_host_is_normalised_once_and_for_all(text: str, host: str) -> None:
    assert normalise_host(text) == host
    assert normalise_host(host) == host


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "*",
        "*.",
        "a..b",
        "a:80",
        "http://a",
        "a/b",
        "-a",
        "a-",
        "1.2.3",
        "256.1.1.1",
        "a.*.b",
        "**.a",
        "x" * 64,
        "a\0b",
        "a b",
    ],
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        normalise_host(text)
    assert caught.value.code == "invalid_host"


def test_the_host_of_an_address() -> None:
    assert host_of_address("127.0.0.1:8443") == "127.0.0.1"
    assert host_of_address("[::]:8443") == "::"
    with pytest.raises(ConfigError):
        host_of_address("localhost")


def test_a_wildcard_covers_what_is_below_and_not_itself() -> None:
    assert covers("*.example.com", "a.example.com")
    assert covers("*.example.com", "a.b.example.com")
    assert covers("*.example.com", "*.a.example.com")
    assert not covers("*.example.com", "example.com")
    assert not covers("*.example.com", "badexample.com")
    assert not covers("example.com", "a.example.com")
