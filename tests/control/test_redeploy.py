"""What a deployment says it has changed."""

from __future__ import annotations

import pytest
from tests.control.conftest import Running
from tests.control.test_node import upload

from vedette.config.difference import FieldChange
from vedette.control.messages import Deployed, FunctionWish


def _deploy(running: Running, content: bytes | None = None, **wish: object) -> Deployed:
    component = upload(running) if content is None else upload(running, content)
    body = FunctionWish.model_validate({"component": component, **wish})
    return running.node.deploy("hello", body, "test")


def _changes(answer: Deployed) -> list[tuple[str, object, object]]:
    return [(each.path, each.old, each.new) for each in answer.changes]


def test_a_new_function_has_changed_nothing(running: Running) -> None:
    assert _deploy(running, public=True, env={"A": "1"}).changes == ()


def test_other_code_with_the_same_settings_has_changed_nothing(running: Running) -> None:
    _deploy(running)
    assert _deploy(running, b"\0asm\x0d\x00\x01\x00" + b"another").changes == ()


def test_what_was_set_and_is_not_said_again_is_told(running: Running) -> None:
    limits = {"memoryBytes": 67_108_864}
    _deploy(running, public=True, limits=limits, route="/h", allowedHosts=["https://a.example.com"])
    assert _changes(_deploy(running)) == [
        ("public", True, False),
        ("allowedHosts", ["https://a.example.com"], None),
        ("limits.memoryBytes", 67_108_864, 134_217_728),
        ("route.path.value", "/h", "/hello"),
    ]


def test_the_values_of_the_environment_are_not_told(running: Running) -> None:
    _deploy(running, env={"GONE": "s3cret", "KEPT": "s3cret", "SAME": "x"}, config={"c": "s3cret"})
    answer = _deploy(running, env={"KEPT": "t0ken", "NEW": "t0ken", "SAME": "x"})
    assert _changes(answer) == [
        ("config.c", "(set)", None),
        ("env.GONE", "(set)", None),
        ("env.KEPT", "(set)", "(changed)"),
        ("env.NEW", None, "(set)"),
    ]
    assert "s3cret" not in answer.model_dump_json()
    assert "t0ken" not in answer.model_dump_json()


@pytest.mark.parametrize("public", [True, False])
def test_a_function_of_another_name_is_not_told(running: Running, public: bool) -> None:
    _deploy(running, public=public)
    body = FunctionWish.model_validate({"component": upload(running), "public": not public})
    assert running.node.deploy("other", body, "test").changes == ()
    assert (
        FieldChange(path="public", old=public, new=not public)
        in _deploy(running, public=not public).changes
    )
