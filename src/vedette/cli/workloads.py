"""`vedette workload …`: which programs of this machine get which SPIFFE ID.

Owns: the options of these commands. Must not: print a key, or ask for one.
"""

from __future__ import annotations

import pwd
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from vedette.cli.options import HomeOption, JsonOption, client_of, split_list
from vedette.cli.render import print_json, print_table, printable, say
from vedette.errors import ConfigError

_workloads = typer.Typer(
    help="Programs of this machine that get a SPIFFE ID over the Workload API.",
    no_args_is_help=True,
)

NameArgument = Annotated[str, typer.Argument(help="Name on this node.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    _workloads.command("list", epilog="Example: vedette workload list --json")(list_)
    _workloads.command(
        "add", epilog="Example: vedette workload add shop --uid 1000 --path /usr/bin/shop"
    )(add)
    _workloads.command("remove", epilog="Example: vedette workload remove shop")(remove)
    app.add_typer(_workloads, name="workload")


def list_(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List workloads: who gets which SPIFFE ID."""
    found = client_of(home).get("/v1/workloads")
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["name"],
            one["spiffeId"],
            printable(", ".join(one["selectors"])),
            f"{one['ttlSeconds']} s",
            ", ".join(one["federatesWith"]) or "-",
        )
        for one in found
    ]
    columns = ("name", "SPIFFE ID", "for", "life", "federates with")
    print_table(columns, rows, "No workload has an identity. Give one: vedette workload add --help")


def add(
    name: NameArgument,
    home: HomeOption = None,
    uid: Annotated[str | None, typer.Option(help="User, number or name.")] = None,
    gid: Annotated[int | None, typer.Option(min=0, help="Primary group, number.")] = None,
    path: Annotated[
        str | None, typer.Option(help="Executable, absolute and without links in it.")
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(help="Program in a box: the name given to `vedette run --as`; alone."),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(help="SHA-256 of the executable in hex, or a file to take it of.")
    ] = None,
    spiffe_path: Annotated[
        str | None, typer.Option("--id", help="Path of the SPIFFE ID; default: /NAME.")
    ] = None,
    ttl: Annotated[str, typer.Option(help="Life of X509-SVIDs, 10s to 1h.")] = "15m",
    jwt_ttl: Annotated[str, typer.Option(help="Life of JWT-SVIDs, 10s to 1h.")] = "5m",
    hint: Annotated[str, typer.Option(help="For a program with several SVIDs.")] = "",
    dns: Annotated[
        list[str] | None, typer.Option(help="DNS names in X509-SVIDs, commas or repeated.")
    ] = None,
    federates_with: Annotated[
        list[str] | None, typer.Option(help="Trust domains whose bundles it gets.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Give an identity to programs that are all of what is named; the same name again replaces it."""
    from vedette.clock import parse_duration
    from vedette.control.client import segment

    wish = {
        "path": spiffe_path or f"/{name}",
        "selectors": _selectors(uid, gid, path, sha256, run),
        "ttlSeconds": int(parse_duration(ttl).total_seconds()),
        "jwtTtlSeconds": int(parse_duration(jwt_ttl).total_seconds()),
        "hint": hint,
        "dnsNames": split_list(dns or []),
        "federatesWith": split_list(federates_with or []),
    }
    client = client_of(home)
    entry: dict[str, Any] = client.put(f"/v1/workloads/{segment(name)}", wish)
    if as_json:
        print_json(entry)
        return
    say(f"{', '.join(entry['selectors'])} is {entry['spiffeId']}")
    if run is not None:
        say(f"Start it with: vedette run --as {run} -- PROGRAM; it is told where to ask")
        return
    address = client.get("/v1/status")["workloadApi"]
    say(
        f"Its programs ask at SPIFFE_ENDPOINT_SOCKET={address}"
        if address
        else "note: this node was started by an older version; `vedette down` and `up` open the Workload API"
    )


def remove(name: NameArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Take an identity away: its programs are told at once, and their certificates are revoked."""
    from vedette.control.client import segment

    left = client_of(home).delete(f"/v1/workloads/{segment(name)}")
    if as_json:
        print_json(left)
    say(f"Removed {name}")


def _selectors(
    uid: str | None,
    gid: int | None,
    path: str | None,
    sha256: str | None,
    run: str | None = None,
) -> list[str]:
    found = []
    if run is not None:
        found.append(f"vedette:run:{run}")
    if uid is not None:
        found.append(f"unix:uid:{_uid(uid)}")
    if gid is not None:
        found.append(f"unix:gid:{gid}")
    if path is not None:
        found.append(f"unix:path:{path}")
    if sha256 is not None:
        found.append(f"unix:sha256:{_digest(sha256)}")
    if not found:
        raise ConfigError(
            "workload_invalid",
            "nothing says which programs are meant",
            "Give at least one of --uid, --gid, --path and --sha256, or --run.",
        )
    return found


def _uid(text: str) -> int:
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise ConfigError("workload_invalid", f"there is no user {text[:80]!r}") from None


def _digest(text: str) -> str:
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return text.lower()
    import hashlib

    try:
        with Path(text).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        message = f"{text[:200]!r} is neither a SHA-256 nor a file: {error.strerror}"
        raise ConfigError("file_unreadable", message) from None
