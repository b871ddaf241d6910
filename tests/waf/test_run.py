"""The Core Rule Set's regression tests: the numbers that were reached, held as floors.

`python -m tests.waf.run` prints what is behind them.
"""

from __future__ import annotations

import pytest
from tests.waf import engines, ftw, run
from tests.waf.engines import Verdict
from tests.waf.exchange import read

from vedette.policy import coreruleset as crs

# libmodsecurity 3.0.9 on 4.25.0. Below it the reader or the configuration is wrong, not that engine.
ORACLE_FLOOR = 4607

needs_oracle = pytest.mark.skipif(
    not engines.has_oracle(), reason="libmodsecurity3 is not installed: make extras"
)


@pytest.fixture(autouse=True, scope="module")
def _corpus() -> None:
    if not crs.FOLDER.exists():
        pytest.fail(crs.MISSING, pytrace=False)


def verdict(*ids: int, message: str = "") -> Verdict:
    return Verdict(tuple({"id": each, "message": message, "variable": "ARGS:x"} for each in ids))


def test_an_expectation_is_missed_by_what_lacks_and_by_what_is_too_much() -> None:
    expected = ftw.Expected((1,), (2,), "ARGS:x", "forbidden", None)
    assert run.miss(verdict(1, 3), expected) == ""
    assert run.miss(verdict(3), expected) == "not matched [1]"
    assert run.miss(verdict(1, 2), expected) == "matched [2]"
    assert "in the log" in run.miss(verdict(1, message="forbidden"), expected)
    assert "not in the log" in run.miss(verdict(), ftw.Expected((), (), "ARGS:x", "", None))
    assert run.miss(Verdict(died=True), ftw.Expected((), (), "", "", None)) == "the engine died"


def test_each_override_and_difference_names_a_test_that_there_is() -> None:
    names = {case.name for case in run.cases()}
    assert set(run.overridden()) <= names
    assert {name.partition("/")[0] for name in run.explained()} <= names


def test_there_are_at_most_twenty_overrides() -> None:
    assert len(run.entries(run.OVERRIDES)) <= 20


@needs_oracle
def test_the_oracle_passes_what_it_is_known_to_pass() -> None:
    asked = run.cases()
    with run.engine("oracle", mode="DetectionOnly", paranoia=4) as oracle:
        failed = run.failures(oracle.judge, asked)
    assert len(asked) - len(failed) >= ORACLE_FLOOR, "\n".join(map(str, failed))


@needs_oracle
def test_the_oracle_blocks_an_attack_and_lets_an_honest_request_pass() -> None:
    attack, honest = (
        read(
            ftw.request(
                {"uri": uri, "headers": {"Host": "a.example", "Accept": "*/*", "User-Agent": "a"}}
            )
        )
        for uri in ("/?a=1'%20or%201=1--", "/?a=1")
    )
    with run.engine("oracle", mode="On", paranoia=1) as oracle:
        blocked = oracle.judge(attack)
        assert blocked.interruption == {"status": 403, "id": 949110}
        assert not oracle.judge(honest).is_blocked
    with run.engine("oracle", mode="DetectionOnly", paranoia=1) as oracle:
        detected = oracle.judge(attack)
        assert not detected.is_blocked
        assert detected.scores == "inbound=5 outbound=0"


def test_our_engine_passes_every_test_but_the_overridden() -> None:
    with run.engine("ours", mode="DetectionOnly", paranoia=4) as ours:
        failed = run.failures(ours.judge, run.cases())
    assert {failure.case.name for failure in failed} == set(run.overridden()), "\n".join(
        map(str, failed)
    )


@needs_oracle
@pytest.mark.timeout(900)
@pytest.mark.parametrize("paranoia", [1, 4])
def test_our_engine_decides_as_the_oracle_but_for_the_explained(paranoia: int) -> None:
    found = run.differences(paranoia, run.cases())
    unexplained = [difference for difference in found if difference.name not in run.explained()]
    assert not unexplained, "\n".join(map(str, unexplained))
