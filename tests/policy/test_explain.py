"""The query to the engine's explanation, and what its refusals become."""

from __future__ import annotations

import json

import pytest

from vedette.errors import ConfigError
from vedette.policy.explain import explain


def test_policies_go_sorted_and_answers_come_back() -> None:
    seen = {}

    def native(query: bytes, engine_dir: str) -> bytes:
        seen.update(json.loads(query), engine_dir=engine_dir)
        return b'[{"allowed": true}]'

    policies = {"b.cedar": "2", "a.cedar": "1"}
    assert explain(native, "/x", "sha256:0", policies, [{"path": "/"}]) == [{"allowed": True}]
    assert [one["name"] for one in seen["policies"]] == ["a.cedar", "b.cedar"]
    assert (seen["digest"], seen["engine_dir"]) == ("sha256:0", "/x")
    assert "entity Workload" in seen["schema"]["text"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("function_unknown", "function_unknown"),
        ("policy_invalid", "policy_invalid"),
        ("request_malformed", "request_invalid"),
        ("blob_corrupt", "snapshot_invalid"),
    ],
)
def test_a_refusal_becomes_our_error(code: str, expected: str) -> None:
    def native(_query: bytes, _engine_dir: str) -> bytes:
        raise ValueError(json.dumps({"code": code, "message": "why"}))

    with pytest.raises(ConfigError) as caught:
        explain(native, "/x", "sha256:0", {}, [])
    assert (caught.value.code, caught.value.message) == (expected, "why")
