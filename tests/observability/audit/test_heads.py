"""The text of a head: one spelling, and a checkpoint that others can read."""

from __future__ import annotations

import base64

import pytest

from vedette.errors import TrustError
from vedette.observability.audit.heads import Head, gaps_digest, joined

HEAD = Head(
    "node.test/audit", 12, b"r" * 32, 3, "2026-01-01T00:00:00.000000Z", b"p" * 32, b"g" * 32
)


def test_a_head_is_a_checkpoint_with_extension_lines() -> None:
    lines = HEAD.text().split("\n")
    assert lines[:3] == ["node.test/audit", "12", base64.b64encode(b"r" * 32).decode()]
    assert [line.split(" ")[0] for line in lines[3:]] == [
        "sequence",
        "time",
        "previous",
        "gaps",
        "",
    ]
    assert all(lines[:-1]), "an extension line is not empty"


@pytest.mark.parametrize("head", [HEAD, Head("o", 0, bytes(32), 0, "2026-01-01T00:00:00Z")])
def test_a_head_is_read_back(head: Head) -> None:
    assert Head.parse(head.text()) == head


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\n12\n", "\n012\n"),
        ("\n12\n", "\n-1\n"),
        ("\n12\n", "\n99999999999999999999\n"),
        ("sequence 3", "sequence 3\nsequence 3"),
        ("sequence 3", "sequence  3"),
        ("sequence 3\n", ""),
        ("time 2026-01-01T00:00:00.000000Z\n", ""),
        ("time 2026", "time 20x6"),
        ("gaps ", "more x\ngaps "),
        ("cnJy", "cnJ"),
        ("node.test/audit\n", "node.test/audit\n\n"),
    ],
)
def test_any_other_text_is_refused(old: str, new: str) -> None:
    text = HEAD.text()
    assert old in text
    with pytest.raises(TrustError) as caught:
        Head.parse(text.replace(old, new, 1))
    assert caught.value.code == "note_invalid"


def test_gaps_that_touch_are_one() -> None:
    assert joined([(5, 7), (0, 3), (3, 4), (6, 9)]) == [(0, 4), (5, 9)]
    assert gaps_digest([]) is None
    assert gaps_digest([(0, 4)]) != gaps_digest([(0, 5)])
