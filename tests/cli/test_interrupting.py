"""Ctrl-C in commands that build or change something."""

from __future__ import annotations

import pytest
import typer

from vedette.cli.interrupting import Interrupted, said_on_interrupt


def _stopped(error: BaseException) -> int:
    with pytest.raises(typer.Exit) as ended, said_on_interrupt("Stopped; nothing was deployed"):
        raise error
    return ended.value.exit_code


def test_ctrl_c_says_what_state_things_are_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert _stopped(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "\nStopped; nothing was deployed\n"


def test_whoever_knows_better_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert _stopped(Interrupted("the node goes on")) == 130
    assert capsys.readouterr().err == "\nthe node goes on\n"


def test_other_errors_are_not_caught() -> None:
    with pytest.raises(ValueError, match="defect"), said_on_interrupt("Stopped"):
        raise ValueError("defect")
