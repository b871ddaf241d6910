"""The kind EgressPolicy: what people may write, and what it becomes."""

from __future__ import annotations

from typing import Any

import pytest

from vedette.config.egress_manifest import EgressPolicyManifest
from vedette.config.model import build
from vedette.config.written import parse_egress
from vedette.errors import ConfigError


def policy(**spec: Any) -> EgressPolicyManifest:
    return build(
        EgressPolicyManifest,
        {
            "apiVersion": "vedette.dev/v1alpha1",
            "kind": "EgressPolicy",
            "metadata": {"name": "shop"},
            "spec": {"workloads": ["shop"], "allow": [{"to": "https://a.example.com"}], **spec},
        },
    )


def minted(to: str = "https://a.example.com", **credential: Any) -> dict[str, Any]:
    """A rule that adds the function's JWT-SVID."""
    wanted = {"jwtSvid": {"audience": ["stock", "billing", "stock"]}, **credential}
    return {"allow": [{"to": to, "credential": wanted}]}


def of_functions(to: str = "https://a.example.com", **credential: Any) -> dict[str, Any]:
    return {"workloads": [], "functions": ["f"], **minted(to, **credential)}


@pytest.mark.parametrize("to", ["https://a.example.com", "http://127.0.0.1:80", "http://[::1]:80"])
def test_a_rule_adds_the_functions_own_jwt_svid(to: str) -> None:
    (made,) = policy(**of_functions(to, header="X-Proof", prefix="")).spec.allow
    assert made.resolve()["credential"] == {
        "jwtSvid": {"audience": ["billing", "stock"]},
        "header": "x-proof",
        "prefix": "",
    }


def test_a_rule_adds_a_credential_of_the_node() -> None:
    rule = {"to": "https://a.example.com", "credential": {"name": "key"}}
    (made,) = policy(allow=[rule]).spec.allow
    assert made.resolve()["credential"] == {
        "credential": "key",
        "header": "authorization",
        "prefix": "Bearer ",
    }


def test_a_rule_becomes_what_the_engine_wants() -> None:
    rule = {
        "to": "https://API.example.com:443",
        "methods": ["POST", "GET"],
        "rate": "100/m",
        "burst": 10,
        "breaker": {"consecutiveFailures": 3, "pause": "30s"},
    }
    (made,) = policy(allow=[rule]).spec.allow
    assert made.resolve() == {
        "to": "https://api.example.com",
        "methods": ["GET", "POST"],
        "rate": {"requests": 100, "periodMillis": 60_000, "burst": 10},
        "breaker": {"failures": 3, "pauseMillis": 30_000},
    }


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"workloads": []}, "it is for nobody: give it functions, workloads or routes"),
        ({"routes": ["No Name"]}, "routes"),
        ({"allow": [{"to": "ftp://a.example.com"}]}, "not where a function may call"),
        ({"allow": [{"to": "tcp://a.example.com"}]}, "has no port"),
        (
            {"allow": [{"to": "tcp://a.example.com:1", "methods": ["GET"]}]},
            "no methods and no credential",
        ),
        ({"allow": [{"to": "https://a.example.com", "methods": ["get"]}]}, "methods"),
        ({"allow": [{"to": "https://a.example.com", "burst": 3}]}, "burst needs a rate"),
        (
            {"allow": [{"to": "https://a.example.com", "breaker": {"consecutiveFailures": 0}}]},
            "it never opens",
        ),
        (minted(), "a jwtSvid is for functions"),
        (of_functions(name="k"), "either a name or a jwtSvid"),
        (of_functions(jwtSvid=None), "either a name or a jwtSvid"),
        (of_functions(jwtSvid={"audience": []}), "audience"),
        (of_functions(jwtSvid={"audience": ["a\nb"]}), "audience"),
        (of_functions(jwtSvid={"audience": ["a" * 257]}), "audience"),
        (of_functions(jwtSvid={"audience": [str(n) for n in range(17)]}), "audience"),
        (of_functions(header="host"), "no field for a credential"),
        (of_functions("http://a.example.com"), "over https:// only"),
    ],
)
def test_mistakes_are_told(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        policy(**spec)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("written", "known"),
    [
        ("tcp://DB.example.com:5432", "tcp://db.example.com:5432"),
        ("tcp://db.example.com:80", "tcp://db.example.com:80"),
        ("tcp://db.example.com:443", "tcp://db.example.com:443"),
        ("TCP://10.0.0.0/8:443", "tcp://10.0.0.0/8:443"),
        ("tcp://[fd00::1]:22", "tcp://[fd00::1]:22"),
        ("tcp://*.example.com:1", "tcp://*.example.com:1"),
        ("https://api.example.com:443", "https://api.example.com"),
    ],
)
def test_a_destination_has_one_spelling(written: str, known: str) -> None:
    assert parse_egress(written) == known


@pytest.mark.parametrize(
    "written", ["tcp://a", "tcp://[fd00::1]", "tcp://a.b:0", "tcp://a.b/c:1", "tcp://u@a.b:1"]
)
def test_what_is_no_tunnel_is_refused(written: str) -> None:
    with pytest.raises(ConfigError):
        parse_egress(written)


def test_a_breaker_of_a_destination_is_the_one_of_a_service() -> None:
    breaker = {"consecutiveFailures": 0, "slowDuration": "2s", "trials": 3}
    (made,) = policy(allow=[{"to": "https://a.example.com", "breaker": breaker}]).spec.allow
    assert made.resolve()["breaker"] == {
        "failures": 0,
        "pauseMillis": 10_000,
        "trials": 3,
        "shares": {
            "intervalMillis": 10_000,
            "requestVolume": 50,
            "slowMillis": 2_000,
            "slowPercent": 50,
        },
    }
