"""The engine's process imports little and says what is wrong."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from vedette.engine import process

HEAVY = ("pydantic", "cryptography", "fastapi", "typer", "rich", "yaml", "json", "asyncio", "ssl")


def run_python(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False
    )


def test_the_engines_process_imports_nothing_heavy() -> None:
    done = run_python(
        f"import sys, vedette.engine.process; print([n for n in {HEAVY!r} if n in sys.modules])"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_without_a_configuration_it_says_who_starts_it() -> None:
    command = [sys.executable, "-P", "-m", "vedette.engine.process"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={})
    assert done.returncode == 2
    assert "vedette up" in done.stderr


def test_the_decision_that_the_process_cites_is_about_its_configuration(checkout: Path) -> None:
    [cited] = re.findall(r"ADR (\d{4})", process.__doc__ or "")
    [decision] = (checkout / "docs/adr").glob(f"{cited}-*.md")
    assert "configuration reach the engine once" in decision.read_text("utf-8")
