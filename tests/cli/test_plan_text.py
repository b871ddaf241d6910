"""How a plan looks."""

from __future__ import annotations

from typing import Any

from vedette.cli.plan_text import counts, diff_text, plan_text

CHANGES: list[dict[str, Any]] = [
    {
        "action": "update",
        "kind": "Policy",
        "name": "team.cedar",
        "file": "edge.yaml",
        "line": 12,
        "fields": [{"path": "cedar", "old": "a\nb\nc\n", "new": "a\nB\nc\n"}],
    },
    {
        "action": "replace",
        "kind": "Route",
        "name": "shop",
        "file": "edge.yaml",
        "line": 30,
        "fields": [
            {"path": "backend.status", "old": 200},
            {"path": "backend.type", "old": "Static", "new": "Services"},
            {"path": "timeoutMillis", "new": 0},
        ],
    },
    {
        "action": "create",
        "kind": "Function",
        "name": "f",
        "file": "edge.yaml",
        "line": 1,
        "fields": [
            {"path": "component", "new": "(known after it is built)"},
            {"path": "env.TEXT", "new": "x" * 200},
            {"path": "env.EVIL", "new": "\x1b[2J\x9b"},
        ],
    },
    {"action": "delete", "kind": "Limit", "name": "old", "file": "old.yaml", "fields": []},
]
GOLDEN = f"""\
~ Policy team.cedar will be updated  (edge.yaml:12)
        a
      - b
      + B
        c

-/+ Route shop will be replaced  (edge.yaml:30)
    - backend.status = 200
    ~ backend.type = "Static" -> "Services"
    + timeoutMillis = 0

+ Function f will be created  (edge.yaml:1)
    + component = (known after it is built)
    + env.TEXT = "{"x" * 99}… (202 characters)
    + env.EVIL = "\\u001b[2J\\x9b"

- Limit old will be destroyed  (old.yaml)

Plan: 2 to add, 1 to change, 2 to destroy.
"""


def test_a_plan_reads_like_terraforms() -> None:
    assert plan_text(CHANGES) == GOLDEN


def test_colour_is_added_and_changes_no_word() -> None:
    coloured = plan_text(CHANGES, colour=True)
    assert "\x1b[32m+ Function f\x1b[0m" in coloured
    for code in ("31", "32", "33", "0"):
        coloured = coloured.replace(f"\x1b[{code}m", "")
    assert coloured == GOLDEN


def test_nothing_to_do_is_a_sentence() -> None:
    assert plan_text([]) == "No changes. The node is as the manifests say.\n"
    assert diff_text([]) == "No difference.\n"


def test_a_replacement_counts_at_both_ends() -> None:
    assert counts([{"action": "replace"}]) == "Plan: 1 to add, 0 to change, 1 to destroy."


def test_many_fields_are_cut_and_said() -> None:
    fields = [{"path": f"files[{number}].size", "new": 1} for number in range(70)]
    text = plan_text([{"action": "create", "kind": "Route", "name": "r", "fields": fields}])
    assert "… and 10 more fields" in text
    assert text.count("files[") == 60
