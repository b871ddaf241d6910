"""How the command line answers: help, exit codes, errors, and speed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from vedette import __version__
from vedette.cli import main as cli
from vedette.errors import CATALOGUE, ConfigError

NOT_FOR_HELP = ("pydantic", "fastapi", "uvicorn", "cryptography", "prometheus_client", "yaml")


def vedette(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vedette", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def commands() -> list[list[str]]:
    """The words of every command, groups included."""
    root = typer.main.get_command(cli.app)
    found: list[list[str]] = []

    def walk(command: object, words: list[str]) -> None:
        children = getattr(command, "commands", None)
        if children is None:
            found.append(words)
            return
        for name, child in children.items():
            walk(child, [*words, name])

    walk(root, [])
    return found


def command_of(words: list[str]) -> object:
    command: object = typer.main.get_command(cli.app)
    for word in words:
        command = command.commands[word]  # type: ignore[attr-defined]
    return command


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_says_what_it_does_with_an_example(words: list[str]) -> None:
    command = command_of(words)
    assert command.help  # type: ignore[attr-defined]
    example = command.epilog  # type: ignore[attr-defined]
    assert example.startswith(f"Example: vedette {' '.join(words)}")


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_example_in_the_help_parses(words: list[str]) -> None:
    command = command_of(words)
    arguments = command.epilog.split()[2 + len(words) :]  # type: ignore[attr-defined]
    context = command.make_context("vedette", arguments, resilient_parsing=False)  # type: ignore[attr-defined]
    assert context is not None


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_about_a_node_takes_home_and_every_listing_json(words: list[str]) -> None:
    options = {option for one in command_of(words).params for option in one.opts}  # type: ignore[attr-defined]
    is_of_a_node = words[0] not in ("new", "build", "version", "errors", "schema")
    if is_of_a_node and words not in (["waf", "rules", "sign"], ["model", "embed"]):
        assert "--home" in options
    if words[-1] in ("list", "status", "history", "records", "errors", "logs"):
        assert "--json" in options


def test_help_imports_nothing_heavy() -> None:
    script = "import sys, vedette.cli.main as m; print(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert [name for name in NOT_FOR_HELP if name in loaded] == []


def test_version_is_the_packages() -> None:
    assert vedette("version").stdout.strip() == __version__
    assert vedette("--version").stdout.strip() == __version__
    unknown = vedette("errors", "no_such_code")
    assert unknown.returncode == 2
    assert "no_such_code" in unknown.stderr


def test_a_node_that_is_not_running_is_exit_code_4_and_says_how_to_start_it(tmp_path: Path) -> None:
    done = vedette("status", "--home", str(tmp_path))
    assert done.returncode == 4
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"error: the node at {tmp_path} is not running",
        f"mend: Start it with: vedette up --home {tmp_path}",
    ]


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["up", "--workers", "many"], ["token"], ["deploy", "/nowhere/x.wasm"]],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    done = vedette(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["build", "deploy"])
def test_a_path_that_is_not_there_is_not_mended_by_the_same_command(command: str) -> None:
    error, mend = vedette(command, "nothere").stderr.splitlines()
    assert error == "error: there is no nothere"
    assert mend.startswith("mend: Give the path of a project folder")
    assert f"vedette {command}" not in mend


def test_a_component_is_not_built_but_deployed(tmp_path: Path) -> None:
    component = tmp_path / "hello.wasm"
    component.write_bytes(b"")
    done = vedette("build", str(component))
    assert done.returncode == 2
    assert f"mend: Deploy it: vedette deploy {component}" in done.stderr


def test_an_error_says_what_where_and_how(capsys: pytest.CaptureFixture[str]) -> None:
    cli.print_error(ConfigError("policy_invalid", "no such action", "Use invoke.", "team.cedar", 3))
    assert capsys.readouterr().err.splitlines() == [
        "error: no such action",
        "where: team.cedar:3",
        "mend: Use invoke.",
    ]


def test_a_defect_is_a_sentence_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise RuntimeError("oops")

    monkeypatch.setattr(cli, "app", broken)
    monkeypatch.delenv("VEDETTE_DEBUG", raising=False)
    assert cli.main() == 1
    assert "error: a defect in vedette: RuntimeError: oops" in capsys.readouterr().err


def test_errors_lists_every_code() -> None:
    text = vedette("errors").stdout
    assert [code for code in CATALOGUE if code not in text] == []


def test_the_module_and_the_command_are_the_same() -> None:
    assert "vedette" in vedette("--help").stdout
