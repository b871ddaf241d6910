"""`vedette federation …`: trust bundles, the node's own and those of others.

Owns: the options of these commands. Must not: judge a bundle.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from vedette.cli.options import HomeOption, JsonOption, client_of
from vedette.cli.render import print_json, print_table, printable, say
from vedette.errors import ConfigError

_federation = typer.Typer(
    help="Trust bundles: this node's, and those of other trust domains.", no_args_is_help=True
)
_MOST = 1024 * 1024  # bytes of a bundle

DomainArgument = Annotated[
    str, typer.Argument(metavar="TRUST_DOMAIN", help="Such as edge-2.example.org.")
]


class Profile(StrEnum):
    """How a bundle endpoint proves who it is (SPIFFE Federation §5.2)."""

    HTTPS_WEB = "https_web"
    HTTPS_SPIFFE = "https_spiffe"


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
    _federation.command(
        "serve",
        epilog="Example: vedette federation serve --listen 0.0.0.0:8444 --profile https_spiffe",
    )(serve)
    _federation.command(
        "follow",
        epilog="Example: vedette federation follow edge-2.example.org --url https://edge-2.example.org:8444/bundle "
        "--profile https_spiffe",
    )(follow)
    _federation.command("refresh", epilog="Example: vedette federation refresh edge-2.example.org")(
        refresh
    )
    _federation.command(
        "unfollow", epilog="Example: vedette federation unfollow edge-2.example.org"
    )(unfollow)
    app.add_typer(_federation, name="federation")


def list_(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the trust domains whose bundles are known, where they are fetched from, and how that goes."""
    client = client_of(home)
    known, network = client.get("/v1/bundles"), client.get("/v1/federation")
    followed = {one["trustDomain"]: one for one in network["followed"]}
    domains = {one["trustDomain"]: one for one in known}
    rows = [
        {**_UNKNOWN, "trustDomain": name, **domains.get(name, {}), "followed": followed.get(name)}
        for name in [*domains, *sorted(set(followed) - set(domains))]
    ]
    if as_json:
        print_json(rows)
        return
    columns = ("trust domain", "whose", "sequence", "CAs", "JWT keys", "from")
    print_table(columns, [_row(one, network["endpoint"]) for one in rows], "")


_UNKNOWN: dict[str, Any] = {"own": False, "sequence": None, "x509Authorities": 0, "jwtKeys": 0}


def _row(one: dict[str, Any], endpoint: dict[str, Any] | None) -> tuple[object, ...]:
    source = shown_followed(one["followed"]) if one["followed"] else "by hand"
    return (
        one["trustDomain"],
        "this node" if one["own"] else "federated",
        "-" if one["sequence"] is None else one["sequence"],
        one["x509Authorities"],
        one["jwtKeys"],
        shown_endpoint(endpoint) if one["own"] else source,
    )


def shown_endpoint(endpoint: dict[str, Any] | None) -> str:
    """Where the node serves its bundle, in a few words."""
    if endpoint is None:
        return "not served"
    shown = f"served at {endpoint['address']} ({endpoint['profile']})"
    return f"{shown}, FAILING: {printable(endpoint['error'])}" if endpoint["error"] else shown


def shown_followed(one: dict[str, Any]) -> str:
    """Where a bundle comes from and how old it is, in a few words."""
    age = "never" if one["ageSeconds"] is None else f"{one['ageSeconds']} s ago"
    shown = f"{printable(one['url'])} ({one['profile']}), fetched {age}"
    failed = f", FAILED {one['failures']} times: {printable(one['error'] or '')}"
    return shown + failed if one["failures"] else shown


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


def serve(
    home: HomeOption = None,
    listen: Annotated[
        str | None, typer.Option(help="HOST:PORT, such as 0.0.0.0:8444; port 0: any free one.")
    ] = None,
    profile: Annotated[
        Profile,
        typer.Option(
            help="How it proves who it is: by an SVID of the node, or by a certificate file."
        ),
    ] = Profile.HTTPS_SPIFFE,
    certificate: Annotated[
        Path | None,
        typer.Option(help="https_web: certificate chain, PEM; read again when it changes."),
    ] = None,
    key: Annotated[Path | None, typer.Option(help="https_web: its key, PEM, 0600.")] = None,
    oidc_issuer: Annotated[
        str | None,
        typer.Option(
            help="https URL by which others reach this server: `iss` of JWT-SVIDs, with OIDC discovery."
        ),
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Serve no more.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Serve this node's trust bundle at https://HOST:PORT/bundle, also after a restart; off at first."""
    client = client_of(home)
    if off:
        client.delete("/v1/federation/endpoint")
        say("The bundle is served no more")
        return
    if listen is None:
        raise typer.BadParameter("say where to listen", param_hint="--listen")
    wish = {
        "listen": listen,
        "profile": profile.value,
        "certificate": _absolute(certificate),
        "key": _absolute(key),
        "oidcIssuer": oidc_issuer,
    }
    told = client.put("/v1/federation/endpoint", wish)
    if as_json:
        print_json(told)
        return
    who = f" as {told['endpointId']}" if told["endpointId"] else ""
    say(f"The bundle is served at https://{told['address']}/bundle{who}")


def follow(
    trust_domain: DomainArgument,
    url: Annotated[str, typer.Option(help="https URL of its bundle endpoint.")],
    profile: Annotated[
        Profile, typer.Option(help="How the endpoint proves who it is.")
    ] = Profile.HTTPS_SPIFFE,
    home: HomeOption = None,
    endpoint_id: Annotated[
        str | None,
        typer.Option(
            help="https_spiffe: SPIFFE ID of the endpoint; default: spiffe://TRUST_DOMAIN/gateway/bundle."
        ),
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(help="https_web: CA of the endpoint, PEM; default: the system's.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch the bundle of another trust domain, now and as often as it says (30 s to a day; else every 5 minutes).

    https_spiffe: the first bundle comes by hand, with `vedette federation set`.
    """
    from vedette.control.client import segment

    wish = {
        "url": url,
        "profile": profile.value,
        "endpointId": endpoint_id,
        "ca": None if ca is None else _read(ca),
    }
    told = client_of(home).put(f"/v1/federation/followed/{segment(trust_domain)}", wish)
    _say_followed(told, as_json)


def refresh(
    trust_domain: DomainArgument, home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """Fetch the bundle of a trust domain that is followed now, instead of when it is due."""
    from vedette.control.client import segment

    told = client_of(home).post(f"/v1/federation/followed/{segment(trust_domain)}/refresh", {})
    _say_followed(told, as_json)


def unfollow(trust_domain: DomainArgument, home: HomeOption = None) -> None:
    """Fetch the bundle of a trust domain no more; the last one stays in force until it is removed."""
    from vedette.control.client import segment

    client_of(home).delete(f"/v1/federation/followed/{segment(trust_domain)}")
    say(f"{trust_domain} is followed no more; its bundle stays")


def _say_followed(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    say(f"Following {told['trustDomain']} at {shown_followed(told)}; next at {told['nextAt']}")


def _absolute(file: Path | None) -> str | None:
    return None if file is None else str(file.expanduser().absolute())


def _read(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(_MOST + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError("file_unreadable", f"cannot read {file}: {why}") from None
