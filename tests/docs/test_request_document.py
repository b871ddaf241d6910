"""docs/request.md says what the engine does: the order of the stages, and every refusal with its status."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "request.md"
STAGES = ["admit", "route", "authenticate", "limit", "authorize", "inspect", "execute", "respond"]
LATER = ["cache"]


@pytest.fixture(scope="module")
def text() -> str:
    """The document."""
    return DOCUMENT.read_text("utf-8")


def test_the_stages_are_named_in_the_order_they_run(text: str) -> None:
    line = next(line for line in text.splitlines() if line.count("→") >= 5)
    assert re.findall(r"[a-z]+", line.split("record")[0]) == STAGES


def test_the_stages_have_sections_in_that_order(text: str) -> None:
    titles = re.findall(r"^#{2,3}\s+(?:\d+\.\s+)?`?([a-z]+)`?\b", text, re.MULTILINE)
    assert [title for title in titles if title in STAGES] == STAGES
    assert [title for title in titles if title in LATER] == []


def test_every_cause_of_the_engine_is_documented(text: str) -> None:
    """The causes are read from the one table in the engine that turns a refusal into a status."""
    source = (ROOT / "crates" / "engine" / "src" / "refusal.rs").read_text("utf-8")
    causes = set(re.findall(r'"([a-z]+(?:_[a-z]+)+)"', source))
    assert len(causes) >= 30, "the table was not found"
    documented = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", text))
    assert causes - documented == set()


def test_the_pipeline_calls_the_stages_in_that_order() -> None:
    """`respond` is called on what the others return, so it stands apart from them."""
    source = (ROOT / "crates" / "engine" / "src" / "pipeline.rs").read_text("utf-8")
    assert re.findall(r"\b([a-z]+)::\1\(", source) == STAGES[:-1]
    assert "respond::answer(" in source
    assert "respond::refuse(" in source
