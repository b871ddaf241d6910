"""`vedette credential …`: what the node adds to calls in place of those who make them.

Owns: the options of these commands. Must not: print one, or take one on the command line.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vedette.cli.options import HomeOption, JsonOption, client_of
from vedette.cli.render import print_json, print_table, say, say_if_away
from vedette.errors import ConfigError

_MOST = 16_384
_credentials = typer.Typer(
    help="Secrets that the node adds to calls, so that functions and programs never hold them.",
    no_args_is_help=True,
)

NameArgument = Annotated[
    str, typer.Argument(help="Name that rules give: credential.name of an EgressPolicy.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    _credentials.command("list", epilog="Example: vedette credential list")(list_)
    _credentials.command("add", epilog="Example: vedette credential add stripe --file stripe.key")(
        add
    )
    _credentials.command("remove", epilog="Example: vedette credential remove stripe")(remove)
    app.add_typer(_credentials, name="credential")


def list_(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List credentials; what they are is never shown."""
    found = client_of(home).get("/v1/credentials")
    if as_json:
        print_json(found)
        return
    rows = [(one["name"], one["changedAt"], ", ".join(one["policies"]) or "-") for one in found]
    print_table(("name", "changed", "named by"), rows, "The node keeps no credential")


def add(
    name: NameArgument,
    home: HomeOption = None,
    file: Annotated[
        Path | None, typer.Option(help="File with it.", show_default="standard input")
    ] = None,
) -> None:
    """Keep a credential; the same name again replaces it, from the next call on."""
    from vedette.control.client import segment

    value = _read(file)
    say_if_away(client_of(home).put(f"/v1/credentials/{segment(name)}", {"value": value}))
    say(f"Keeping {name}; a rule adds it to calls with credential: {{name: {name}}}")


def remove(name: NameArgument, home: HomeOption = None) -> None:
    """Forget a credential; refused while an EgressPolicy names it."""
    from vedette.control.client import segment

    client_of(home).delete(f"/v1/credentials/{segment(name)}")
    say(f"Forgot {name}")


def _read(file: Path | None) -> str:
    try:
        if file is None:
            if sys.stdin.isatty():
                say("Paste it, then a new line and Ctrl-D")
            return sys.stdin.read(_MOST)
        with file.open(encoding="utf-8") as opened:
            return opened.read(_MOST)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        where = "standard input" if file is None else file
        raise ConfigError("credential_refused", f"cannot read {where}: {why}") from None
