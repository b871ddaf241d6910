"""Tables of expectations: their lines, what differs, and the report for other programs."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from vedette.errors import ConfigError
from vedette.policy.expectations import compare, junit_report, read_expectations

TABLE = """\
expectations:
  - name: "one \\x01"
    request: {subject: alice, path: /a}
    expect: allow
    policy: team
  - request: {path: /b}
    expect: deny
    cause: not_found
"""


def answer(allowed: bool, *by: str, cause: str | None = None) -> dict[str, Any]:
    return {"allowed": allowed, "decidedBy": list(by), "cause": cause}


def table(tmp_path: Path, text: str = TABLE) -> Path:
    file = tmp_path / "table.yaml"
    file.write_text(text)
    return file


def test_rows_have_names_and_lines(tmp_path: Path) -> None:
    rows = read_expectations(table(tmp_path))
    assert [(row.name, row.line) for row in rows] == [("one \x01", 2), ("deny GET /b", 6)]
    assert rows[0].asked()["subject"] == "alice"


def test_what_differs_is_told(tmp_path: Path) -> None:
    rows = read_expectations(table(tmp_path))
    good = compare(rows, [answer(True, "team"), answer(False, cause="not_found")])
    assert [one.problems for one in good] == [(), ()]
    bad = compare(rows, [answer(True, "other"), answer(True, "open")])
    assert bad[0].problems == ("expected the policy team to decide, got other",)
    assert bad[1].problems == (
        "expected deny, got allow",
        "expected the cause not_found, got none",
    )
    suite = ET.fromstring(junit_report("table\x00", [good[0], bad[1]]))
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("expectations: []", 1),
        ("expectations:\n- request: {pth: /}\n  expect: deny", 2),
        ("expectations:\n- request: {}\n  expect: maybe", 3),
        ("expectations: &a [*a]", 1),
    ],
)
def test_a_mistake_has_its_line(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(ConfigError) as caught:
        read_expectations(table(tmp_path, text))
    assert (caught.value.code, caught.value.line) == ("expectations_invalid", line)
