"""How answers look: tables for people, JSON for programs.

Owns: the choice between the two. Must not: ask the node anything.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from vedette.errors import VedetteError


def print_json(value: Any) -> None:
    """Prints indented JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
    """Prints a table, or the sentence `empty`; plain columns with tabs when stdout is no terminal."""
    if not rows:
        print(empty, file=sys.stderr)
        return
    if not sys.stdout.isatty():
        for row in [columns, *rows]:
            print("\t".join(str(cell) for cell in row))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    Console().print(table)


def printable(text: str) -> str:
    """Without characters that a terminal would obey."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def short(digest: str | None) -> str:
    """The first digits of a digest, enough for `vedette rollback`."""
    return "-" if digest is None else digest.removeprefix("sha256:")[:12]


def say(message: str) -> None:
    """A remark for the person, on stderr: stdout is for answers."""
    print(message, file=sys.stderr)


def say_if_away(answer: dict[str, Any]) -> None:
    """Says that a change is durable though the engine did not answer."""
    if not answer.get("applied", True):
        say("note: the engine is away; the change is stored and served as soon as it returns")


def print_error(error: VedetteError) -> None:
    """What went wrong, where, and how to mend it, on stderr."""
    print(f"error: {error.message}", file=sys.stderr)
    if error.file:
        place = f"{error.file}:{error.line}" if error.line else error.file
        print(f"where: {place}", file=sys.stderr)
    if error.hint:
        print(f"mend: {error.hint}", file=sys.stderr)
