"""What egress policies come to for each function."""

from __future__ import annotations

from typing import Any

from tests.config.samples import snapshot_data

from vedette.config.leaving import answering, functions_of, tokens_of
from vedette.config.model import build
from vedette.config.snapshot import Route, Snapshot


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


def test_a_policy_is_for_the_functions_that_it_names_and_those_behind_its_routes() -> None:
    data = snapshot_data()
    (answered,) = [each for each in data["routes"] if each["backend"]["type"] == "Function"]
    rules = [minted("x")]
    made = leaving(
        {"functions": ["a"], "routes": sorted([answered["name"], "gone"]), "rules": rules},
        {"workloads": ["program"], "rules": []},
    )
    of_routes, of_programs = made.egress or ()
    assert functions_of(of_routes, made) == {"a", "hello"}
    assert functions_of(of_programs, made) == set()
    assert tokens_of(made) == {("a", ("x",)), ("hello", ("x",))}


def test_of_several_services_those_that_are_functions_answer_a_route() -> None:
    services = [
        {"kind": "Function", "name": "hello", "weight": 1},
        {"kind": "Upstream", "name": "shop", "weight": 1},
    ]
    data = snapshot_data()
    route = {**data["routes"][-1], "backend": {"type": "Services", "services": services}}
    made = build(Route, route)
    assert list(answering(made)) == ["hello"]
