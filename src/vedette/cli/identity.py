"""`vedette token`, `ca`, `issuer`: who callers are.

Owns: the options of these commands. A token goes to stdout and nowhere else. Must not: write a token to a file or log.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from vedette.cli.options import HomeOption, JsonOption, client_of, split_list
from vedette.cli.render import print_json, print_table, say, say_if_away
from vedette.errors import ConfigError

_tokens = typer.Typer()
_ca = typer.Typer()
_issuers = typer.Typer(help="Whose tokens the node believes.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    _tokens.callback(
        invoke_without_command=True, epilog="Example: vedette token --subject me --ttl 1h"
    )(token)
    _tokens.command("revoke", epilog="Example: vedette token revoke -")(token_revoke)
    _tokens.command("list-revoked", epilog="Example: vedette token list-revoked")(
        token_list_revoked
    )
    app.add_typer(_tokens, name="token")
    _ca.callback(invoke_without_command=True, epilog="Example: vedette ca --out ca.pem")(ca)
    _ca.command("list", epilog="Example: vedette ca list --json")(ca_list)
    _ca.command("rotate", epilog="Example: vedette ca rotate --now")(ca_rotate)
    app.add_typer(_ca, name="ca")
    _issuers.command("list", epilog="Example: vedette issuer list")(issuer_list)
    _issuers.command(
        "add",
        epilog="Example: vedette issuer add corp --issuer https://id.example.com --audience edge --keys jwks.json",
    )(issuer_add)
    _issuers.command("refresh", epilog="Example: vedette issuer refresh corp")(issuer_refresh)
    _issuers.command("remove", epilog="Example: vedette issuer remove corp")(issuer_remove)
    app.add_typer(_issuers, name="issuer")


def token(
    context: typer.Context,
    subject: Annotated[str | None, typer.Option(help="Who the token is for.")] = None,
    home: HomeOption = None,
    ttl: Annotated[str, typer.Option(help="Life, e.g. 15m; over 24h only when asked.")] = "1h",
    scope: Annotated[list[str] | None, typer.Option(help="Scopes, commas or repeated.")] = None,
    audience: Annotated[str | None, typer.Option(help="Audience; default: this node.")] = None,
    header: Annotated[
        bool, typer.Option("--header", help="As a header line, for `curl -H @-`.")
    ] = False,
) -> None:
    """Mint a token of this node and print it."""
    if context.invoked_subcommand is not None:
        return
    if subject is None:
        raise typer.BadParameter("say who the token is for", param_hint="--subject")
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


def token_revoke(
    token_or_id: Annotated[
        str, typer.Argument(metavar="JTI|-|TOKEN", help="Its id, or `-` to read it from stdin.")
    ],
    home: HomeOption = None,
) -> None:
    """Refuse a token from the next request on. The token itself does not leave this command."""
    from vedette.identity.tokens import facts_of

    text = sys.stdin.read().strip() if token_or_id == "-" else token_or_id
    facts = facts_of(text)
    wish = {"jti": facts.jti, "issuer": facts.issuer, "expiresAt": facts.expires_at}
    say_if_away(client_of(home).post("/v1/tokens/revoked", wish))
    say(f"Revoked {facts.jti}")


def token_list_revoked(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List revoked tokens that have not ended by themselves."""
    tokens = client_of(home).get("/v1/tokens/revoked")
    if as_json:
        print_json(tokens)
        return
    rows = [(one["jti"], one["issuer"], one["expiresAt"]) for one in tokens]
    print_table(("jti", "issuer", "ends"), rows, "No token is revoked")


def ca(
    context: typer.Context,
    home: HomeOption = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: stdout.")] = None,
) -> None:
    """Print the certificates of the node's CA, or write them to a file: during a rotation two, and both are needed."""
    if context.invoked_subcommand is not None:
        return
    pem = client_of(home).get_bytes("/v1/ca")
    if out is None:
        print(pem.decode(), end="")
    else:
        try:
            out.write_bytes(pem)
        except OSError as error:
            message = f"cannot write {out}: {error.strerror}"
            raise ConfigError("file_unwritable", message) from None
        say(f"Wrote {out}")


