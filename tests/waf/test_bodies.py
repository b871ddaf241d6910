"""Our readers of bodies see what libmodsecurity's see, and refuse at least what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.waf import bodies, engines

CHANGED = 1_500

pytestmark = pytest.mark.skipif(
    not engines.has_oracle(), reason="libmodsecurity3 is not installed: make extras"
)


def joined(found: tuple[str, ...]) -> tuple[str, ...]:
    """What was found, in one form: libmodsecurity 3.0.9 drops the ends of lines within a multipart value."""
    return tuple(part.replace("0d0a", "").replace("0a", "") for part in found)


@pytest.mark.parametrize("media_type", [bodies.JSON, bodies.FORM, bodies.XML, bodies.MULTIPART])
def test_a_body_is_read_as_the_oracle_reads_it_or_refused(media_type: str, tmp_path: Path) -> None:
    rules, compared = bodies.rules(tmp_path), 0
    with engines.ours([rules]) as ours, engines.oracle([rules], tmp_path / "oracle") as oracle:
        for body in bodies.changed(media_type, CHANGED, seed=5):
            mine = bodies.read(ours, media_type, body)
            theirs = bodies.read(oracle, media_type, body)
            assert mine.is_odd or not theirs.is_refused, body
            if not mine.is_refused and not theirs.is_refused:
                assert joined(mine.found) == joined(theirs.found), body
                compared += 1
    assert compared > 100, f"only {compared} bodies were read by both"
