"""Tiers and caches of a route as people write them: units, defaults, and that nothing leaves unsaid."""

from __future__ import annotations

from typing import Any

import pytest

from vedette.config.model import build
from vedette.config.tiers_manifest import ConfidenceSpec, ResultCacheSpec, TierSpec, millionths
from vedette.errors import ConfigError

TIER: dict[str, Any] = {
    "name": "regional",
    "url": "https://models.regional.example:443",
    "send": {"inputs": ["x", "a", "x"]},
}


def test_a_tier_becomes_what_the_engine_wants() -> None:
    assert build(TierSpec, TIER).resolve("digits") == {
        "name": "regional",
        "url": "https://models.regional.example",
        "model": "digits",
        "on": ["Failure", "Missing", "Overload"],
        "inputs": ["a", "x"],
        "timeoutMillis": 10_000,
    }
    more = {"model": "other", "on": ["lowConfidence"], "timeout": "2s", "send": {"inputs": "all"}}
    assert build(TierSpec, {**TIER, "url": "http://[::1]:8080", **more}).resolve("digits") == {
        "name": "regional",
        "url": "http://[::1]:8080",
        "model": "other",
        "on": ["LowConfidence"],
        "allInputs": True,
        "timeoutMillis": 2_000,
    }


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"send": None}, "send"),
        ({"send": {"inputs": "some"}}, "inputs"),
        ({"name": "edge"}, "edge is the node itself"),
        ({"on": []}, "on"),
        ({"on": ["boredom"]}, "on"),
        ({"url": "https://models.example/path"}, "url"),
        ({"url": "https://*.example.com"}, "url"),
        ({"peers": ["spiffe://td/x"]}, "peers"),
    ],
)
def test_what_cannot_be_meant_is_refused(change: dict[str, Any], word: str) -> None:
    data = {key: value for key, value in {**TIER, **change}.items() if value is not None}
    with pytest.raises(ConfigError) as refused:
        build(TierSpec, data)
    assert word in refused.value.message


def test_a_score_is_kept_exactly() -> None:
    assert [millionths(each) for each in (0.6, 0.000001, 1, 2.5)] == [
        600_000,
        1,
        1_000_000,
        2_500_000,
    ]
    data = {"output": "score", "below": 0.6}
    assert build(ConfidenceSpec, data).resolve() == {"output": "score", "belowMillionths": 600_000}
    for below in (0.0000001, -1, 2_000_000):
        with pytest.raises(ConfigError):
            build(ConfidenceSpec, {**data, "below": below})


def test_a_cache_is_for_the_caller_unless_it_says_otherwise() -> None:
    assert build(ResultCacheSpec, {"ttl": "60s"}).resolve() == {
        "ttlMillis": 60_000,
        "entries": 10_000,
        "bytes": 64 << 20,
        "scope": "Caller",
    }
    assert build(ResultCacheSpec, {"ttl": "1m", "scope": "route"}).resolve()["scope"] == "Route"


@pytest.mark.parametrize("name", ["Digits_v2.1", "llama:8b", "a b", "_", "m" * 256])
def test_a_model_there_has_a_name_of_its_own(name: str) -> None:
    assert build(TierSpec, {**TIER, "model": name}).resolve("digits")["model"] == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".m", "a/b", "a\\b", "a%2Fb", "a?b", "a#b", "a\n", "a\x7f", "é", "m" * 257],
)
def test_a_name_that_is_no_segment_of_a_path_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="model"):
        build(TierSpec, {**TIER, "model": name})
