"""Paths that a route can have."""

from __future__ import annotations

import pytest

from vedette.config.paths import require_route_path
from vedette.errors import ConfigError


@pytest.mark.parametrize("path", ["/", "/a", "/a/b.c", "/a/..b", "/a%20b", "/caf%C3%A9", "/a:b@c"])
def test_a_normal_path_is_accepted(path: str) -> None:
    assert require_route_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a",
        "/a//b",
        "/a/../b",
        "/a/.",
        "/a?b",
        "/a#b",
        "/%2e%2e",
        "/%41",
        "/a%2fb",
        "/a%2Fb",
        "/a%5Cb",
        "/a%00",
        "/a%0a",
        "/%zz",
        "/%",
        "/ä",
        "/a\n",
        "/a b",
        "/a\\b",
    ],
)
def test_what_no_request_could_match_is_refused(path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        require_route_path(path)
    assert caught.value.code == "invalid_path"
