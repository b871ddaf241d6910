"""Attacks, put into the part of a request that a rule names."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from vedette.policy.attacks import Place, exact, request

ATTACK = "1' or 1=1--"


def sent(part: str, method: str = "POST") -> dict[str, Any]:
    return request(Place(method, "shop.example.com", "/reviews", part), ATTACK)


def body_of(asked: dict[str, Any]) -> str:
    return base64.b64decode(asked["body"]).decode()


def test_an_argument_is_in_the_form_or_in_the_query() -> None:
    posted = sent("ARGS:comment")
    assert parse_qs(body_of(posted)) == {"comment": [ATTACK]}
    assert ["Content-Type", "application/x-www-form-urlencoded"] in posted["headers"]
    asked = sent("ARGS:q", "GET")
    assert parse_qs(urlsplit(asked["target"]).query) == {"q": [ATTACK]}
    assert "body" not in asked
    assert parse_qs(urlsplit(sent("ARGS_GET:q")["target"]).query) == {"q": [ATTACK]}


@pytest.mark.parametrize(
    ("part", "document"),
    [
        ("ARGS:json.user.name", {"user": {"name": ATTACK}}),
        ("ARGS_POST:json.items.array_1.note", {"items": [None, {"note": ATTACK}]}),
        ("ARGS:json.empty-key", {"": ATTACK}),
        ("ARGS:json", ATTACK),
    ],
)
def test_a_path_in_json_becomes_the_document(part: str, document: object) -> None:
    asked = sent(part, "GET")
    assert json.loads(body_of(asked)) == document
    assert asked["method"] == "POST"


def test_a_cookie_and_a_header_field_hold_it_themselves() -> None:
    assert ["Cookie", "theme=1%27%20or%201%3D1--"] in sent("REQUEST_COOKIES:theme", "GET")[
        "headers"
    ]
    fields = sent("REQUEST_HEADERS:User-Agent", "GET")["headers"]
    assert [value for name, value in fields if name == "User-Agent"] == [ATTACK]


def test_an_element_of_a_list_stands_for_all_of_them() -> None:
    assert exact("ARGS:json.a.array_12") == r"ARGS:/^json\.a\.array_[0-9]+$/"
    assert exact("ARGS:array") == "ARGS:array"
