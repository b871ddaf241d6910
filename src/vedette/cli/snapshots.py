"""`vedette history`, `rollback`: the states a node has been in.

Owns: the options of these commands.
"""

from __future__ import annotations

from typing import Annotated

import typer

from vedette.cli.options import HomeOption, JsonOption, client_of
from vedette.cli.render import print_json, print_table, say_if_away, short


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(epilog="Example: vedette history --limit 10")(history)
    app.command(epilog="Example: vedette rollback 3f2a9c1d04be")(rollback)


def history(
    home: HomeOption = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, newest first.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List what was activated, when and by whom."""
    entries = client_of(home).get(f"/v1/history?limit={limit}")
    if as_json:
        print_json(entries)
        return
    rows = [
        (one["generation"], short(one["digest"]), one["activatedAt"], one["action"], one["actor"])
        for one in entries
    ]
    print_table(("generation", "snapshot", "activated", "action", "by"), rows, "No history")


def rollback(
    digest: Annotated[
        str | None, typer.Argument(help="Snapshot, at least 6 digits; default: the previous.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go back to an older snapshot, whole."""
    answer = client_of(home).post("/v1/rollback", {} if digest is None else {"digest": digest})
    say_if_away(answer)
    if as_json:
        print_json(answer)
    else:
        print(f"generation {answer['generation']}: {short(answer['digest'])}")
