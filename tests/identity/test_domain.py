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


def test_a_node_of_a_site_has_its_trust_domain_below_it() -> None:
    assert domain.trust_domain("edge-1", "plant.example.org") == "edge-1.plant.example.org"
    for site in ("", ".", "Plant.org", "a..b", "-a.org", "a_b.org", "org.", ".".join(["a"] * 130)):
        with pytest.raises(ConfigError) as caught:
            domain.trust_domain("edge-1", site)
        assert caught.value.code == "invalid_name"


@pytest.mark.parametrize(
    "text",
    [
        "spiffe://example.org",
        "spiffe://example.org/a",
        "spiffe://e_x-1.org/A.b-c_1/...",
        "spiffe://1.2.3.4/x",
        f"spiffe://a/{'b' * 2037}",
        f"spiffe://{'d' * 255}/p",
    ],
)
def test_a_spiffe_id_reads_back_as_it_was(text: str) -> None:
    assert str(domain.parse_spiffe_id(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.org/a",
        "http://example.org/a",
        "SPIFFE://example.org/a",
        "spiffe:/example.org/a",
        "spiffe:///a",
        "spiffe://Example.org/a",
        "spiffe://example.org/",
        "spiffe://example.org/a/",
        "spiffe://example.org//a",
        "spiffe://example.org/./a",
        "spiffe://example.org/a/..",
        "spiffe://example.org/a%20b",
        "spiffe://example.org/a b",
        "spiffe://example.org/ä",
        "spiffe://exämple.org/a",
        "spiffe://example.org:8080/a",
        "spiffe://me@example.org/a",
        "spiffe://[::1]/a",
        "spiffe://example.org?q",
        "spiffe://example.org/a?q=1",
        "spiffe://example.org/a#f",
        "spiffe://example.org/a\n",
        "spiffe://example.org\n",
        f"spiffe://a/{'b' * 2038}",
        f"spiffe://{'d' * 256}/p",
    ],
)
def test_what_is_no_spiffe_id_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        domain.parse_spiffe_id(text)
    assert caught.value.code == "spiffe_id_invalid"


def test_a_workload_has_a_path_that_is_not_the_nodes_own() -> None:
    assert str(domain.workload_id("example.org", "/shop/web")) == "spiffe://example.org/shop/web"
    assert str(domain.workload_id("example.org", "/fnord")) == "spiffe://example.org/fnord"
    for path, code in (
        ("", "spiffe_id_invalid"),
        ("shop", "spiffe_id_invalid"),
        ("/gateway", "spiffe_id_reserved"),
        ("/gateway/x", "spiffe_id_reserved"),
        ("/fn/hello", "spiffe_id_reserved"),
        ("/fn", "spiffe_id_reserved"),
    ):
        with pytest.raises(ConfigError) as caught:
            domain.workload_id("example.org", path)
        assert caught.value.code == code, path
