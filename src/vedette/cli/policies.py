"""`vedette policy …`: what callers may do, in Cedar.

Owns: the options of these commands, and naming the person's own file in an error. Must not: judge a policy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vedette.cli import explaining
from vedette.cli.options import HomeOption, JsonOption, client_of
from vedette.cli.render import print_json, print_table, say, say_if_away
from vedette.errors import ConfigError, VedetteError

_policies = typer.Typer(help="What callers may do, in Cedar.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(help="File name, such as team.cedar.")]
FileArgument = Annotated[Path, typer.Argument(help="File with Cedar text.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    _policies.command("list", epilog="Example: vedette policy list")(list_)
    _policies.command("show", epilog="Example: vedette policy show default.cedar")(show)
    _policies.command("set", epilog="Example: vedette policy set team.cedar ./team.cedar")(set_)
    _policies.command("remove", epilog="Example: vedette policy remove team.cedar")(remove)
    _policies.command("check", epilog="Example: vedette policy check ./team.cedar")(check)
    explaining.register(_policies)
    app.add_typer(_policies, name="policy")


def list_(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List policy files."""
    policies = client_of(home).get("/v1/policies")
    if as_json:
        print_json(policies)
        return
    rows = [(one["name"], f"{len(one['text'].splitlines())} lines") for one in policies]
    print_table(("name", "size"), rows, "There is no policy: everything is refused")


def show(name: NameArgument, home: HomeOption = None) -> None:
    """Print a policy file."""
    print(client_of(home).get(_path(name))["text"], end="")


def set_(
    name: NameArgument,
    file: Annotated[
        Path | None, typer.Argument(help="File with Cedar text; default: the file NAME.")
    ] = None,
    home: HomeOption = None,
) -> None:
    """Check a policy file and put it in force, under the name of the file unless another is given."""
    if file is None:
        file, name = Path(name), Path(name).name
        if not file.exists():
            hint = "Write: vedette policy set NAME FILE, or only the FILE."
            raise ConfigError("file_unreadable", f"there is no file {file}", hint)
    for warning in _checked(file, name, home):
        say(f"warning: {warning}")
    say_if_away(_sent(file, name, lambda wish: client_of(home).put(_path(name), wish)))
    say(f"{name} is in force")


def remove(name: NameArgument, home: HomeOption = None) -> None:
    """Remove a policy file."""
    from vedette.policy.defaults import DEFAULT_POLICY_NAME

    say_if_away(client_of(home).delete(_path(name)))
    say(f"Removed {name}; `vedette rollback` brings it back")
    if name == DEFAULT_POLICY_NAME:
        say(
            "It let in who holds a token of this node: they are refused now, unless another permits"
        )


def check(file: FileArgument, home: HomeOption = None) -> None:
    """Check a policy file beside those in force, and change nothing."""
    for warning in _checked(file, file.name, home):
        say(f"warning: {warning}")
    say(f"{file} is valid")


def _checked(file: Path, name: str, home: Path | None) -> list[str]:
    """Warnings about the file, were it in force under that name."""
    path = f"{_path(name)}/check"
    answer = _sent(file, name, lambda wish: client_of(home).post(path, wish))
    return list(answer["warnings"])


def _path(name: str) -> str:
    from vedette.control.client import segment

    return f"/v1/policies/{segment(name)}"


def _sent(file: Path, name: str, send: Any) -> dict[str, Any]:
    """Sends the text of `file`; an error about it names the file as the person wrote it."""
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError("policy_invalid", f"not UTF-8: {error.reason}", file=str(file)) from None
    except OSError as error:
        message = f"cannot read {file}: {error.strerror}"
        raise ConfigError("file_unreadable", message) from None
    try:
        answer: dict[str, Any] = send({"text": text})
    except VedetteError as error:
        if error.file == name:
            error.file = str(file)
        raise
    return answer
