"""`vedette posture …`: what is known of principals, for policies to ask.

Owns: the options of these commands. Must not: find a fact out.
"""

from __future__ import annotations

from typing import Annotated

import typer

from vedette.cli.options import HomeOption, JsonOption, client_of
from vedette.cli.render import print_json, print_table, printable, say
from vedette.errors import ConfigError

_posture = typer.Typer(
    help="Facts about principals that end by themselves: `context.posture` in policies.",
    no_args_is_help=True,
)

SubjectArgument = Annotated[
    str,
    typer.Argument(help="A subject of this node's tokens, `ISSUER#SUBJECT`, or a SPIFFE ID."),
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    _posture.command("list", epilog="Example: vedette posture list")(list_)
    _posture.command(
        "set",
        epilog="Example: vedette posture set spiffe://edge-2.example.org/shop disk-encrypted --for 10m",
    )(set_)
    _posture.command("remove", epilog="Example: vedette posture remove alice disk-encrypted")(
        remove
    )
    app.add_typer(_posture, name="posture")


def list_(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List facts that have not ended."""
    found = client_of(home).get("/v1/posture")
    if as_json:
        print_json(found)
        return
    rows = [
        (
            printable(one["subject"]),
            one["fact"],
            "true" if one["value"] else "false",
            one["expiresAt"],
            one["actor"],
            printable(one["reason"] or "-"),
        )
        for one in found
    ]
    columns = ("subject", "fact", "is", "until", "by", "why")
    print_table(columns, rows, "Nothing is known of anybody")


def set_(
    subject: SubjectArgument,
    fact: Annotated[str, typer.Argument(metavar="FACT[=false]", help="Such as disk-encrypted.")],
    for_: Annotated[str, typer.Option("--for", metavar="TIME", help="How long; at most 30d.")],
    home: HomeOption = None,
    reason: Annotated[str | None, typer.Option(help="Why, for the list and the record.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say that a fact is true, or is not; when its time is over it is not known. Policies see it at once."""
    from vedette.clock import parse_duration

    name, _, value = fact.partition("=")
    if value not in ("", "true", "false") or (fact.endswith("=") and not value):
        raise ConfigError("posture_invalid", f"write {name} or {name}=false")
    wish = {
        "subject": subject,
        "fact": name,
        "value": value != "false",
        "seconds": int(parse_duration(for_).total_seconds()),
        "reason": reason,
    }
    answer = client_of(home).put("/v1/posture", wish)
    if as_json:
        print_json(answer)
    else:
        known = "is known" if answer["value"] else "is not so"
        say(f"{name} {known} of {printable(answer['subject'])} until {answer['expiresAt']}")


def remove(
    subject: SubjectArgument,
    fact: Annotated[str | None, typer.Argument(help="One fact; default: all of them.")] = None,
    home: HomeOption = None,
) -> None:
    """Forget what is known of a principal."""
    client_of(home).post("/v1/posture/removed", {"subject": subject, "fact": fact})
    say(f"Forgot {fact or 'all'} of {printable(subject)}")