def ca_list(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the keys of the CA and of JWT-SVIDs that are trusted: prepared, active, old."""
    _print_keys(client_of(home).get("/v1/ca/keys"), as_json)


def ca_rotate(
    home: HomeOption = None,
    jwt: Annotated[
        bool, typer.Option("--jwt", help="The key of JWT-SVIDs instead of the CA's.")
    ] = False,
    now: Annotated[
        bool,
        typer.Option(
            "--now",
            help="Sign with the next key in 40 seconds instead of a day; also of one prepared.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the next key: trusted at once, it signs in a day, and the one of now is trusted an hour longer."""
    told = client_of(home).post("/v1/ca/rotate", {"jwt": jwt, "now": now})
    _print_keys(told, as_json)
    if now and not jwt:
        say(
            "note: nodes that fetch this node's bundle look every five minutes; until they have the next key, they "
            "believe nothing that it signs"
        )


def _print_keys(keys: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(keys)
        return
    rows = [
        (
            one["kind"],
            one["phase"],
            one["keyId"][:16],
            one["stored"],
            one["since"],
            f"{one['nextPhase']} {one['nextAt'] or 'by its age'}",
            one["ends"],
        )
        for one in keys
    ]
    print_table(("key", "phase", "id", "in", "since", "next", "ends"), rows, "")


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
            _source(one.get("jwks")),
        )
        for one in issuers
    ]
    print_table(("name", "issuer", "audiences", "keys", "from"), rows, "No issuer is trusted")


def _source(jwks: dict[str, Any] | None) -> str:
    if jwks is None:
        return "file"
    from datetime import timedelta

    from vedette.clock import format_duration

    told = f"{jwks['url']}, {format_duration(timedelta(seconds=jwks['ageSeconds']))} old"
    return f"{told}, failed {jwks['failures']} times: {jwks['error']}" if jwks["error"] else told


def issuer_add(
    name: Annotated[str, typer.Argument(help="Name on this node.")],
    issuer: Annotated[str, typer.Option(help="The `iss` claim of its tokens.")],
    audience: Annotated[list[str], typer.Option(help="Accepted `aud`, commas or repeated.")],
    keys: Annotated[
        Path | None, typer.Option(help="PEM public key, certificate or JWKS file.")
    ] = None,
    jwks_url: Annotated[str | None, typer.Option(help="https URL of its JWKS, kept fresh.")] = None,
    jwks_ca: Annotated[
        Path | None, typer.Option(help="CA of that server, PEM; default: the system's.")
    ] = None,
    home: HomeOption = None,
    alg: Annotated[str | None, typer.Option(help="Algorithm, when the file does not say.")] = None,
    leeway: Annotated[int, typer.Option(min=0, max=300, help="Seconds of clock difference.")] = 5,
) -> None:
    """Trust an issuer's tokens; the same name again replaces it."""
    from vedette.config.model import wire_value
    from vedette.control.client import segment
    from vedette.identity.keys import load_keys

    if (keys is None) == (jwks_url is None):
        raise ConfigError("request_invalid", "give either --keys or --jwks-url")
    wish: dict[str, Any] = {
        "issuer": issuer,
        "audiences": split_list(audience),
        "leewaySeconds": leeway,
    }
    if keys is not None:
        wish["keys"] = [wire_value(key) for key in load_keys(keys, alg)]
    else:
        ca = None if jwks_ca is None else jwks_ca.read_text("ascii")
        wish["jwks"] = {"url": jwks_url, "ca": ca, "alg": alg}
    say_if_away(client_of(home).put(f"/v1/issuers/{segment(name)}", wish))
    say(f"Trusting {name}")


def issuer_refresh(
    name: Annotated[str, typer.Argument(help="Name on this node.")],
    home: HomeOption = None,
) -> None:
    """Fetch an issuer's keys from its URL now, instead of when they are due."""
    from vedette.control.client import segment

    answer = client_of(home).post(f"/v1/issuers/{segment(name)}/refresh", {})
    say(f"{name} has {len(answer['keys'])} keys")


def issuer_remove(
    name: Annotated[str, typer.Argument(help="Name on this node.")],
    home: HomeOption = None,
) -> None:
    """Stop trusting an issuer."""
    from vedette.control.client import segment

    say_if_away(client_of(home).delete(f"/v1/issuers/{segment(name)}"))
    say(f"No longer trusting {name}")
