"""Single values as people write them."""

from __future__ import annotations

import pytest

from vedette.config.written import (
    Origin,
    parse_destination,
    parse_origin,
    parse_quota,
    parse_rate,
    require_reference,
)
from vedette.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://10.0.0.7:8443", Origin("https", "10.0.0.7", 8443)),
        ("http://Shop.internal", Origin("http", "shop.internal", 80)),
        ("https://shop.internal/", Origin("https", "shop.internal", 443)),
        ("http://[::1]:9000", Origin("http", "::1", 9000)),
    ],
)
def test_an_endpoint_is_scheme_host_and_port(text: str, origin: Origin) -> None:
    assert parse_origin(text) == origin


@pytest.mark.parametrize(
    "text",
    [
        "shop:80",
        "ftp://shop",
        "http://",
        "http://shop:0",
        "http://shop:99999",
        "http://shop/path",
        "http://shop?x=1",
        "http://user:password@shop",
        "http://*.shop",
        "http://[::1",
        "http://sh op",
        "",
    ],
)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_origin(text)
    assert caught.value.code == "invalid_host"


@pytest.mark.parametrize(
    ("text", "destination"),
    [
        ("https://API.example.com/", "https://api.example.com"),
        ("https://api.example.com:443", "https://api.example.com"),
        ("http://api.example.com:8080", "http://api.example.com:8080"),
        ("api.example.com", "https://api.example.com"),
        ("api.example.com:8443", "https://api.example.com:8443"),
        ("https://*.example.com", "https://*.example.com"),
        ("http://10.0.0.7:80", "http://10.0.0.7"),
        ("http://[2001:DB8::7]:9000", "http://[2001:db8::7]:9000"),
        ("10.0.0.0/8", "https://10.0.0.0/8"),
        ("10.0.0.0/8:443", "https://10.0.0.0/8"),
        ("http://10.1.0.0/16:8080", "http://10.1.0.0/16:8080"),
        ("http://192.168.7.9/32", "http://192.168.7.9/32"),
        ("https://[FD00::/8]:8443", "https://[fd00::/8]:8443"),
    ],
)
def test_where_a_function_may_call_has_one_spelling(text: str, destination: str) -> None:
    assert parse_destination(text) == destination
    assert parse_destination(destination) == destination


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "https://*",
        "https://*.com",
        "https://a.*.example.com",
        "https://*.10.0.0.7",
        "ftp://api.example.com",
        "https://user@api.example.com",
        "https://api.example.com/path",
        "https://api.example.com?q=1",
        "https://api.example.com:0",
        "https://api.example.com:99999",
        "0.0.0.0/0",
        "8.0.0.0/7",
        "10.0.0.0/33",
        "10.0.0.7/8",
        "10.0.0/8",
        "http://10.0.0.0/8:0",
        "http://10.0.0.0/8:65536",
        "http://10.0.0.0/8/",
        "ftp://10.0.0.0/8",
        "fd00::/8",
        "https://[fd00::/6]",
        "https://[::ffff:10.0.0.0/104]",
    ],
)
def test_what_is_no_destination_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_destination(text)
    assert caught.value.code == "invalid_host"


def test_an_address_within_a_range_is_told_where_the_range_begins() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_destination("http://10.1.2.3/16:8080")
    assert caught.value.hint == "Write the first address of the range: http://10.1.0.0/16:8080."


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/s", (100, 1_000)),
        ("6000/m", (6_000, 60_000)),
        ("10 / 5s", (10, 5_000)),
        ("1/d", (1, 86_400_000)),
    ],
)
def test_a_rate_is_requests_in_a_time(text: str, rate: tuple[int, int]) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["100", "/s", "-1/s", "1/0s", "1/x", "1/s/s", "\u0661/s", "1e3/s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_rate(text)
    assert caught.value.code == "invalid_rate"


def test_a_quota_is_for_a_calendar_period() -> None:
    assert parse_quota("10000/day") == (10_000, "Day")
    for wrong in ("10/s", "10/week", "day"):
        with pytest.raises(ConfigError):
            parse_quota(wrong)


def test_a_file_is_named_relative_to_the_manifest() -> None:
    assert require_reference("../keys/jwks.json") == "../keys/jwks.json"
    for wrong in ("/etc/shadow", "", "a\0b", "a\nb"):
        with pytest.raises(ConfigError):
            require_reference(wrong)
