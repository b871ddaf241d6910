"""What `crates/models/src/drift.rs` is compared with: made by scipy, so that the two agree on what the words mean.

`python -m tests.models.test_drift_cases` writes the file anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import special, stats

FILE = Path(__file__).resolve().parents[2] / "crates/models/src/drift_cases.json"
BINS = 32
LEAST = 1e-4


def edges_of(before: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Interior edges: every 32nd of the sample, each once."""
    ordered = np.sort(before)
    return np.unique(ordered[[at * (len(ordered) - 1) // BINS for at in range(1, BINS)]])


def binned(values: np.ndarray[Any, Any], edges: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.searchsorted(edges, values, side="left")


def case(name: str, before: np.ndarray[Any, Any], now: np.ndarray[Any, Any]) -> dict[str, Any]:
    """The values, and what scipy says of them once they are in bins."""
    before, now = np.round(before * 64) / 64, np.round(now * 64) / 64  # exact in 32 bits, and short
    edges = edges_of(before)
    old, new = binned(before, edges), binned(now, edges)
    shares = [np.bincount(each, minlength=len(edges) + 1) / len(each) for each in (old, new)]
    was, is_ = (np.maximum(each, LEAST) for each in shares)
    found = stats.ks_2samp(old, new, method="asymp")
    size = len(before) * len(now) / (len(before) + len(now))
    return {
        "name": name,
        "before": before.tolist(),
        "now": now.tolist(),
        # The symmetric divergence of Jeffreys, unnormalised as the shares may be raised.
        "psi": float(np.sum(special.rel_entr(is_, was) + special.rel_entr(was, is_))),
        "ks": float(found.statistic),
        # The first term of the series of Kolmogorov's distribution is all of it this far out.
        "ks_by_chance": float(np.sqrt(-np.log(0.01 / 2) / 2 / size)),
    }


def cases() -> list[dict[str, Any]]:
    """Nothing, a shift, a stretch, another shape, few values, and classes."""
    rng = np.random.default_rng(9)
    normal = rng.normal(size=600)
    return [
        case("the same", normal, rng.normal(size=500)),
        case("a shift", normal, rng.normal(0.5, 1, 500)),
        case("a stretch", normal, rng.normal(0, 2, 500)),
        case("another shape", rng.gamma(1, size=600), rng.uniform(0, 3, 500)),
        case("few", rng.normal(size=5), rng.normal(size=3)),
        case("classes", rng.integers(0, 4, 300), rng.choice(4, 300, p=[0.7, 0.1, 0.1, 0.1])),
        case("all at one place", normal, np.full(200, 9.0)),
    ]


def test_the_cases_are_what_scipy_says() -> None:
    kept = json.loads(FILE.read_text())
    made = cases()
    assert [each["name"] for each in kept] == [each["name"] for each in made]
    for old, new in zip(kept, made, strict=True):
        for name in ("before", "now", "psi", "ks", "ks_by_chance"):
            assert old[name] == pytest.approx(new[name], abs=1e-12), (old["name"], name)


def test_what_is_exceeded_by_chance_is_that_of_kolmogorovs_distribution() -> None:
    for each in cases():
        size = len(each["before"]) * len(each["now"]) / (len(each["before"]) + len(each["now"]))
        exact = stats.kstwobign.isf(0.01) / np.sqrt(size)
        assert each["ks_by_chance"] == pytest.approx(exact, rel=1e-6)


def test_bins_never_say_more_than_the_values_themselves() -> None:
    for each in cases():
        whole = stats.ks_2samp(each["before"], each["now"], method="asymp").statistic
        assert each["ks"] <= whole + 1e-12
        assert each["ks"] >= 0.8 * whole or each["name"] == "few", each["name"]


if __name__ == "__main__":
    FILE.write_text(json.dumps(cases()) + "\n")
