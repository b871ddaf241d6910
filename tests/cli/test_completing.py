"""What the shell is offered when somebody presses Tab in a command about models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import commands
from tests.cli.conftest import Shell, started_node
from tests.e2e.node import PROGRAM
from tests.simulators.inspection import onnx_like

VERBS = ("show", "promote", "rollback", "remove", "alarms", "quantize", "sign", "verify")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A node with two versions of a model, and one of another."""
    file = tmp_path_factory.mktemp("models") / "m.onnx"
    with started_node(tmp_path_factory) as node:
        for content, name in ((b"one", "digits"), (b"two", "digits"), (b"three", "door")):
            file.write_bytes(onnx_like(content))
            done = node("model", "add", str(file), "--name", name)
            assert done.returncode == 0, done.stderr
        yield node


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder without files, whose names would be offered as well."""
    monkeypatch.chdir(tmp_path)


def offered(node: Shell, line: str, **more: str) -> list[str]:
    """What bash is told for a line whose last word is begun, or not yet."""
    words = line.split(" ")
    asked = {"_VEDETTE_COMPLETE": "complete_bash", "COMP_WORDS": line}
    asked |= {"COMP_CWORD": str(len(words) - 1)}
    done = commands.run([str(PROGRAM)], 60, {**node.environment, **asked, **more})
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("verb", VERBS)
def test_names_of_models_are_offered(filled: Shell, verb: str) -> None:
    assert offered(filled, f"vedette model {verb} dig") == ["digits"]
    assert offered(filled, f"vedette model {verb} d") == ["digits", "door"]


def test_names_are_offered_where_they_are_an_option_or_of_another_command(filled: Shell) -> None:
    assert offered(filled, "vedette predict do") == ["door"]
    assert offered(filled, "vedette model add m.onnx --name di") == ["digits"]


def test_versions_are_those_of_the_model_that_was_named(filled: Shell) -> None:
    for verb in ("promote", "remove", "verify"):
        assert offered(filled, f"vedette model {verb} digits --version ") == ["2", "1"]
        assert offered(filled, f"vedette model {verb} door --version ") == ["1"]
        assert offered(filled, f"vedette model {verb} none --version ") == []
        assert offered(filled, f"vedette model {verb} --version 1 di") == ["digits"]


def test_paths_are_offered_where_they_may_stand_too(filled: Shell, tmp_path: Path) -> None:
    (tmp_path / "digits.onnx").touch()
    (tmp_path / "digit[s]").mkdir()
    for verb in ("sign", "verify", "quantize"):
        found = offered(filled, f"vedette model {verb} {tmp_path}/dig")
        assert found == [f"{tmp_path}/digit[s]/", f"{tmp_path}/digits.onnx"]


def test_without_a_node_nothing_is_offered_and_nothing_said(untouched: Shell) -> None:
    assert offered(untouched, "vedette model show d") == []
    assert offered(untouched, "vedette model promote d --version ") == []


def test_the_node_that_is_named_is_asked(filled: Shell, untouched: Shell) -> None:
    line = f"vedette model show --home {filled.home.root} di"
    assert offered(untouched, line) == ["digits"]
