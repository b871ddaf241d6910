"""A saved plan: one changed byte is noticed."""

from __future__ import annotations

import json
import random

import pytest

from vedette.control.messages import PlanAnswer
from vedette.control.plan_file import seal, unseal
from vedette.errors import VedetteError
from vedette.ids import digest_of

PLAN = PlanAnswer.model_validate(
    {
        "base": "sha256:" + "a" * 64,
        "digest": "sha256:" + "b" * 64,
        "changes": [{"action": "create", "kind": "Route", "name": "r", "fields": [{"path": "x", "new": 0}]}],
        "notes": ["Grüße"],
        "unbuilt": [],
        "blobs": [digest_of(b"content")],
        "payload": "{}",
        "texts": {},
        "applied": [],
    }
)  # fmt: skip
SEALED = seal(PLAN, {digest_of(b"content"): b"content"}, {digest_of(b"content")})


def _code(data: bytes) -> str:
    with pytest.raises(VedetteError) as caught:
        unseal(data, "edge.plan")
    assert caught.value.file == "edge.plan"
    return caught.value.code


def test_what_was_sealed_comes_back() -> None:
    saved, contents = unseal(SEALED, "edge.plan")
    assert saved.plan == PLAN
    assert contents == {digest_of(b"content"): b"content"}
    assert saved.components == (digest_of(b"content"),)


def test_any_changed_byte_is_noticed() -> None:
    chance = random.Random(4)
    for place in {0, len(SEALED) - 1, *(chance.randrange(len(SEALED)) for _ in range(300))}:
        flipped = SEALED[:place] + bytes([SEALED[place] ^ 1]) + SEALED[place + 1 :]
        assert _code(flipped) in ("plan_altered", "plan_invalid")
    assert _code(SEALED[:-1]) == _code(SEALED + b" ") == _code(SEALED[: len(SEALED) // 2])


def test_a_checksum_that_fits_does_not_make_other_content_a_plan() -> None:
    document = json.loads(SEALED)
    document["contents"] = {digest_of(b"content"): "AAAA"}
    document.pop("checksum")
    text = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    document["checksum"] = digest_of(text)
    again = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    assert _code(again + b"\n") == "plan_altered"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "plan_invalid"),
        (b"apiVersion: x", "plan_invalid"),
        (b"{}", "plan_altered"),
        (b"[" * 10_000, "plan_invalid"),
        (b'{"a":' * 10_000, "plan_altered"),
        (b'{"checksum":1}\n', "plan_altered"),
    ],
)
def test_what_is_no_plan_is_refused(data: bytes, code: str) -> None:
    assert _code(data) == code
