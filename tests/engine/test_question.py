"""Questions to the engine's own code, each in a process of its own, and what becomes of their end."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from vedette.engine import question
from vedette.engine.question import Apart
from vedette.errors import UnavailableError


def program(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Another program in place of the one that asks."""
    monkeypatch.setattr(question, "PROGRAM", (sys.executable, "-c", text))


@pytest.mark.parametrize("name", ["check_snapshot", "explain", "judge"])
def test_a_refusal_of_the_engines_code_is_one_here(name: str, tmp_path: Path) -> None:
    arguments = (b"{}", b"no key") if name == "check_snapshot" else (b"no JSON",)
    with pytest.raises(ValueError, match="code") as caught:
        getattr(Apart(), name)(*arguments, str(tmp_path))
    assert {"code", "message"} <= set(json.loads(str(caught.value)))


def test_a_question_goes_there_and_its_answer_comes_back_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program(
        monkeypatch,
        "import sys; d = sys.stdin.buffer.read();"
        " sys.stdout.buffer.write(b'%s %s %d' % (*(each.encode() for each in sys.argv[1:]), len(d)))",
    )
    assert Apart().judge(b"x" * 3_000_000, "/home/engine") == b"judge /home/engine 3000000"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import sys; sys.exit('out of luck')", "judge ended with status 1: out of luck"),
        ("import os; os.kill(os.getpid(), 9)", "judge ended with status -9: no message"),
        ("import sys; print('half'); sys.exit(2)", "judge ended with status 2: no message"),
    ],
)
def test_a_process_that_breaks_is_no_refusal(
    monkeypatch: pytest.MonkeyPatch, text: str, sentence: str
) -> None:
    program(monkeypatch, text)
    with pytest.raises(UnavailableError) as caught:
        Apart().judge(b"", "/")
    assert (caught.value.code, caught.value.message) == ("question_failed", sentence)


def test_a_process_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question, "MAX_SECONDS", 0.3)
    program(monkeypatch, "import time; time.sleep(60)")
    with pytest.raises(UnavailableError, match="no answer within"):
        Apart().explain(b"", "/")
