"""`vedette grant`: let somebody do something for a while.

Owns: its options. Must not: know how a grant is kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vedette.cli.options import HomeOption, JsonOption, client_of, split_list
from vedette.cli.render import print_json, print_table, printable, say, say_if_away
from vedette.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog="Example: vedette grant alice orders --method GET --for 30m")(grant)


def grant(
    principal: Annotated[
        str | None,
        typer.Argument(help="A subject of this node's tokens, `ISSUER#SUBJECT`, or a SPIFFE ID."),
    ] = None,
    target: Annotated[
        str | None, typer.Argument(help="A function or a route; `route/NAME` where both are there.")
    ] = None,
    home: HomeOption = None,
    for_: Annotated[
        str | None,
        typer.Option("--for", metavar="TIME", help="How long, such as 30m; at most 30d."),
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Only this method; commas or repeated.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What to call it; default: a name made up.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option(help="Why, for the list and the admin record.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List grants.")] = False,
    end: Annotated[
        str | None, typer.Option(metavar="NAME", help="End a grant before its time.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Permit somebody something until a time; then new requests are refused and live ones end, with no one's doing.

    `vedette grant --list` shows what is granted, `vedette grant --end NAME` ends it before its time.
    """
    from vedette.control.client import segment

    if [principal is not None, list_, end is not None].count(True) != 1:
        raise ConfigError(
            "request_invalid", "give a principal and a target, or --list, or --end NAME"
        )
    if list_:
        _list(home, as_json)
        return
    client = client_of(home)
    if end is not None:
        answer = client.delete(f"/v1/grants/{segment(end)}")
        said = f"Ended {end}"
    else:
        answer = client.post("/v1/grants", _wish(principal, target, for_, method, name, reason))
        said = f"Granted until {answer['expiresAt']}: {answer['name']}"
    say_if_away(answer)
    if as_json:
        print_json(answer)
    else:
        say(said)


def _wish(
    principal: str | None,
    target: str | None,
    for_: str | None,
    method: list[str] | None,
    name: str | None,
    reason: str | None,
) -> dict[str, object]:
    from vedette.clock import parse_duration

    if target is None or for_ is None:
        raise ConfigError("request_invalid", "a grant has a principal, a target and --for TIME")
    return {
        "principal": principal,
        "target": target,
        "seconds": int(parse_duration(for_).total_seconds()),
        "methods": split_list(method or []),
        "name": name,
        "reason": reason,
    }


def _list(home: Path | None, as_json: bool) -> None:
    found = client_of(home).get("/v1/grants")
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["name"],
            printable(one["principal"] or "-"),
            one["target"] or "-",
            ", ".join(one["methods"]) or "all",
            one["expiresAt"],
            one["actor"] or "-",
            printable(one["reason"] or "-"),
        )
        for one in found
    ]
    columns = ("name", "principal", "target", "methods", "until", "by", "why")
    print_table(columns, rows, "Nothing is granted for a while")
