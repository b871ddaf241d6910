"""`vedette certificate …`: what the node shows to services that ask for a client certificate.

Owns: the options of these commands. Must not: print a key, or take one on the command line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vedette.cli.options import HomeOption, JsonOption, client_of
from vedette.cli.render import print_json, print_table, say, say_if_away
from vedette.errors import ConfigError

_certificates = typer.Typer(
    help="Client certificates that the node shows to services.", no_args_is_help=True
)

NameArgument = Annotated[
    str, typer.Argument(help="Name that manifests give: tls.clientCertificate of an Upstream.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    _certificates.command("list", epilog="Example: vedette certificate list")(list_)
    _certificates.command(
        "add",
        epilog="Example: vedette certificate add billing --cert billing.pem --key billing.key",
    )(add)
    _certificates.command("remove", epilog="Example: vedette certificate remove billing")(remove)
    app.add_typer(_certificates, name="certificate")


def list_(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List client certificates; their keys are never shown."""
    found = client_of(home).get("/v1/certificates")
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["name"],
            one["subject"],
            one["issuer"],
            one["notAfter"],
            ", ".join(one["upstreams"]) or "-",
        )
        for one in found
    ]
    columns = ("name", "subject", "issuer", "expires", "shown to")
    print_table(columns, rows, "The node keeps no client certificate")


def add(
    name: NameArgument,
    cert: Annotated[Path, typer.Option(help="The chain, leaf first, PEM; may hold the key.")],
    home: HomeOption = None,
    key: Annotated[
        Path | None, typer.Option(help="The private key, PEM, when it is in a file of its own.")
    ] = None,
) -> None:
    """Keep a certificate and its key; the same name again replaces it, and services see it at once."""
    from vedette.control.client import segment

    pem = "\n".join(_read(file) for file in (cert, key) if file is not None)
    say_if_away(client_of(home).put(f"/v1/certificates/{segment(name)}", {"pem": pem}))
    say(f"Keeping {name}; an Upstream shows it with tls: {{clientCertificate: {name}}}")


def remove(name: NameArgument, home: HomeOption = None) -> None:
    """Forget a certificate and its key; refused while a service is shown it."""
    from vedette.control.client import segment

    client_of(home).delete(f"/v1/certificates/{segment(name)}")
    say(f"Forgot {name}")


def _read(file: Path) -> str:
    try:
        return file.read_text("ascii")
    except FileNotFoundError:
        raise ConfigError("certificate_unreadable", f"there is no file {file}") from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not PEM"
        raise ConfigError("certificate_unreadable", f"cannot read {file}: {why}") from None
