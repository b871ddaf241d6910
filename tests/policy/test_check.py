"""What the validator found, as errors a person can act on. The validator itself stands in here as data."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vedette.errors import ConfigError
from vedette.policy.check import Outline, PolicyError, Scope, check
from vedette.policy.schema import schema_text

ERROR = {
    "file": "a.cedar",
    "line": 3,
    "column": 7,
    "message": "unexpected token",
    "help": "a semicolon?",
}

OUTLINES = [
    {
        "id": "open",
        "file": "a.cedar",
        "line": 2,
        "effect": "permit",
        "principal": {"type": "Subject", "id": None},
        "resource": {"type": "Function", "id": "hello"},
        "conditional": True,
        "names": [{"type": "Function", "id": "hello"}],
        "actions": ["invoke"],
    }
]


class Validator:
    """Answers as told, and remembers what it was asked."""

    def __init__(self, errors: list[dict[str, Any]], warnings: list[dict[str, Any]]) -> None:
        self.answer = {"errors": errors, "warnings": warnings, "outlines": OUTLINES}
        self.request: dict[str, Any] = {}

    def __call__(self, request: bytes) -> bytes:
        self.request = json.loads(request)
        return json.dumps(self.answer).encode()


def test_the_schema_and_every_policy_are_sent_in_order() -> None:
    validator = Validator([], [])
    assert check(validator, {"b.cedar": "B", "a.cedar": "A"}).warnings == ()
    assert validator.request == {
        "schema": {"name": "schema.cedarschema", "text": schema_text()},
        "policies": [{"name": "a.cedar", "text": "A"}, {"name": "b.cedar", "text": "B"}],
    }


def test_the_first_error_gives_file_line_and_hint() -> None:
    with pytest.raises(ConfigError) as caught:
        check(Validator([ERROR], []), {"a.cedar": "x"})
    error = caught.value
    assert (error.code, error.file, error.line) == ("policy_invalid", "a.cedar", 3)
    assert error.hint == "a semicolon?"
    assert str(error) == "a.cedar:3: unexpected token"


def test_all_errors_are_listed() -> None:
    other = {"file": "b.cedar", "line": 1, "column": 2, "message": "no such type"}
    with pytest.raises(PolicyError) as caught:
        check(Validator([ERROR, other], []), {"a.cedar": "x"})
    assert [finding.column for finding in caught.value.findings] == [7, 2]
    assert "1 more: b.cedar:1:2: no such type" in caught.value.message


def test_warnings_do_not_refuse() -> None:
    (warning,) = check(Validator([], [{"message": "never applies"}]), {"a.cedar": "x"}).warnings
    assert str(warning) == "policy: never applies"


def test_an_error_without_a_place_still_has_a_hint() -> None:
    with pytest.raises(ConfigError) as caught:
        check(Validator([{"message": "bad"}], []), {})
    assert caught.value.hint


def test_each_policy_is_outlined() -> None:
    (outline,) = check(Validator([], []), {"a.cedar": "x"}).outlines
    assert (outline.id, outline.line, outline.effect) == ("open", 2, "permit")
    assert outline.names == (("Function", "hello"),)
    assert outline.conditional
    assert outline.principal.takes("Subject", "anybody")
    assert not outline.principal.takes("Workload", "anybody")
    assert outline.resource.takes("Function", "hello")
    assert not outline.resource.takes("Function", "other")


def test_a_policy_is_about_a_resource_only_with_the_action_that_is_asked() -> None:
    anything = Scope(None, None)

    def about(*actions: str) -> tuple[bool, bool]:
        outline = Outline("a", "a.cedar", 1, "permit", anything, anything, False, (), actions)
        return outline.is_about("Function", "hello"), outline.is_about("Model", "digits")

    assert about("invoke") == (True, False)
    assert about("predict") == (False, True)
    assert about("invoke", "predict") == about() == (True, True)
