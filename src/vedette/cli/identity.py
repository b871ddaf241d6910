"""`vedette token`, `ca`, `issuer`: who callers are.

Owns: the options of these commands. A token goes to stdout and nowhere else. Must not: write a token to a file or log.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vedette.cli.options import HomeOption, JsonOption, client_of, split_list
from vedette.cli.render import print_json, print_table, say, say_if_away

_issuers = typer.Typer(help="Whose tokens the node believes.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command(epilog="Example: vedette token --subject me --ttl 1h")(token)
    app.command(epilog="Example: vedette ca --out ca.pem")(ca)
    _issuers.command("list", epilog="Example: vedette issuer list")(issuer_list)
    _issuers.command(
        "add",
        epilog="Example: vedette issuer add corp --issuer https://id.example.com --audience edge --keys jwks.json",
    )(issuer_add)
    _issuers.command("remove", epilog="Example: vedette issuer remove corp")(issuer_remove)
    app.add_typer(_issuers, name="issuer")


def token(
    subject: Annotated[str, typer.Option(help="Who the token is for.")],
    home: HomeOption = None,
    ttl: Annotated[str, typer.Option(help="Life, e.g. 15m; over 24h only when asked.")] = "1h",
    scope: Annotated[list[str] | None, typer.Option(help="Scopes, commas or repeated.")] = None,
    audience: Annotated[str | None, typer.Option(help="Audience; default: this node.")] = None,
    header: Annotated[
        bool, typer.Option("--header", help="As a header line, for `curl -H @-`.")
    ] = False,
) -> None:
    """Mint a token of this node and print it."""
    from vedette.clock import parse_duration

    wish = {
        "subject": subject,
        "ttlSeconds": int(parse_duration(ttl).total_seconds()),
        "scopes": split_list(scope or []),
    }
    if audience is not None:
        wish["audience"] = audience
    text = client_of(home).post("/v1/tokens", wish)["token"]
    print(f"authorization: Bearer {text}" if header else text)


def ca(
    home: HomeOption = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: stdout.")] = None,
) -> None:
    """Print the certificate of the node's CA, or write it to a file."""
    pem = client_of(home).get_bytes("/v1/ca")
    if out is None:
        print(pem.decode(), end="")
    else:
        out.write_bytes(pem)
        say(f"Wrote {out}")


def issuer_list(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List trusted issuers."""
    issuers = client_of(home).get("/v1/issuers")
    if as_json:
        print_json(issuers)
        return
    rows = [
        (
            one["name"],
            one["issuer"],
            ", ".join(one["audiences"]),
            ", ".join(key["alg"] for key in one["keys"]),
        )
        for one in issuers
    ]
    print_table(("name", "issuer", "audiences", "keys"), rows, "No issuer is trusted")


def issuer_add(
    name: Annotated[str, typer.Argument(help="Name on this node.")],
    issuer: Annotated[str, typer.Option(help="The `iss` claim of its tokens.")],
    audience: Annotated[list[str], typer.Option(help="Accepted `aud`, commas or repeated.")],
    keys: Annotated[Path, typer.Option(help="PEM public key, certificate or JWKS file.")],
    home: HomeOption = None,
    alg: Annotated[str | None, typer.Option(help="Algorithm, when the file does not say.")] = None,
    leeway: Annotated[int, typer.Option(min=0, max=300, help="Seconds of clock difference.")] = 5,
) -> None:
    """Trust an issuer's tokens; the same name again replaces it."""
    from vedette.config.model import wire_value
    from vedette.control.client import segment
    from vedette.identity.keys import load_keys

    wish = {
        "issuer": issuer,
        "audiences": split_list(audience),
        "leewaySeconds": leeway,
        "keys": [wire_value(key) for key in load_keys(keys, alg)],
    }
    say_if_away(client_of(home).put(f"/v1/issuers/{segment(name)}", wish))
    say(f"Trusting {name}")


def issuer_remove(
    name: Annotated[str, typer.Argument(help="Name on this node.")],
    home: HomeOption = None,
) -> None:
    """Stop trusting an issuer."""
    from vedette.control.client import segment

    say_if_away(client_of(home).delete(f"/v1/issuers/{segment(name)}"))
    say(f"No longer trusting {name}")
