"""`vedette join-token …`: tokens that make whoever shows one a workload.

Owns: the options of these commands. A token goes to stdout once. Must not: take a token on the command line, where
others could see it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from vedette.cli.options import HomeOption, JsonOption, client_of, home_of, split_list
from vedette.cli.render import print_json, print_table, say
from vedette.errors import ConfigError

_tokens = typer.Typer(
    help="Tokens that make whoever shows one a workload, once.", no_args_is_help=True
)
_MOST = 256  # characters of a token


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    _tokens.command(
        "create", epilog="Example: vedette join-token create --spiffe-id /shop --ttl 10m"
    )(create)
    _tokens.command("list", epilog="Example: vedette join-token list --json")(list_)
    _tokens.command("remove", epilog="Example: vedette join-token remove 3f5a0c1de2b47788")(remove)
    _tokens.command("redeem", epilog="Example: vedette join-token redeem --token-file token")(
        redeem
    )
    app.add_typer(_tokens, name="join-token")


def create(
    spiffe_id: Annotated[
        str, typer.Option(help="SPIFFE ID of its bearer, or the path of it, such as /shop.")
    ],
    home: HomeOption = None,
    ttl: Annotated[str, typer.Option(help="Life of the token, 10s to 24h.")] = "10m",
    name: Annotated[
        str | None, typer.Option(help="Name of the workload; default: the path with hyphens.")
    ] = None,
    bind: Annotated[
        list[str] | None,
        typer.Option(
            help="What of its bearer the identity is bound to: uid (always), gid, path, sha256."
        ),
    ] = None,
    svid_ttl: Annotated[
        str | None, typer.Option(help="Life of its X509-SVIDs, 10s to 1h; default 15m.")
    ] = None,
    federates_with: Annotated[
        list[str] | None, typer.Option(help="Trust domains whose bundles it gets.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token and print it; only its hash is kept. It is for one use, and who uses it becomes the workload."""
    from vedette.clock import parse_duration

    client = client_of(home)
    path = _path(spiffe_id, client.get("/v1/status")["trustDomain"])
    wish = {
        "name": name or path.strip("/").replace("/", "-").lower(),
        "path": path,
        "tokenTtlSeconds": int(parse_duration(ttl).total_seconds()),
        "bind": list(dict.fromkeys(["uid", *split_list(bind or [])])),
        "ttlSeconds": None if svid_ttl is None else int(parse_duration(svid_ttl).total_seconds()),
        "federatesWith": split_list(federates_with or []),
    }
    told = client.post("/v1/join-tokens", wish)
    if as_json:
        print_json(told)
        return
    print(told["token"])
    say(
        f"Until {told['expiresAt']} its bearer becomes {told['spiffeId']} (workload {told['name']}, bound to "
        f"{', '.join(told['bind'])}); its id is {told['id']}"
    )


def list_(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List join tokens by id: open, used or ended. Those are known until a day after their end."""
    found = client_of(home).get("/v1/join-tokens")
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["id"],
            one["state"],
            one["name"],
            one["path"],
            ", ".join(one["bind"]),
            one["expiresAt"],
        )
        for one in found
    ]
    columns = ("id", "state", "workload", "path", "bound to", "ends")
    print_table(columns, rows, "No join token is known")


def remove(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As the list shows it.")],
    home: HomeOption = None,
) -> None:
    """Forget a token; it joins nobody then. A workload that joined with it stays."""
    from vedette.control.client import segment

    client_of(home).delete(f"/v1/join-tokens/{segment(token_id)}")
    say(f"Forgot {token_id}")


def redeem(
    token_file: Annotated[
        str, typer.Option(help="File with the token, or `-` for stdin; never the token itself.")
    ] = "-",
    home: HomeOption = None,
    socket: Annotated[
        str | None,
        typer.Option(
            help="unix:///… of the Workload API; default: SPIFFE_ENDPOINT_SOCKET, else the node's."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Become the workload of a token.

    With path or sha256 it is bound to this very program, which is Python: one of your own calls the service itself.
    """
    from vedette.control.workload.join_client import redeem as redeemed

    named = socket or os.environ.get("SPIFFE_ENDPOINT_SOCKET")
    place = _place(named) if named else home_of(home).workload_socket
    identity, workload = redeemed(place, _read(token_file))
    if as_json:
        print_json({"spiffeId": identity, "workload": workload})
        return
    say(f"You are {identity}; the Workload API gives you its SVIDs")


def _path(spiffe_id: str, domain: str) -> str:
    if spiffe_id.startswith("/"):
        return spiffe_id
    own = f"spiffe://{domain}/"
    if not spiffe_id.startswith(own):
        raise ConfigError("spiffe_id_invalid", f"{spiffe_id[:80]!r} does not begin with {own}")
    return spiffe_id.removeprefix(own[:-1])


def _place(address: str) -> Path:
    if not address.startswith("unix:"):
        raise ConfigError("request_invalid", f"{address[:80]!r} is no unix:///path of a socket")
    return Path(address.removeprefix("unix:").replace("//", "", 1))


def _read(file: str) -> str:
    try:
        if file == "-":
            return sys.stdin.read(_MOST + 1).strip()
        with Path(file).open("r", encoding="ascii") as opened:
            return opened.read(_MOST + 1).strip()
    except (OSError, UnicodeDecodeError):
        raise ConfigError("file_unreadable", f"cannot read a token from {file}") from None
