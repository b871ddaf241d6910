"""What egress policies come to for each function."""

from __future__ import annotations

from typing import Any

from tests.config.samples import snapshot_data

from vedette.config.leaving import tokens_of
from vedette.config.model import build
from vedette.config.snapshot import Snapshot


def minted(*audience: str) -> dict[str, Any]:
    """A rule that adds a JWT-SVID."""
    asked = {"jwtSvid": {"audience": list(audience)}}
    return {"to": "https://a.example.com", "credential": asked}


def leaving(*policies: dict[str, Any]) -> Snapshot:
    """The sample with these policies of egress."""
    named = [{"name": f"p{number}", **each} for number, each in enumerate(policies)]
    return build(Snapshot, {**snapshot_data(), "egress": named})


def test_each_function_has_a_token_for_each_list_of_audiences() -> None:
    plain = {"to": "https://b.example.com"}
    kept = {"to": "https://c.example.com", "credential": {"credential": "key"}}
    found = tokens_of(
        leaving(
            {"functions": ["a", "hello"], "rules": [minted("x"), plain, kept, minted("x", "y")]},
            {"functions": ["hello"], "rules": [minted("x")]},
            {"functions": ["b"], "rules": [plain, kept]},
        )
    )
    assert found == {
        ("a", ("x",)),
        ("a", ("x", "y")),
        ("hello", ("x",)),
        ("hello", ("x", "y")),
    }
    assert tokens_of(leaving()) == set()
