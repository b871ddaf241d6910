"""`make fuzz`: hostile input against every parser, one after the other, and what came of it.

Owns: where the corpus lies, the time each target has, and the table at the end. Must not: know what a target checks.
Exit code 1 when there is a finding, 2 when a target is not known.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SEEDS = HERE / "seeds"
VARIABLE = "VEDETTE_FUZZ_TARGET"

_CURRENT = "current"
_MEMORY_MB = 1024
_SLOW_SECONDS = 10
_LONGEST = {
    "http1": 8192,
    "http2": 8192,
    "snapshot": 16_384,
    "envelope": 4096,
    "certificate": 4096,
    "country": 4096,
    "hello": 4096,
}
_LONGEST_OTHERS = 1024


@dataclass(frozen=True, slots=True)
class Result:
    """What one target did: how often it ran, how much of the code it has reached, and what ended it."""

    target: str
    runs: int
    covered: str
    findings: list[Path]


def main() -> int:
    """Runs the targets asked for, all of them when none is named."""
    options = _options()
    known = sorted(folder.name for folder in SEEDS.iterdir())
    wanted = options.target or known
    if unknown := sorted(set(wanted) - set(known)):
        print(f"error: no target {', '.join(unknown)}", file=sys.stderr)
        print(f"mend: choose from {' '.join(known)}", file=sys.stderr)
        return 2
    results = [_run(options, target) for target in wanted]
    print(f"\n{'target':<14}{'runs':>12}  {'coverage':<28}findings")
    for result in results:
        found = len(result.findings) or "none"
        print(f"{result.target:<14}{result.runs:>12}  {result.covered:<28}{found}")
    findings = [(result.target, found) for result in results for found in result.findings]
    for target, found in findings:
        program = " ".join(_program(options, target))
        print(f"\nfinding: {found}\nrun it again: {VARIABLE}={target} {program} {found}")
    if findings:
        print("\nmend the defect, and keep the input: cp FINDING crates/fuzz/seeds/TARGET/")
    return int(bool(findings))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", type=Path, required=True, help="the built vedette-fuzz")
    parser.add_argument("--folder", type=Path, required=True, help="corpus and findings")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("target", nargs="*")
    return parser.parse_args()


def _run(options: argparse.Namespace, target: str) -> Result:
    corpus = options.folder / "corpus" / target
    findings = options.folder / "findings" / target
    for folder in (corpus, findings):
        folder.mkdir(parents=True, exist_ok=True)
    before = set(findings.iterdir())
    print(f"{target}: {options.seconds} s", flush=True)
    done = subprocess.run(
        [
            *("nice", "-n", "10"),
            *_program(options, target),
            *(str(corpus), str(SEEDS / target)),
            f"-max_total_time={options.seconds}",
            f"-max_len={_LONGEST.get(target, _LONGEST_OTHERS)}",
            f"-rss_limit_mb={_MEMORY_MB}",
            f"-timeout={_SLOW_SECONDS}",
            f"-artifact_prefix={findings}/",
            "-print_final_stats=1",
            "-use_value_profile=1",
        ],
        env={**os.environ, VARIABLE: target},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    said = done.stderr.decode(errors="replace")
    with contextlib.suppress(FileNotFoundError):  # what a target in Python died of
        (findings / _CURRENT).rename(findings / f"died-{time.time_ns()}")
    found = sorted(set(findings.iterdir()) - before)
    if done.returncode != 0:
        print(said[-3000:], file=sys.stderr)
        found = found or [findings]
    return Result(target, _last(r"number_of_executed_units: (\d+)", said), _coverage(said), found)


def _program(options: argparse.Namespace, target: str) -> list[str]:
    """Targets in Python are programs of their own that take the same flags."""
    script = HERE / f"{target}.py"
    return [sys.executable, str(script)] if script.exists() else [str(options.program)]


def _last(pattern: str, said: str) -> int:
    found = re.findall(pattern, said)
    return int(found[-1]) if found else 0


def _coverage(said: str) -> str:
    found = re.findall(r"cov: (\d+) ft: (\d+)", said)
    return f"{found[-1][0]} edges, {found[-1][1]} features" if found else "-"


if __name__ == "__main__":
    sys.exit(main())
