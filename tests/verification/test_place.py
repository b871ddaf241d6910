"""Where a node is reached from its own machine."""

from __future__ import annotations

import pytest

from vedette.errors import UnavailableError
from vedette.verification.place import Place, reached
from vedette.verification.twin import Twin


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:8443", ("127.0.0.1", 8443)),
        ("0.0.0.0:8443", ("127.0.0.1", 8443)),
        ("[::]:8443", ("::1", 8443)),
        ("[fd00::1]:1", ("fd00::1", 1)),
    ],
)
def test_an_address_of_every_interface_is_reached_over_loopback(
    address: str, expected: tuple[str, int]
) -> None:
    assert reached(address) == expected


def test_a_node_is_found_from_its_home(twin: Twin) -> None:
    place = Place.of(twin.place.home)
    assert place.trust_domain == "twin.verify.invalid"
    assert place.tls.port == twin.place.tls.port
    assert set(place.pids()) == {"guardian", "supervisor", "engine", "control", "models"}
    place.listeners = [("http", ("127.0.0.1", 1))]
    with pytest.raises(UnavailableError):
        _ = place.tls
