"""`vedette authority …`: whose client certificates the node believes.

Owns: the options of these commands. Must not: judge a certificate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vedette.cli.options import HomeOption, JsonOption, client_of
from vedette.cli.render import print_json, print_table, say, say_if_away
from vedette.errors import ConfigError

_authorities = typer.Typer(
    help="Whose client certificates the node believes.", no_args_is_help=True
)

NameArgument = Annotated[str, typer.Argument(help="Name on this node.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    _authorities.command("list", epilog="Example: vedette authority list")(list_)
    _authorities.command("add", epilog="Example: vedette authority add corp --ca ca.pem")(add)
    _authorities.command("remove", epilog="Example: vedette authority remove corp")(remove)
    _authorities.command("revoke", epilog="Example: vedette authority revoke corp client.pem")(
        revoke
    )
    app.add_typer(_authorities, name="authority")


def list_(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List authorities of client certificates."""
    authorities = client_of(home).get("/v1/authorities")
    if as_json:
        print_json(authorities)
        return
    rows = [
        (
            one["name"],
            one.get("trustDomain", "-"),
            one["certificates"].count("BEGIN CERTIFICATE"),
            len(one["pins"]),
            ", ".join(one["revoked"]),
        )
        for one in authorities
    ]
    columns = ("name", "trust domain", "certificates", "pins", "revoked")
    print_table(columns, rows, "No authority is trusted: clients are not asked for certificates")


def add(
    name: NameArgument,
    ca: Annotated[Path, typer.Option(help="Certificates of the authority, PEM.")],
    home: HomeOption = None,
    trust_domain: Annotated[
        str | None, typer.Option(help="Accept only SPIFFE IDs, of this trust domain.")
    ] = None,
    pin: Annotated[
        list[str] | None,
        typer.Option(help="Accept only this key: a PEM file or its SHA-256 in hex; repeat."),
    ] = None,
) -> None:
    """Trust an authority's client certificates; the same name again replaces it, less what is revoked."""
    from vedette.control.client import segment
    from vedette.identity.certificates import pin_of, read_pem_or_text

    if not ca.is_file():
        raise ConfigError("certificate_unreadable", f"there is no file {ca}")
    wish = {
        "certificates": read_pem_or_text(str(ca)),
        "trustDomain": trust_domain,
        "pins": [pin_of(read_pem_or_text(one)) for one in pin or []],
    }
    say_if_away(client_of(home).put(f"/v1/authorities/{segment(name)}", wish))
    say(f"Trusting {name}. No policy of the node itself permits its clients anything")


def remove(name: NameArgument, home: HomeOption = None) -> None:
    """Stop trusting an authority, from the next request on."""
    from vedette.control.client import segment

    say_if_away(client_of(home).delete(f"/v1/authorities/{segment(name)}"))
    say(f"No longer trusting {name}")


def revoke(
    name: NameArgument,
    serial: Annotated[str, typer.Argument(help="Serial number in hex, or a certificate's file.")],
    home: HomeOption = None,
) -> None:
    """Refuse one certificate, from the next request on."""
    from vedette.control.client import segment
    from vedette.identity.certificates import read_pem_or_text, serial_of

    number = serial_of(read_pem_or_text(serial))
    path = f"/v1/authorities/{segment(name)}/revoked"
    say_if_away(client_of(home).post(path, {"serial": number}))
    say(f"Revoked {number} of {name}")
