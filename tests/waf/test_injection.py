"""Our reading of SQL and HTML is libinjection's, on the Core Rule Set's values and on changed ones."""

from __future__ import annotations

import pytest
from tests.waf import engines, injection

INPUTS = 150_000


@pytest.mark.skipif(
    not engines.has_oracle(), reason="libmodsecurity3 is not installed: make extras"
)
def test_every_value_is_judged_as_libinjection_does() -> None:
    found = injection.differences(INPUTS, seed=20261121)
    assert not found, "\n".join(
        f"{value!r}: ours {mine}, theirs {theirs}" for value, mine, theirs in found[:20]
    )


def test_the_values_hold_attacks_of_both_kinds_and_honest_ones() -> None:
    judged = list(injection.ours([b"1' or 1=1--", b"<script>alert(1)</script>", b"O'Brien & sons"]))
    assert judged == [
        injection.Judged("s&1c", False),
        injection.Judged("-", True),
        injection.Judged("-", False),
    ]
