"""`vedette upgrade`: the installed version takes the place of the running one.

Owns: what a person sees of it. Must not: replace anything itself; `control.upgrade` and the supervisor do.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from vedette.cli.options import HomeOption, JsonOption, client_of, home_of
from vedette.cli.render import print_json, say
from vedette.errors import UnavailableError, VedetteError

if TYPE_CHECKING:
    from vedette.control.client import ControlClient


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
    # An engine that stays may not know what this version brings.
    brought = [] if control_only else _adopt(client_of(home))
    if as_json:
        camel = {_camel(name): value for name, value in asdict(done).items()}
        print_json({**camel, "brought": brought})
        return
    if not control_only:
        versions = f"{done.version_before or 'none'} -> {done.version}"
        print(f"engine   {versions}, pid {done.engine_before} -> {done.engine}")
    print(f"control  pid {done.control_before} -> {done.control}")
    for sentence in brought:
        print(f"new      {sentence}")


def _adopt(client: ControlClient) -> list[str]:
    """Has what this version brings put in force. Raises `UnavailableError` upgrade_failed."""
    try:
        answer = client.post("/v1/adopt", {})
    except VedetteError as error:
        message = f"engine and control were replaced; what is new is not in force: {error.message}"
        raise UnavailableError("upgrade_failed", message, error.hint) from None
    return list(answer["brought"])


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
