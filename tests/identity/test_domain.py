"""Trust domains and SPIFFE ids."""

from __future__ import annotations

import pytest

from vedette.errors import ConfigError
from vedette.identity import domain


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("Edge-1.example.org", "edge-1"),
        ("my_host", "my-host"),
        ("--", "node"),
        ("", "node"),
        ("x" * 80, "x" * 63),
    ],
)
def test_a_host_name_becomes_a_node_name(
    monkeypatch: pytest.MonkeyPatch, host: str, name: str
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    assert domain.default_node_name() == name
    assert domain.trust_domain(name) == f"{name}.vedette.local"


@pytest.mark.parametrize("name", ["", "A", "a.b", "-a", "a/b", "a\n", "x" * 64])
def test_an_odd_node_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        domain.trust_domain(name)


def test_ids_of_the_domain() -> None:
    assert domain.spiffe_id("a.vedette.local") == "spiffe://a.vedette.local"
    assert domain.token_audience("a.vedette.local") == "spiffe://a.vedette.local/gateway"
