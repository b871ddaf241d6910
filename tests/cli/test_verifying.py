"""What `vedette verify` lists and refuses without a node; with one it is in tests/verification/test_suite.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests import commands
from tests.cli.conftest import COMMAND

from vedette.cli import verifying


def run(*arguments: str, home: Path) -> tuple[int, str, str]:
    done = commands.run(
        [*COMMAND[1:], "verify", *arguments],
        60,
        {"VEDETTE_HOME": str(home), "PATH": "/usr/bin:/bin"},
    )
    return done.returncode, done.stdout, done.stderr


def test_the_list_needs_no_node_and_has_all_checks(tmp_path: Path) -> None:
    code, out, _ = run("--list", "--json", home=tmp_path)
    listed = json.loads(out)
    assert code == 0
    assert [one["id"] for one in listed] == list(range(1, 27))
    assert all(one["available"] for one in listed)
    assert len(run("--list", home=tmp_path)[1].splitlines()) == 27


@pytest.mark.parametrize(
    "arguments",
    [
        ("--list", "--check", "x"),
        ("--as-compromised", "--only", "3"),
        ("--list", "--out", "x"),
        ("--check", "x", "--out", "y"),
        ("--only", "28"),
    ],
)
def test_options_that_exclude_each_other_are_refused(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    code, _, said = run(*arguments, home=tmp_path)
    assert code == 2
    assert "error: " in said


def test_without_a_node_nothing_is_attacked(tmp_path: Path) -> None:
    code, out, said = run("--only", "1", home=tmp_path)
    assert (code, out) == (4, "")
    assert "is not running" in said


def test_evidence_that_nobody_could_sign_is_refused_before_the_attacks(tmp_path: Path) -> None:
    code, out, said = run("--as-compromised", "--out", str(tmp_path / "x"), home=tmp_path)
    assert (code, out) == (2, "")
    assert "audit.key" in said
    assert "Starting" not in said


def test_every_check_is_printed_once_and_failures_with_what_mends_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = {"pillars": ["Data"], "evidence": "x\x1b[2J", "mend": "do this", "available": True}
    tenets = ["T1 one", "T2 two"]
    checks = [
        {**row, "id": 1, "name": "first", "passed": True, "tenets": tenets},
        {**row, "id": 2, "name": "second", "passed": False, "tenets": tenets[1:]},
    ]
    groups = [{"name": name, "passed": False, "checks": [1, 2]} for name in tenets]
    facts = {"durationSeconds": 1.0, "node": "n", "snapshot": None, "version": "v"}
    verifying._print({**facts, "checks": checks, "tenets": groups})
    out = capsys.readouterr().out
    assert out.count("first") == 1
    assert "2 second: NO\n  mend: do this" in out
    assert "1 of 2 checks passed" in out
    assert "\x1b" not in out
