"""`vedette federation …`: trust bundles, the node's own and those of others.

Owns: the options of these commands. Must not: judge a bundle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vedette.cli.options import HomeOption, JsonOption, client_of
from vedette.cli.render import print_json, print_table, say
from vedette.errors import ConfigError

_federation = typer.Typer(
    help="Trust bundles: this node's, and those of other trust domains.", no_args_is_help=True
)
_MOST = 1024 * 1024  # bytes of a bundle

DomainArgument = Annotated[
    str, typer.Argument(metavar="TRUST_DOMAIN", help="Such as edge-2.example.org.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    _federation.command("list", epilog="Example: vedette federation list")(list_)
    _federation.command("show", epilog="Example: vedette federation show --out edge-1.json")(show)
    _federation.command(
        "set", epilog="Example: vedette federation set edge-2.example.org --bundle edge-2.json"
    )(set_)
    _federation.command("remove", epilog="Example: vedette federation remove edge-2.example.org")(
        remove
    )
    app.add_typer(_federation, name="federation")


def list_(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the trust domains whose bundles are known."""
    found = client_of(home).get("/v1/bundles")
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one["trustDomain"],
            "this node" if one["own"] else "federated",
            "-" if one["sequence"] is None else one["sequence"],
            one["x509Authorities"],
            one["jwtKeys"],
        )
        for one in found
    ]
    print_table(("trust domain", "whose", "sequence", "CAs", "JWT keys"), rows, "")


def show(
    home: HomeOption = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: stdout.")] = None,
) -> None:
    """Print this node's trust bundle (SPIFFE, JSON) for others to take, or write it to a file."""
    document = client_of(home).get_bytes("/v1/bundle") + b"\n"
    if out is None:
        print(document.decode(), end="")
        return
    try:
        out.write_bytes(document)
    except OSError as error:
        message = f"cannot write {out}: {error.strerror}"
        raise ConfigError("file_unwritable", message) from None
    say(f"Wrote {out}")


def set_(
    trust_domain: DomainArgument,
    bundle: Annotated[Path, typer.Option(help="Its SPIFFE bundle, JSON.")],
    home: HomeOption = None,
) -> None:
    """Take a bundle of another trust domain; an older one than is kept is refused."""
    from vedette.control.client import segment

    wish = {"document": _read(bundle)}
    told = client_of(home).put(f"/v1/bundles/{segment(trust_domain)}", wish)
    say(
        f"{told['trustDomain']} has {told['x509Authorities']} CAs and {told['jwtKeys']} JWT keys; workloads with "
        f"--federates-with {told['trustDomain']} get them"
    )


def remove(trust_domain: DomainArgument, home: HomeOption = None) -> None:
    """Forget another trust domain; workloads are told at once."""
    from vedette.control.client import segment

    client_of(home).delete(f"/v1/bundles/{segment(trust_domain)}")
    say(f"Forgot {trust_domain}")


def _read(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(_MOST + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError("file_unreadable", f"cannot read {file}: {why}") from None
