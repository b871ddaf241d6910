"""The Core Rule Set's regression tests against an engine: `python -m tests.waf.run` (`--help` says what else it asks).

Owns the numbers: how many tests an engine passes as they are, how many after the published overrides, and, in decision
mode, how often both engines agree on blocked or not blocked, with the engine switched on.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tests.waf import configuration, engines, ftw, honest
from tests.waf.engines import Engine, Verdict

OVERRIDES = Path(__file__).with_name("overrides.yaml")
DIFFERENCES = Path(__file__).with_name("differences.yaml")
PARANOIA_LEVELS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Failure:
    """A test an engine did not pass."""

    case: ftw.Case
    why: str

    def __str__(self) -> str:
        return f"{self.case.name}: {self.why} ({self.case.description.splitlines()[:1]})"


@dataclass(frozen=True)
class Difference:
    """An exchange on which the engines decide differently."""

    case: ftw.Case
    stage: int
    paranoia: int
    ours: Verdict
    oracle: Verdict

    @property
    def name(self) -> str:
        """The test, and its stage where it has several."""
        return self.case.name + (f"/{self.stage}" if len(self.case.stages) > 1 else "")

    def __str__(self) -> str:
        ours, oracle = self.ours.ids, self.oracle.ids
        return (
            f"{self.name} at PL{self.paranoia}: ours {_decision(self.ours)}, oracle {_decision(self.oracle)}; "
            f"only ours {sorted(ours - oracle)}, only the oracle {sorted(oracle - ours)}"
        )


def _decision(verdict: Verdict) -> str:
    return (
        "died"
        if verdict.died
        else f"blocks {verdict.interruption}"
        if verdict.is_blocked
        else "passes"
    )


@contextmanager
def engine(name: str, *, mode: str, paranoia: int) -> Iterator[Engine]:
    """An engine with the rule set loaded: `ours` or `oracle`, `On` or `DetectionOnly`."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = configuration.write(folder, engine=mode, paranoia=paranoia)
        started = (
            engines.ours(files) if name == "ours" else engines.oracle(files, folder / "oracle")
        )
        with started:
            yield started


def cases() -> tuple[ftw.Case, ...]:
    """The tests a firewall can be asked, without those of the server before it."""
    return tuple(case for case in ftw.corpus() if not case.is_of_the_server)


def failures(judge: Callable[..., Verdict], asked: Iterable[ftw.Case]) -> list[Failure]:
    """The tests that the engine does not pass, in match mode."""
    found = []
    for case in asked:
        missed = [
            why for stage in case.stages if (why := miss(judge(stage.exchange), stage.expected))
        ]
        if missed:
            found.append(Failure(case, "; ".join(missed)))
    return found


def miss(verdict: Verdict, expected: ftw.Expected) -> str:
    """What is expected and not so, or nothing."""
    if verdict.died:
        return "the engine died"
    whys = []
    if lacking := set(expected.ids) - verdict.ids:
        whys.append(f"not matched {sorted(lacking)}")
    if wrong := set(expected.not_ids) & verdict.ids:
        whys.append(f"matched {sorted(wrong)}")
    if expected.pattern and not re.search(expected.pattern, verdict.log):
        whys.append(f"not in the log {expected.pattern!r}")
    if expected.not_pattern and re.search(expected.not_pattern, verdict.log):
        whys.append(f"in the log {expected.not_pattern!r}")
    return ", ".join(whys)


def overridden() -> dict[str, str]:
    """The tests that are published as not passed, each with its reason."""
    return _listed(OVERRIDES)


def explained() -> dict[str, str]:
    """The exchanges on which the engines differ in decision mode, each with its reason."""
    return _listed(DIFFERENCES)


def entries(file: Path) -> list[dict[str, Any]]:
    """What a list holds: reasons, each with the tests it is for."""
    listed: list[dict[str, Any]] = yaml.safe_load(file.read_text()) or []
    return listed


def _listed(file: Path) -> dict[str, str]:
    return {name: entry["reason"] for entry in entries(file) for name in entry["tests"]}


