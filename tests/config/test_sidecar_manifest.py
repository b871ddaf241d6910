"""The kind Sidecar: what people may write."""

from __future__ import annotations

from typing import Any

import pytest

from vedette.config.model import build
from vedette.config.sidecar_manifest import SidecarManifest
from vedette.errors import ConfigError


def sidecar(**spec: Any) -> SidecarManifest:
    head = {"apiVersion": "vedette.dev/v1alpha1", "kind": "Sidecar", "metadata": {"name": "shop"}}
    return build(SidecarManifest, {**head, "spec": spec})


def test_it_is_strict_and_on_loopback_unless_somebody_says_otherwise() -> None:
    spec = sidecar(port=9000).spec
    assert (spec.host, spec.protocol, spec.mode, spec.callers) == (
        "127.0.0.1",
        "auto",
        "Strict",
        (),
    )
    assert sidecar().spec.port is None, "it may only call"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "LOCALHOST"]
)
def test_a_program_is_on_this_machine(host: str) -> None:
    normal = host.strip("[]").lower()
    assert sidecar(port=9000, host=host).spec.host == normal


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"port": 0}, "port"),
        ({"port": 65_536}, "port"),
        ({"port": "9000"}, "port"),
        ({"port": 9000, "host": "10.0.0.7"}, "is not this machine's loopback"),
        ({"port": 9000, "host": "0.0.0.0"}, "is not this machine's loopback"),
        ({"port": 9000, "host": "localhost.example.com"}, "is not this machine's loopback"),
        ({"port": 9000, "host": "*.localhost"}, "is not this machine's loopback"),
        ({"port": 9000, "mode": "strict"}, "mode"),
        ({"port": 9000, "callers": ["edge-1/shop"]}, "callers"),
        ({"port": 9000, "callers": ['spiffe://a/b") permit (']}, "callers"),
        ({"port": 9000, "callers": ["spiffe://edge-1.example.org"]}, "callers"),
        ({"callers": ["spiffe://edge-1.example.org/shop"]}, "callers needs a port"),
        ({"host": "127.0.0.1"}, "host needs a port"),
        ({"waf": {"mode": "off"}}, "waf needs a port"),
    ],
)
def test_mistakes_are_told(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sidecar(**spec)
    assert said in caught.value.message
