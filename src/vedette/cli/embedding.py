"""`vedette model embed`: one file of a model and the files that its weights lie in.

Owns: the options. Must not: read a model; `models.embed` has a process do that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vedette.cli.interrupting import said_on_interrupt
from vedette.cli.options import JsonOption
from vedette.cli.render import print_json, printable, say
from vedette.errors import ConfigError


def embed(
    model: Annotated[
        Path, typer.Argument(metavar="FILE", help="The model (.onnx).", dir_okay=False)
    ],
    out: Annotated[Path, typer.Option(help="Where the result goes.", dir_okay=False)],
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIGEST",
            help="A file beside it, as the model names it, and the digest that it has to have; may be repeated.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put the weights of a model into its file: of those files alone that are listed by digest.

    A node takes in no model whose data lie elsewhere. It is done in a process without network that
    reads only what is listed.
    """
    from vedette.models.admit import read_model
    from vedette.models.boxed import copy_out
    from vedette.models.embed import embedded

    if out.exists() and model.exists() and out.samefile(model):
        message = f"{out} is the model itself, which stays"
        raise ConfigError("request_invalid", message, "Name another file with --out.")
    listed = _listed(data or ())
    with said_on_interrupt("Stopped; nothing was written"), embedded(model, listed) as made:
        told = {"out": str(out), "digest": read_model(made).digest, "bytes": made.stat().st_size}
        copy_out(made, out)
    if as_json:
        print_json(told)
        return
    say(f"Wrote {printable(str(out))}: {told['bytes']:,} bytes, {told['digest']}")


def _listed(data: list[str] | tuple[str, ...]) -> dict[str, str]:
    """Raises `ConfigError` request_invalid."""
    listed: dict[str, str] = {}
    for each in data:
        name, equals, digest = each.rpartition("=")
        if not equals or not name or name in listed:
            message = f"{each!r} is no NAME=DIGEST, or the second of that name"
            hint = "Example: --data model.onnx.data=sha256:…; `sha256sum` says what a file has."
            raise ConfigError("request_invalid", message, hint)
        listed[name] = digest if digest.startswith("sha256:") else f"sha256:{digest}"
    return listed