def differences(paranoia: int, asked: Iterable[ftw.Case]) -> list[Difference]:
    """Where the engines, switched on, do not agree on blocked or not blocked."""
    found = []
    with (
        engine("ours", mode="On", paranoia=paranoia) as ours,
        engine("oracle", mode="On", paranoia=paranoia) as oracle,
    ):
        for case in asked:
            for number, stage in enumerate(case.stages):
                mine, theirs = ours.judge(stage.exchange), oracle.judge(stage.exchange)
                if mine.died or mine.is_blocked != theirs.is_blocked:
                    found.append(Difference(case, number, paranoia, mine, theirs))
    return found


def disputed_by_oracle(asked: Iterable[ftw.Case]) -> set[str]:
    """The tests that the oracle does not pass itself: there it is no judge of ours."""
    with engine("oracle", mode="DetectionOnly", paranoia=4) as oracle:
        return {failure.case.name for failure in failures(oracle.judge, asked)}


def agreement(
    found: Iterable[Difference], asked: Iterable[ftw.Case], without: Container[str] = ()
) -> str:
    """How many exchanges are decided alike."""
    stages = sum(len(case.stages) for case in asked if case.name not in without)
    differing = sum(each.case.name not in without for each in found)
    return f"{_share(differing, stages)} of {stages}"


def main() -> int:
    """Print the numbers and what is behind them."""
    arguments = argparse.ArgumentParser(description=main.__doc__)
    arguments.add_argument("--engine", choices=("ours", "oracle"), default="ours")
    arguments.add_argument("--decisions", action="store_true", help="engine on, beside the oracle")
    arguments.add_argument("--honest", action="store_true", help="honest requests that are blocked")
    arguments.add_argument("--values", type=Path, help="with --honest: a file of honest values too")
    arguments.add_argument("--paranoia", type=int, choices=PARANOIA_LEVELS, action="append")
    arguments.add_argument("only", nargs="*", help="names of tests or rules (942100-3, 942100)")
    given = arguments.parse_args()
    asked = [
        case for case in cases() if not given.only or {case.name, str(case.rule)} & set(given.only)
    ]
    if given.decisions:
        return _print_decisions(asked, given.paranoia or PARANOIA_LEVELS)
    if given.honest:
        return _print_honest(asked, given.values, (given.paranoia or [1])[0])
    return _print_matches(given.engine, asked)


def _print_matches(name: str, asked: list[ftw.Case]) -> int:
    with engine(name, mode="DetectionOnly", paranoia=4) as judged:
        failed = failures(judged.judge, asked)
    for failure in failed:
        print(failure)
    left = [failure for failure in failed if failure.case.name not in overridden()]
    print(
        f"{name}, match mode, of {len(asked)} tests: {_share(len(failed), len(asked))} as they are, ",
        end="",
    )
    print(f"{_share(len(left), len(asked))} after the overrides")
    return bool(left)


def _print_decisions(asked: list[ftw.Case], levels: Iterable[int]) -> int:
    disputed = disputed_by_oracle(asked)
    new = 0
    for level in levels:
        found = differences(level, asked)
        for difference in found:
            print(difference)
        unexplained = [each for each in found if each.name not in explained()]
        new += len(unexplained)
        print(
            f"decision mode, PL{level}: as the oracle decides {agreement(found, asked)}; without the "
            f"{len(disputed)} tests that it does not pass itself {agreement(found, asked, without=disputed)}; "
            f"{len(unexplained)} differences are not explained in {DIFFERENCES.name}"
        )
    return bool(new)


def _print_honest(asked: list[ftw.Case], file: Path | None, paranoia: int) -> int:
    lists = {"written for this": honest.corpus(), "of the rule set": [*honest.negatives(asked)]}
    if file:
        lists[str(file)] = [*honest.values(file.read_text().splitlines())]
    new = 0
    for name, requests in lists.items():
        with engine("ours", mode="On", paranoia=paranoia) as ours:
            mine = honest.blocked(ours, requests)
        with engine("oracle", mode="On", paranoia=paranoia) as oracle:
            theirs = honest.blocked(oracle, requests)
        more = honest.more_than(theirs, mine)
        new += len(more)
        for each in mine:
            print(f"{'only ours' if each in more else 'both'}: {each}")
        print(
            f"honest requests {name}, PL{paranoia}: ours blocks {len(mine)} of {len(requests)}, the oracle "
            f"{len(theirs)}, only ours {len(more)}"
        )
    return bool(new)


def _share(failed: int, of: int) -> str:
    return f"{of - failed} ({100 * (of - failed) / max(of, 1):.2f} %)"


if __name__ == "__main__":
    sys.exit(main())
