"""`vedette upgrade`: the installed version takes the place of the running one.

Owns: what a person sees of it. Must not: replace anything itself; `control.upgrade` and the supervisor do.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from vedette.cli.options import HomeOption, JsonOption, home_of
from vedette.cli.render import print_json, say


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog="Example: vedette upgrade --home /tmp/node")(upgrade)


def upgrade(
    home: HomeOption = None,
    control_only: Annotated[
        bool, typer.Option("--control-only", help="Leave the engine as it is.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run what is installed now: a new engine takes over the sockets, the old one finishes its requests.

    No request fails. Streams get ten seconds to end. When the new engine cannot serve, the old one goes on and the
    exit code is 4.
    """
    from vedette.control.upgrade import upgrade as upgrade_node

    done = upgrade_node(home_of(home), engine=not control_only, on_step=say)
    if as_json:
        camel = {_camel(name): value for name, value in asdict(done).items()}
        print_json(camel)
        return
    if not control_only:
        versions = f"{done.version_before or 'none'} -> {done.version}"
        print(f"engine   {versions}, pid {done.engine_before} -> {done.engine}")
    print(f"control  pid {done.control_before} -> {done.control}")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
