"""`vedette records`, `errors`: what happened, and what an error code means.

Owns: the options of these commands.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from vedette.cli.functions import FollowOption, TailOption
from vedette.cli.options import HomeOption, JsonOption, client_of
from vedette.cli.render import print_json, print_table
from vedette.errors import CATALOGUE


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(epilog="Example: vedette records --follow")(records)
    app.command(epilog="Example: vedette errors policy_invalid")(errors)


def records(
    home: HomeOption = None,
    follow: FollowOption = False,
    tail: TailOption = 20,
    as_json: JsonOption = False,
) -> None:
    """Show the record of each request, refused or served."""
    path = f"/v1/records?tail={tail}&follow={int(follow)}"
    for line in client_of(home).lines(path, follow=follow):
        print(json.dumps(line, ensure_ascii=False) if as_json else _row(line), flush=True)


def _row(line: dict[str, Any]) -> str:
    request = f"{line.get('method', '-')} {line.get('host', '-')}{line.get('path', '')}"
    if line.get("kind") == "egress":
        place = f"{line.get('scheme', '?')}://{line['host']}:{line.get('port', '?')}"
        request = f"{line['function']} calls {line['method']} {place}"
    why = " ".join(str(line[key]) for key in ("stage", "cause") if key in line)
    parts = [line["time"], str(line.get("status", "-")), f"{line.get('totalUs', 0)} µs", request]
    return "  ".join([*parts, line.get("principal", "-"), why]).rstrip()


def errors(
    code: Annotated[str | None, typer.Argument(help="Only this code.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the codes of errors, what each means and how to mend it."""
    found = [entry for entry in CATALOGUE.values() if code in (None, entry.code)]
    rows = [(entry.code, entry.family, entry.sentence, entry.hint) for entry in found]
    if as_json:
        names = ("code", "family", "sentence", "hint")
        print_json([dict(zip(names, row, strict=True)) for row in rows])
    else:
        print_table(("code", "family", "means", "mend"), rows, f"There is no code {code}")
