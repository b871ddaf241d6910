"""`vedette model samples`: what is kept of what a model is asked, listed, exported, removed.

Owns: its options, and the file that is written. Must not: show what is in a sample.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

import typer

from vedette.cli.options import HomeOption, JsonOption, client_of
from vedette.cli.render import print_json, print_table, say
from vedette.cli.waiting import waiting
from vedette.errors import ConfigError
from vedette.ids import require_name

if TYPE_CHECKING:
    from vedette.control.client import ControlClient


def samples(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write them as .npz, an array for each input, which only you can read.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="With --out: those that came since a time (RFC 3339), or for a duration, e.g. 2h."
        ),
    ] = None,
    version: Annotated[int | None, typer.Option(min=1, help="With --out: those of one.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove all of them.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how many samples are kept of what a model is asked; export or remove them.

    Nothing is kept unless the model's manifest asks for it (docs/models.md). Exports and removals are recorded.
    """
    place = f"/v1/models/{require_name(name, 'model')}/samples"
    if delete and out is not None:
        raise ConfigError("request_invalid", "--delete and --out contradict each other")
    if out is None and (since is not None or version is not None):
        raise ConfigError("request_invalid", "--since and --version go with --out")
    client = client_of(home)
    if delete:
        gone = client.delete(place)
        if as_json:
            print_json(gone)
        say(f"Removed {gone['count']:,} samples of {name}")
    elif out is not None:
        wish = {"since": _moment(since), "version": version}
        said = urlencode({key: value for key, value in wish.items() if value is not None})
        with waiting(f"Exporting samples of {name}"):
            told = _export(client, f"{place}/exported?{said}", out)
        if as_json:
            print_json(told)
        _say_exported(told, out)
    else:
        _show(client.get(place), as_json)


def shown_share(asked: dict[str, Any]) -> str:
    """The share of requests that are kept, as people write it."""
    return f"{asked['perMillion'] / 10_000:g}%"


def _show(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    rows = [
        (each["version"], each["count"], f"{each['bytes']:,}", each["oldest"], each["newest"])
        for each in found["versions"]
    ]
    asked = found["asked"]
    none = "No samples are kept: `samples` in the model's manifest asks for them."
    if asked is not None:
        none = f"No samples yet: {shown_share(asked)} of requests are drawn."
    print_table(("version", "requests", "bytes", "oldest", "newest"), rows, none)
    if found["leftOut"]:
        say(f"note: {found['leftOut']:,} were drawn and not kept: too large, or no room for them")


def _export(client: ControlClient, place: str, out: Path) -> dict[str, int]:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    partial = out.with_name(f"{out.name}.partial")
    try:
        with open(os.open(partial, flags, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            headers = client.post_to_file(place, file)
        partial.replace(out)
    except OSError as error:
        raise ConfigError("file_unwritable", f"cannot write {out}: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
    return {
        key: int(headers.get(f"x-vedette-{key}", "0")) for key in ("requests", "samples", "others")
    }


def _say_exported(told: dict[str, int], out: Path) -> None:
    say(f"Wrote {told['samples']:,} samples of {told['requests']:,} requests to {out}")
    if told["others"]:
        say(f"note: {told['others']:,} requests have other dimensions, and are not in it")


def _moment(since: str | None) -> str | None:
    """A time, or how long ago, as RFC 3339 has it."""
    from vedette.clock import from_rfc3339, now, parse_duration, to_rfc3339

    if since is None:
        return None
    moment = from_rfc3339(since) if "T" in since else now() - parse_duration(since)
    return to_rfc3339(moment)
