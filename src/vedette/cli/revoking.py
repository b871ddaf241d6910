"""`vedette revoke`: one verb for whatever is to count no more.

Owns: its options. A token is read from a file or stdin and does not leave this command. Must not: take a token from the
command line, where every user of the machine could read it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vedette.cli.options import HomeOption, JsonOption, client_of
from vedette.cli.render import print_json, print_table, printable, say, say_if_away
from vedette.errors import ConfigError

_MOST = 64 * 1024  # bytes of a file with a token
_PARTS_OF_A_TOKEN = 3


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog="Example: vedette revoke spiffe://edge-2.example.org/shop --reason stolen")(
        revoke
    )


def revoke(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="ID|NODE|SERIAL|TOKEN",
            help="A SPIFFE ID; a trust domain; AUTHORITY/SERIAL; the id of a token, `@FILE` with a token, or `-` to "
            "read one from stdin.",
        ),
    ] = None,
    home: HomeOption = None,
    reason: Annotated[
        str | None, typer.Option(help="Why, for the list and the admin record.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List what is revoked.")] = False,
    lift: Annotated[
        str | None,
        typer.Option(metavar="WHAT", help="Revoke it no more; as the list writes it."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Refuse somebody or something from now on: new requests at once, and live streams and tunnels end.

    `spiffe://DOMAIN/PATH`, `spiffe://DOMAIN`, `corp/0a1f`, `5b1c6a0e-…`, `@token.txt`; `--list`, `--lift corp/0a1f`.
    """
    if [what is not None, list_, lift is not None].count(True) != 1:
        raise ConfigError("request_invalid", "give one of: what to revoke, --list, --lift WHAT")
    if list_:
        _list(home, as_json)
        return
    if lift is not None:
        path = "/v1/revocations/lifted"
        wish: dict[str, str | None] = {"what": lift}
    else:
        path, wish = "/v1/revocations", {**_wish(str(what)), "reason": reason}
    answer = client_of(home).post(path, wish)
    say_if_away(answer)
    if as_json:
        print_json({"what": wish["what"], **answer})
    else:
        say(f"{'Revoked' if lift is None else 'No longer revoked:'} {printable(str(wish['what']))}")


def _list(home: Path | None, as_json: bool) -> None:
    found = client_of(home).get("/v1/revocations")
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["what"],
            one["revokedAt"] or "-",
            one["actor"] or "-",
            printable(one["reason"] or "-"),
            one["expiresAt"] or "-",
        )
        for one in found
    ]
    print_table(("what", "since", "by", "why", "ends"), rows, "Nothing is revoked")


def _wish(what: str) -> dict[str, str | None]:
    """What the node is told. Of a token: its issuer, its id and its end."""
    from vedette.identity.tokens import facts_of

    if what != "-" and not what.startswith("@"):
        if what.count(".") == _PARTS_OF_A_TOKEN - 1 and what.startswith("ey"):
            message = "that looks like a token, and a command line is no place for one"
            raise ConfigError("jti_unknown", message)
        return {"what": what}
    facts = facts_of(_text(what))
    told = facts.jti if facts.issuer is None else f"{facts.issuer}#{facts.jti}"
    return {"what": told, "expiresAt": facts.expires_at}


def _text(what: str) -> str:
    if what == "-":
        return sys.stdin.read(_MOST).strip()
    try:
        with Path(what[1:]).open("r", encoding="ascii") as opened:
            return opened.read(_MOST).strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError("file_unreadable", f"cannot read {what[1:]}: {why}") from None
