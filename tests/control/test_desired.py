"""What a change makes of the desired state, before anything is stored."""

from __future__ import annotations

import pytest

from vedette.config.snapshot import Route
from vedette.control.desired import _placed, function_route
from vedette.errors import ConfigError


def placed(*routes: Route) -> tuple[str, ...]:
    taken: tuple[Route, ...] = ()
    for route in routes:
        taken = _placed(taken, route)
    return tuple(route.name for route in taken)


def test_two_functions_cannot_take_the_same_path_on_the_same_host() -> None:
    with pytest.raises(ConfigError) as caught:
        placed(function_route("a", [], "/x"), function_route("b", [], "/x"))
    assert caught.value.code == "route_conflict"
    assert "'a'" in caught.value.message


def test_the_same_path_on_different_hosts_is_no_conflict() -> None:
    a, b = function_route("a", ["a.test"], "/"), function_route("b", ["b.test"], "/")
    assert placed(a, b) == ("a", "b")


def test_a_function_may_take_its_own_place_again() -> None:
    assert placed(function_route("a", [], "/x"), function_route("a", [], "/x")) == ("a",)
