"""How a plan and a difference look: like Terraform's, for people who review.

Owns: symbols, colour, how long a value may be. Nothing that a manifest says can move the cursor.
Must not: decide what changes.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

from vedette.cli.render import printable

_SYMBOLS: Final = {"create": "+", "update": "~", "replace": "-/+", "delete": "-"}
_WORDS: Final = {
    "create": "will be created",
    "update": "will be updated",
    "replace": "will be replaced",
    "delete": "will be destroyed",
}
_COLOURS: Final = {"+": "32", "~": "33", "-/+": "31", "-": "31"}
_LONGEST: Final = 100
_MOST_FIELDS: Final = 60


def use_colour() -> bool:
    """On a terminal, unless NO_COLOR says otherwise (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def plan_text(changes: Sequence[dict[str, Any]], *, colour: bool = False) -> str:
    """What a plan does, and how much."""
    if not changes:
        return "No changes. The node is as the manifests say.\n"
    return "\n".join([*_objects(changes, colour), counts(changes), ""])


def diff_text(changes: Sequence[dict[str, Any]], *, colour: bool = False) -> str:
    """What differs between two snapshots."""
    if not changes:
        return "No difference.\n"
    return "\n".join(_objects(changes, colour))


def counts(changes: Sequence[dict[str, Any]]) -> str:
    """`Plan: 1 to add, 2 to change, 0 to destroy.`; a replacement is one of each end."""
    actions = [change["action"] for change in changes]
    replaced = actions.count("replace")
    add, destroy = actions.count("create") + replaced, actions.count("delete") + replaced
    return f"Plan: {add} to add, {actions.count('update')} to change, {destroy} to destroy."


def _objects(changes: Sequence[dict[str, Any]], colour: bool) -> Iterator[str]:
    for change in changes:
        symbol = _SYMBOLS[change["action"]]
        yield _painted(f"{symbol} {change['kind']} {change['name']}", symbol, colour) + _where(
            change
        )
        fields = change.get("fields", [])
        for field in fields[:_MOST_FIELDS]:
            for line in _field(change["action"], field):
                sign = line.lstrip()[:1]
                yield _painted(line, sign if sign in _COLOURS else "", colour)
        if len(fields) > _MOST_FIELDS:
            yield f"      … and {len(fields) - _MOST_FIELDS} more fields"
        yield ""


def _where(change: dict[str, Any]) -> str:
    place = ""
    if change.get("file"):
        line = f":{change['line']}" if change.get("line") else ""
        place = f"  ({printable(change['file'])}{line})"
    return f" {_WORDS[change['action']]}{place}"


def _field(action: str, field: dict[str, Any]) -> Iterator[str]:
    path, old, new = printable(field["path"]), field.get("old"), field.get("new")
    if path == "cedar":
        yield from _text_lines(old or "", new or "")
    elif action == "create":
        yield f"    + {path} = {_value(new)}"
    elif action == "delete":
        yield f"    - {path} = {_value(old)}"
    elif old is None:
        yield f"    + {path} = {_value(new)}"
    elif new is None:
        yield f"    - {path} = {_value(old)}"
    else:
        yield f"    ~ {path} = {_value(old)} -> {_value(new)}"


def _text_lines(old: str, new: str) -> Iterator[str]:
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=2)
    for line in list(lines)[2:]:
        if not line.startswith("@@"):
            yield f"      {line[:1]} {printable(line[1:])}".rstrip()


def _value(value: Any) -> str:
    if isinstance(value, str) and value.startswith("(") and value.endswith(")"):
        return printable(value)
    text = printable(json.dumps(value, ensure_ascii=False))
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}… ({len(text)} characters)"


def _painted(text: str, symbol: str, colour: bool) -> str:
    if not colour or symbol not in _COLOURS:
        return text
    return f"\x1b[{_COLOURS[symbol]}m{text}\x1b[0m"
