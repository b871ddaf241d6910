"""Facts about principals: durable, signed, told to the engine, gone at their moment."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from tests.control.conftest import ALICE, Clock, Running

from vedette.clock import now
from vedette.control import posture
from vedette.control.messages import AskedRequest, FactWish, ForgetWish
from vedette.control.posture import PAYLOAD_TYPE, Posture
from vedette.engine.client import EngineClient
from vedette.errors import ConfigError, TrustError
from vedette.identity.signer import verify_envelope

SHOP = "spiffe://edge-2.example.org/shop"


def wish(fact: str = "encrypted", **changes: object) -> FactWish:
    return FactWish(subject="alice", fact=fact, seconds=60).model_copy(update=changes)


def told(running: Running) -> dict[tuple[str, str], int]:
    """What the engine has, and that it is signed as what it is."""
    envelope = running.home.posture_file.read_bytes()
    pem = running.home.signing_public.read_bytes()
    with pytest.raises(TrustError):
        verify_envelope(envelope, pem)
    document = json.loads(verify_envelope(envelope, pem, PAYLOAD_TYPE))
    assert running.engine.posture == document
    return {(row["subject"], row["fact"]): row["expiresAt"] for row in document["facts"]}


def test_a_fact_is_kept_and_told_with_its_end(running: Running) -> None:
    before = int(now().timestamp())
    status = running.node.set_fact(wish(reason="mdm"), "uid:1")
    (end,) = told(running).values()
    assert list(told(running)) == [(ALICE, "encrypted")]
    assert before + 60 <= end <= before + 65
    assert (status.subject, status.value, status.actor, status.reason) == (
        ALICE,
        True,
        "uid:1",
        "mdm",
    )
    assert running.node.posture.statuses() == [status]
    assert "mdm" not in running.home.posture_file.read_text()


def test_a_fact_that_is_not_so_is_listed_and_the_engine_does_not_have_it(running: Running) -> None:
    running.node.set_fact(wish(), "t")
    running.node.set_fact(wish("patched", subject=SHOP), "t")
    running.node.set_fact(wish(value=False), "t")
    assert list(told(running)) == [(SHOP, "patched")]
    assert [(one.fact, one.value) for one in running.node.posture.statuses()] == [
        ("patched", True),
        ("encrypted", False),
    ]
    assert running.node.posture.of((ALICE, SHOP)) == ["patched"]


def test_facts_are_forgotten_one_or_all(running: Running) -> None:
    for fact in ("a", "b", "c"):
        running.node.set_fact(wish(fact), "t")
    assert [
        one.fact for one in running.node.forget_fact(ForgetWish(subject="alice", fact="b"))
    ] == [
        "a",
        "c",
    ]
    assert running.node.forget_fact(ForgetWish(subject=ALICE)) == []
    assert told(running) == {}
    with pytest.raises(ConfigError) as caught:
        running.node.forget_fact(ForgetWish(subject="alice"))
    assert caught.value.code == "posture_unknown"


def test_a_fact_that_has_ended_is_not_known(running: Running, clock: Clock) -> None:
    engine = EngineClient(running.home.engine_socket)
    facts = Posture(running.home, running.node._keys.signer, engine, clock)
    facts.set(wish(), "own", "t")
    facts.set(wish("later", seconds=600), "own", "t")
    clock.move(timedelta(seconds=61))
    assert [one.fact for one in facts.statuses()] == ["later"]
    assert facts.of(("own#alice",)) == ["later"]
    assert len(told(running)) == 2, "the engine knows when it ends"
    facts.prune()
    assert list(told(running)) == [("own#alice", "later")]
    version = running.engine.posture["version"]
    facts.prune()
    assert running.engine.posture["version"] == version


def test_an_engine_that_missed_it_is_told_again(running: Running) -> None:
    running.node.set_fact(wish(), "t")
    running.engine.posture = {"version": 0, "facts": []}
    running.home.posture_file.unlink()
    running.activator.reconcile()
    assert list(told(running)) == [(ALICE, "encrypted")]


def test_an_engine_that_is_away_reads_it_later(running: Running) -> None:
    running.engine_listener.close()
    running.home.engine_socket.unlink()
    running.node.set_fact(wish(), "t")
    pem = running.home.signing_public.read_bytes()
    assert verify_envelope(running.home.posture_file.read_bytes(), pem, PAYLOAD_TYPE)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"seconds": 0}, "posture_invalid"),
        ({"seconds": 31 * 86_400}, "posture_invalid"),
        ({"fact": "Disk"}, "posture_invalid"),
        ({"fact": "a,b"}, "posture_invalid"),
        ({"fact": "x" * 65}, "posture_invalid"),
        ({"subject": "anonymous"}, "principal_invalid"),
        ({"subject": "a\nb"}, "principal_invalid"),
    ],
)
def test_what_is_no_fact_is_refused(running: Running, change: dict[str, Any], code: str) -> None:
    with pytest.raises(ConfigError) as caught:
        running.node.set_fact(wish(**change), "t")
    assert caught.value.code == code
    assert not running.home.posture_file.exists()


def test_there_is_room_for_so_many(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posture, "MAX_FACTS", 1)
    running.node.set_fact(wish(), "t")
    running.node.set_fact(wish(), "t")
    with pytest.raises(ConfigError):
        running.node.set_fact(wish("other"), "t")


def test_who_explains_takes_what_is_known_unless_told_otherwise(running: Running) -> None:
    running.node.set_fact(wish(), "t")
    asked = running.node._asked(AskedRequest(subject="alice"))
    assert asked["posture"] == ["encrypted"]
    assert running.node._asked(AskedRequest(subject="bob"))["posture"] == []
    other = running.node._asked(AskedRequest(subject="alice", posture=("vpn",)))
    assert other["posture"] == ("vpn",)
