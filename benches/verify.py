"""Measures `vedette verify`: the whole suite against a bare node, by the clock of who waits for it.

Owns: the node and the command. Must not: judge, or count a run in which a check did not pass.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from processes import BenchError

ROUNDS = 3
_VEDETTE = Path(sys.executable).with_name("vedette")
_SECONDS = 120.0


def measure_verify(say: Callable[[str], None]) -> list[float]:
    """Seconds of each round. Raises BenchError when a check has not passed or could not be made."""
    with tempfile.TemporaryDirectory(prefix="vv-") as folder:
        _vedette(
            folder,
            "up",
            "--detach",
            "--bare",
            "--listen",
            "127.0.0.1:0",
            "--metrics",
            "127.0.0.1:0",
        )
        try:
            return [_round(folder, number, say) for number in range(1, ROUNDS + 1)]
        finally:
            _vedette(folder, "down")


def _round(folder: str, number: int, say: Callable[[str], None]) -> float:
    say(f"verify: round {number} of {ROUNDS}")
    begin = time.monotonic()
    done = _vedette(folder, "verify", "--json", is_checked=False)
    took = time.monotonic() - begin
    if done.returncode:
        raise BenchError(f"vedette verify ended with {done.returncode}: {_failed(done)}")
    return took


def _failed(done: subprocess.CompletedProcess[str]) -> str:
    try:
        checks = json.loads(done.stdout)["checks"]
    except (ValueError, KeyError):
        return done.stderr[-500:]
    return "; ".join(f"{one['id']} {one['name']}" for one in checks if not one["passed"])


def _vedette(folder: str, *words: str, is_checked: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(_VEDETTE), *words, "--home", folder],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=is_checked,
        timeout=_SECONDS,
    )
