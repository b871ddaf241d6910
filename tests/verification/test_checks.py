"""What counts as passed: something was attacked and held, and the right thing works."""

from __future__ import annotations

from vedette.verification.checks import MAX_SHOWN, Trial, attempting


def test_an_attack_that_is_refused_and_a_control_that_works_pass() -> None:
    trial = Trial()
    trial.attack("a call", True)
    trial.control("the right call", True)
    trial.record("a call", True)
    told = trial.outcome()
    assert told.passed
    assert told.evidence == "1 attacks refused, 1 controls worked, 1 records found"


def test_an_attack_that_succeeds_fails_with_what_was_seen() -> None:
    trial = Trial(controls=1)
    assert not trial.attack("a call", False, "answered 200")
    assert trial.outcome().evidence == "a call was not refused (answered 200)"


def test_a_node_that_refuses_everything_does_not_pass() -> None:
    trial = Trial()
    trial.attack("a call", True)
    trial.control("the right call", False, "answered 401")
    assert not trial.outcome().passed


def test_nothing_attacked_or_nothing_controlled_is_not_passed() -> None:
    assert not Trial(attacks=1).outcome().passed
    assert not Trial(controls=1).outcome().passed
    empty = Trial(controls=1)
    empty.nothing_here("no routes")
    assert empty.outcome().passed


def test_a_missing_record_fails() -> None:
    trial = Trial(attacks=1, controls=1)
    trial.record("a call", False, None)
    assert not trial.outcome().passed


def test_what_is_not_available_does_not_pass() -> None:
    trial = Trial(attacks=1, controls=1)
    trial.unavailable("it comes later")
    told = trial.outcome()
    assert (told.passed, told.unavailable) == (False, True)


def test_an_attack_that_breaks_is_a_failure_and_not_the_end() -> None:
    trial = Trial(attacks=1, controls=1)
    with attempting(trial, "a call"):
        raise ConnectionResetError("gone")
    assert "could not be carried out (ConnectionResetError: gone)" in trial.outcome().evidence


def test_many_failures_are_counted_and_long_ones_cut() -> None:
    trial = Trial(controls=1)
    for number in range(MAX_SHOWN + 3):
        trial.attack(f"call {number}", False, "x" * 10_000)
    told = trial.outcome().evidence
    assert told.endswith("and 3 more")
    assert len(told) < 3_000
