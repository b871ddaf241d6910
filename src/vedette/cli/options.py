"""Options that several commands share, and how they are read.

Owns: `--home`, `--json` and lists written with commas. Must not: print.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vedette.errors import ConfigError

if TYPE_CHECKING:
    from vedette.control.client import ControlClient
    from vedette.store.home import Home

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        help="The node's home folder (or VEDETTE_HOME).",
        file_okay=False,
        show_default="~/.local/share/vedette",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def home_of(option: Path | None) -> Home:
    """The home folder that the option, else the environment, names."""
    from vedette.store.home import Home

    home = Home.default() if option is None else Home(option)
    return Home(home.root.expanduser().resolve())


def client_of(option: Path | None) -> ControlClient:
    """The client of that node's admin API."""
    from vedette.control.client import ControlClient

    return ControlClient(home_of(option))


def split_list(values: Iterable[str]) -> list[str]:
    """Values of an option that may be repeated and may hold commas."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def pairs(values: Iterable[str], option: str) -> dict[str, str]:
    """`K=V` values as a mapping. Raises `ConfigError` request_invalid."""
    found = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise ConfigError(
                "request_invalid",
                f"{option} {value} has no value",
                f"Write {option} {key or 'KEY'}=VALUE.",
            )
        found[key] = text
    return found
