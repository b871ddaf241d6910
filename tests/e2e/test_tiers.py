"""Tiers and remembered answers: an engine's real process, a simulator of the model's process, and others of tiers that
answer, lie, or say nothing.
"""

from __future__ import annotations

import json
import shutil
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from tests.e2e.node import new_home
from tests.e2e.spool import Line, Spool
from tests.e2e.test_models import MODEL, Engine
from tests.e2e.wire import HTTP_1
from tests.simulators.tier import TierSimulator, running_tier, tensor

from vedette.config.egress import EgressPolicy, EgressRule
from vedette.config.served import ModelLimits, RemoteModel, Tensor
from vedette.config.snapshot import ModelBackend, PathMatch, Route, Snapshot
from vedette.config.tiers import Confidence, ResultCache, Tier, Trigger
from vedette.control.bootstrap import Wish, bootstrap
from vedette.engine.client import EngineClient
from vedette.errors import ConfigError
from vedette.identity.signer import verify_envelope
from vedette.identity.tokens import facts_of
from vedette.store.activation import activate
from vedette.store.history import History
from vedette.store.home import Home

INPUTS = (
    Tensor(name="note", datatype="BYTES", shape=(1,)),
    Tensor(name="x", datatype="FP32", shape=(0, 2)),
)
OUTPUTS = (Tensor(name="score", datatype="FP32", shape=(0, 2)),)
SERVED = MODEL.model_copy(update={"inputs": INPUTS, "outputs": OUTPUTS})
INFER = "/classify/infer"
X = tensor("x", "FP32", [1, 2], [1.0, 2.0])
NOTE = tensor("note", "BYTES", [1], ["for nobody else"])
ASKED = {"id": "mine", "inputs": [X, NOTE]}
ALWAYS: tuple[Trigger, ...] = ("Failure", "Missing", "Overload")


def score(*values: float) -> dict[str, Any]:
    return tensor("score", "FP32", [1, 2], list(values))


@dataclass
class Place:
    """An engine, its model's process, and two tiers."""

    engine: Engine
    here: TierSimulator
    regional: TierSimulator
    central: TierSimulator

    def route(self, **more: Any) -> Route:
        return Route(
            name="classify",
            path=PathMatch(type="PathPrefix", value="/classify"),
            backend=ModelBackend(model="digits"),
            **more,
        )

    def tier(self, name: str, port: int, *on: Trigger, **more: Any) -> Tier:
        said = {"inputs": ("x",)} if not more.get("all_inputs") else {}
        return Tier(
            name=name,
            url=f"http://127.0.0.1:{port}",
            on=tuple(sorted(on or ALWAYS)),
            **{"model": "digits", "timeout_millis": 120_000, **said, **more},
        )

    def both(self, *on: Trigger, **more: Any) -> tuple[Tier, ...]:
        return (
            self.tier("regional", self.regional.port, *on, **more),
            self.tier("central", self.central.port, *on, **more),
        )

    def serve(
        self,
        route: Route,
        served: Any = SERVED,
        allowed: bool = True,
        remote: RemoteModel | None = None,
    ) -> None:
        """Has the engine serve the model by this route, and by no other; `remote`: one that only tiers have."""
        history = History(self.engine.home.database)
        try:
            entry = history.active()
            assert entry is not None
            keys = self.engine.keys
            text = verify_envelope(history.envelope(entry.digest), keys.signer.public_pem)
            ports = sorted({tier.url for tier in route.tiers or ()})
            rules = tuple(EgressRule(to=url, methods=("POST",)) for url in ports)
            policy = EgressPolicy(name="tiers", routes=("classify",), rules=rules)
            snapshot = Snapshot.parse(text).with_(
                models=None if remote else (served,),
                remote_models=(remote,) if remote else None,
                routes=(route,),
                egress=(policy,) if allowed and rules else None,
            )
            envelope = keys.signer.sign(snapshot.canonical_bytes())
            entry = activate(
                self.engine.home,
                history,
                digest=snapshot.digest(),
                envelope=envelope,
                action="test",
                actor="test",
            )
            EngineClient(self.engine.home.engine_socket).apply(entry.digest, entry.generation)
        finally:
            history.close()

    def ask(self, body: Any = ASKED, path: str = INFER, **fields: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": "application/json", **self.engine.authorization, **fields}
        with self.engine.client(HTTP_1) as client:
            return client.post(path, content=content, headers=headers)

    def record(self, answer: httpx.Response) -> Line:
        return self.engine.record(answer)

    def calls(self, answer: httpx.Response) -> list[Line]:
        """The records of calls that were made for a request."""
        spool = Spool(self.engine.home.spool_requests, "egress")
        asked = answer.headers["x-request-id"]
        return spool.wait_for(lambda line: line.get("requestId") == asked)


@contextmanager
def running_engine() -> Iterator[Engine]:
    """An engine of its own, until the end of the block."""
    home = Home(new_home())
    bootstrap(home, Wish(name="edge-tiers"), ["127.0.0.1"])
    engine = Engine(home)
    try:
        yield engine
    finally:
        engine.stop()
        shutil.rmtree(home.root)


@contextmanager
def running_place(engine: Engine) -> Iterator[Place]:
    """The model's process and two tiers beside it, until the end of the block."""
    path = engine.home.models_run / f"{SERVED.worker}.sock"
    with running_tier(path) as here, running_tier() as regional, running_tier() as central:
        here.answers(score(0.9, 0.1))
        regional.answers(score(0.2, 0.8))
        central.answers(score(0.3, 0.7))
        place = Place(engine, here, regional, central)
        # What another test had remembered is forgotten.
        place.serve(place.route())
        yield place


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with running_engine() as engine:
        yield engine


@pytest.fixture
def place(engine: Engine) -> Iterator[Place]:
    with running_place(engine) as place:
        yield place


def busy(status: int = 503, error: str = "the queue is full") -> dict[str, Any]:
    return {"status": status, "body": json.dumps({"error": error}).encode()}


def test_the_model_here_answers_as_long_as_it_can(place: Place) -> None:
    place.serve(place.route(tiers=place.both()))
    answer = place.ask()
    assert (answer.status_code, answer.headers["x-vedette-tier"]) == (200, "edge")
    assert not place.regional.asked
    line = place.record(answer)
    assert line["tier"] == "edge"
    assert "tiers" not in line


@pytest.mark.parametrize(
    ("status", "cause"),
    [(503, "overload"), (404, "missing"), (500, "failure"), (504, "failure")],
)
def test_what_is_not_answered_here_is_answered_by_the_next_tier(
    place: Place, status: int, cause: str
) -> None:
    place.here.says(**busy(status))
    place.serve(place.route(tiers=place.both()))
    answer = place.ask()
    assert (answer.status_code, answer.headers["x-vedette-tier"]) == (200, "regional")
    assert answer.json() == {
        "model_name": "digits",
        "model_version": "7",
        "id": "mine",
        "outputs": [score(0.2, 0.8)],
    }
    assert not place.central.asked
    line = place.record(answer)
    assert (line["tier"], line["status"], line["outcome"]) == ("regional", 200, "served")
    assert line["tiers"] == [{"tier": "edge", "cause": cause}, {"tier": "regional"}]
    assert not {"modelDigest", "cause", "runMicros"} & set(line)
    [call] = place.calls(answer)
    assert (call["tier"], call["route"], call["outcome"]) == ("regional", "classify", "served")
    assert (call["status"], call["method"], call["host"]) == (200, "POST", "127.0.0.1")


def test_a_model_that_is_being_loaded_is_missing_and_no_overload(place: Place) -> None:
    place.here.says(**busy(503, "the model is being loaded"))
    for trigger, status in (("Overload", 503), ("Missing", 200)):
        place.serve(place.route(tiers=place.both(trigger)))
        answer = place.ask()
        assert answer.status_code == status
        assert place.record(answer)["tiers"][0] == {"tier": "edge", "cause": "missing"}


def test_only_what_the_route_says_leaves_the_node(place: Place) -> None:
    place.here.says(**busy())
    place.serve(place.route(tiers=place.both()))
    answer = place.ask(cookie="session=1", **{"x-note": "mine", "x-vedette-deadline-ms": "90000"})
    assert answer.status_code == 200
    [asked] = place.regional.asked
    assert asked.target == "/v2/models/digits/infer"
    assert json.loads(asked.body) == {"inputs": [X]}
    wanted = {"content-type", "content-length", "host", "traceparent", "via"}
    wanted |= {"accept", "user-agent"}
    assert asked.fields["user-agent"] == "vedette"
    assert set(asked.fields) == wanted | {"x-vedette-deadline-ms"}
    assert 0 < int(asked.fields["x-vedette-deadline-ms"]) <= 90_000
    assert b"nobody" not in asked.body


def test_of_binary_tensors_only_the_bytes_of_named_inputs_leave(place: Place) -> None:
    place.here.says(**busy())
    place.serve(place.route(tiers=place.both()))
    note = struct.pack("<I", 6) + b"secret"
    x = struct.pack("<2f", 1.0, 2.0)

    def binary(one: dict[str, Any], size: int) -> dict[str, Any]:
        kept = {key: value for key, value in one.items() if key != "data"}
        return {**kept, "parameters": {"binary_data_size": size}}

    head = json.dumps({"inputs": [binary(NOTE, len(note)), binary(X, len(x))]}).encode()
    fields = {"inference-header-content-length": str(len(head))}
    answer = place.ask(head + note + x, **{"content-type": "application/octet-stream"}, **fields)
    assert answer.headers["x-vedette-tier"] == "regional"
    [asked] = place.regional.asked
    length = int(asked.fields["inference-header-content-length"])
    assert asked.body[length:] == x
    assert json.loads(asked.body[:length]) == {"inputs": [binary(X, len(x))]}


def test_a_request_without_what_was_to_leave_stays(place: Place) -> None:
    place.here.says(**busy())
    place.serve(place.route(tiers=place.both()))
    answer = place.ask({"inputs": [NOTE]})
    assert answer.status_code == 503
    assert not place.regional.asked
    assert not place.central.asked
    causes = [each["cause"] for each in place.record(answer)["tiers"]]
    assert causes == ["overload", "inputs_differ", "inputs_differ"]


def test_what_the_caller_has_to_mend_is_asked_of_nobody_else(place: Place) -> None:
    place.here.says(**busy(400, "the shape is wrong"))
    place.serve(place.route(tiers=place.both()))
    answer = place.ask()
    assert answer.status_code == 400
    assert not place.regional.asked
    assert "tiers" not in place.record(answer)


def test_a_model_there_may_have_a_name_that_no_model_here_can_have(place: Place) -> None:
    place.here.says(**busy())
    name = "Digits_v2.1 big:8b"
    place.regional.answers(score(0.2, 0.8), model=name)
    place.serve(place.route(tiers=(place.tier("regional", place.regional.port, model=name),)))
    answer = place.ask()
    assert (answer.status_code, answer.headers["x-vedette-tier"]) == (200, "regional")
    assert answer.json()["model_name"] == "digits"
    [asked] = place.regional.asked
    assert asked.target == "/v2/models/Digits_v2.1%20big:8b/infer"


def test_a_tier_is_asked_only_for_what_it_is_for(place: Place) -> None:
    place.here.says(**busy(404, "there is no version 9"))
    regional = place.tier("regional", place.regional.port, "Overload")
    central = place.tier("central", place.central.port, "Missing", model="other")
    place.central.answers(score(0.3, 0.7), model="other")
    place.serve(place.route(tiers=(regional, central)))
    answer = place.ask(path="/classify/versions/9/infer")
    assert answer.headers["x-vedette-tier"] == "central"
    assert answer.json()["model_name"] == "digits"
    assert not place.regional.asked
    assert [each.target for each in place.central.asked] == ["/v2/models/other/versions/9/infer"]


LIES: dict[str, Any] = {
    "another_model": lambda tier: tier.answers(score(0.2, 0.8), model="other"),
    "another_output": lambda tier: tier.answers(tensor("best", "FP32", [1, 2], [0.2, 0.8])),
    "another_datatype": lambda tier: tier.answers(tensor("score", "FP64", [1, 2], [0.2, 0.8])),
    "another_shape": lambda tier: tier.answers(tensor("score", "FP32", [1, 3], [0.2, 0.8, 0.1])),
    "more_rows": lambda tier: tier.answers(tensor("score", "FP32", [2, 2], [0.2, 0.8, 0.1, 0.9])),
    "no_rows": lambda tier: tier.answers(tensor("score", "FP32", [0, 2], [])),
    "too_few": lambda tier: tier.answers(tensor("score", "FP32", [1, 2], [0.2])),
    "no_number": lambda tier: tier.answers(score(0.2, float("nan"))),
    "no_json": lambda tier: tier.says(body=b"<html>"),
    "nothing": lambda tier: tier.says(body=b""),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_tier_that_lies_is_not_believed_and_the_next_one_answers(place: Place, lie: str) -> None:
    place.here.says(**busy())
    LIES[lie](place.regional)
    place.serve(place.route(tiers=place.both()))
    answer = place.ask()
    assert (answer.status_code, answer.headers["x-vedette-tier"]) == (200, "central")
    assert place.record(answer)["tiers"] == [
        {"tier": "edge", "cause": "overload"},
        {"tier": "regional", "cause": "tier_invalid"},
        {"tier": "central"},
    ]


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ({"body": b"x" * (17 << 20)}, "tier_too_large"),
        ({"body": b"{", "is_endless": True}, "tier_too_large"),
        ({"status": 500}, "tier_failed"),
        ({"status": 403}, "tier_refused"),
        ({"status": 302, "fields": {"location": "http://127.0.0.1:1/"}}, "tier_failed"),
    ],
)
def test_a_tier_that_says_too_much_or_no_is_followed_by_the_next(
    place: Place, said: dict[str, Any], cause: str
) -> None:
    place.here.says(**busy())
    place.regional.says(**said)
    place.serve(place.route(tiers=place.both()))
    answer = place.ask()
    assert (answer.status_code, answer.headers["x-vedette-tier"]) == (200, "central")
    assert place.record(answer)["tiers"][1] == {"tier": "regional", "cause": cause}


def test_a_slow_tier_costs_no_more_than_its_time(place: Place) -> None:
    place.here.says(**busy())
    place.regional.says(is_silent=True)
    slow = place.tier("regional", place.regional.port, timeout_millis=50)
    place.serve(place.route(tiers=(slow, place.both()[1])))
    answer = place.ask()
    assert answer.headers["x-vedette-tier"] == "central"
    assert place.record(answer)["tiers"][1] == {"tier": "regional", "cause": "timeout_whole"}


def test_nobody_waits_longer_than_the_caller(place: Place) -> None:
    place.here.says(**busy())
    place.regional.says(is_silent=True)
    place.serve(place.route(tiers=place.both()))
    answer = place.ask(**{"x-vedette-deadline-ms": "1500"})
    assert answer.status_code == 503
    causes = {each["tier"]: each["cause"] for each in place.record(answer)["tiers"]}
    assert causes == {"edge": "overload", "regional": "timeout_whole", "central": "no_time"}
    assert not place.central.asked


def test_who_cannot_be_reached_is_left_alone_after_some_tries(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    place.here.says(**busy())
    gone = place.tier("regional", port)
    place.serve(place.route(tiers=(gone, place.both()[1])))
    causes = []
    for _ in range(6):
        answer = place.ask()
        assert answer.headers["x-vedette-tier"] == "central"
        causes.append(place.record(answer)["tiers"][1]["cause"])
    assert causes == ["connect_failed"] * 5 + ["circuit_open"]


def test_when_nobody_answers_the_model_s_own_word_counts(place: Place) -> None:
    place.here.says(**busy())
    for tier in (place.regional, place.central):
        tier.says(status=503)
    place.serve(place.route(tiers=place.both()))
    answer = place.ask()
    assert answer.status_code == 503
    line = place.record(answer)
    assert line["tier"] == "edge"
    assert [each["cause"] for each in line["tiers"]] == ["overload", "tier_failed", "tier_failed"]


def test_an_answer_that_is_not_sure_is_asked_for_elsewhere(place: Place) -> None:
    confidence = Confidence(output="score", below_millionths=600_000)
    tiers = place.both("LowConfidence")
    place.serve(place.route(tiers=tiers, confidence=confidence))
    assert place.ask().headers["x-vedette-tier"] == "edge"
    place.here.answers(score(0.55, 0.45))
    place.regional.answers(score(0.51, 0.49))
    answer = place.ask()
    assert (answer.status_code, answer.headers["x-vedette-tier"]) == (200, "central")
    assert place.record(answer)["tiers"] == [
        {"tier": "edge", "cause": "low_confidence"},
        {"tier": "regional", "cause": "low_confidence"},
        {"tier": "central"},
    ]
    place.regional.says(status=500)
    place.central.says(status=500)
    answer = place.ask()
    assert (answer.status_code, answer.headers["x-vedette-tier"]) == (200, "edge")
    assert answer.json()["outputs"] == [score(0.55, 0.45)]


def test_nothing_is_no_better_than_an_answer_that_is_not_sure(place: Place) -> None:
    confidence = Confidence(output="score", below_millionths=600_000)
    # Whose rows are not told by those of its inputs: an answer may be empty.
    served = SERVED.model_copy(
        update={"inputs": (INPUTS[0], Tensor(name="x", datatype="FP32", shape=(1, 2)))}
    )
    place.here.answers(score(0.55, 0.45))
    for tier in (place.regional, place.central):
        tier.answers(tensor("score", "FP32", [0, 2], []))
    place.serve(place.route(tiers=place.both("LowConfidence"), confidence=confidence), served)
    answer = place.ask()
    assert (answer.status_code, answer.headers["x-vedette-tier"]) == (200, "edge")
    assert answer.json()["outputs"] == [score(0.55, 0.45)]
    line = place.record(answer)
    assert [each["cause"] for each in line["tiers"]] == ["low_confidence"] * 3
    assert line["tier"] == "edge"
    both = ("LowConfidence", "Overload")
    place.here.says(**busy())
    place.serve(place.route(tiers=place.both(*both), confidence=confidence), served)
    assert place.ask().json()["outputs"] == [tensor("score", "FP32", [0, 2], [])]


def test_tiers_that_lead_to_one_another_find_an_end(place: Place) -> None:
    place.here.says(**busy())
    place.serve(place.route(tiers=place.both()))
    answer = place.ask(via="1.1 vedette-tier, 1.1 vedette-tier")
    assert answer.status_code == 503
    assert not place.regional.asked
    assert place.record(answer)["tiers"][1]["cause"] == "too_many_hops"


def test_a_tier_that_no_policy_allows_is_refused_with_the_rule_that_would(place: Place) -> None:
    place.serve(place.route())
    with pytest.raises(ConfigError) as refused:
        place.serve(place.route(tiers=place.both()), allowed=False)
    rule = f'{{to: "http://127.0.0.1:{place.regional.port}", methods: [POST]}}'
    assert rule in str(refused.value)
    assert "routes: [classify]" in str(refused.value)


CACHE = ResultCache(ttl_millis=86_400_000, bytes=1 << 20)


def test_the_same_request_is_answered_again_without_the_model(place: Place) -> None:
    place.serve(place.route(cache=CACHE))
    first, again = place.ask(), place.ask()
    assert (first.headers["x-vedette-cache"], again.headers["x-vedette-cache"]) == ("miss", "hit")
    assert int(again.headers["age"]) >= 0
    assert "age" not in first.headers
    assert first.content == again.content
    assert len(place.here.asked) == 1
    assert place.ask({**ASKED, "id": "another"}).headers["x-vedette-cache"] == "miss"
    line = place.record(again)
    assert (line["cached"], line["tier"], line["status"]) == (True, "edge", 200)
    assert "cached" not in place.record(first)


def test_what_is_remembered_is_for_who_asked_and_for_nobody_without_a_right(place: Place) -> None:
    place.serve(place.route(cache=CACHE))
    bob = {"authorization": f"Bearer {place.engine.keys.tokens.mint('bob').token}"}
    assert place.ask().headers["x-vedette-cache"] == "miss"
    assert place.ask(**bob).headers["x-vedette-cache"] == "miss"
    assert place.ask(**bob).headers["x-vedette-cache"] == "hit"
    refused = place.ask(authorization="Bearer none")
    assert refused.status_code == 401
    assert "x-vedette-cache" not in refused.headers
    place.serve(place.route(cache=CACHE.model_copy(update={"scope": "Route"})))
    assert place.ask().headers["x-vedette-cache"] == "miss"
    assert place.ask(**bob).headers["x-vedette-cache"] == "hit"


def test_who_is_revoked_gets_nothing_of_what_is_remembered(place: Place) -> None:
    place.serve(place.route(cache=CACHE))
    minted = place.engine.keys.tokens.mint("mallory")
    mallory = {"authorization": f"Bearer {minted.token}"}
    place.ask(**mallory)
    assert place.ask(**mallory).headers["x-vedette-cache"] == "hit"
    client = EngineClient(place.engine.home.engine_socket)
    facts = facts_of(minted.token)
    assert facts.issuer is not None
    client.revoke([{"kind": "token", "issuer": facts.issuer, "id": facts.jti}])
    assert place.ask(**mallory).status_code == 401


def test_another_version_of_the_model_forgets(place: Place) -> None:
    place.serve(place.route(cache=CACHE))
    place.ask()
    assert place.ask().headers["x-vedette-cache"] == "hit"
    other = SERVED.model_copy(update={"version": 4, "blob": f"sha256:{'c' * 64}"})
    place.here.answers(score(0.1, 0.9))
    place.serve(place.route(cache=CACHE), other)
    answer = place.ask()
    assert answer.headers["x-vedette-cache"] == "miss"
    assert answer.json()["outputs"] == [score(0.1, 0.9)]


def test_what_failed_and_what_a_tier_said_is_not_remembered(place: Place) -> None:
    place.here.says(**busy())
    place.serve(place.route(cache=CACHE))
    for _ in range(2):
        assert place.ask().status_code == 503
    place.serve(place.route(cache=CACHE, tiers=place.both()))
    for _ in range(2):
        answer = place.ask()
        assert answer.headers["x-vedette-cache"] == "miss"
        assert answer.headers["x-vedette-tier"] == "regional"
    assert len(place.here.asked) == 4


def test_what_is_too_large_to_be_sent_twice_is_the_model_s_alone(place: Place) -> None:
    # Without a text, which the firewall would keep back.
    changed = {"limits": ModelLimits(request_bytes=64 << 20), "inputs": INPUTS[1:]}
    large = SERVED.model_copy(update=changed)
    place.serve(place.route(cache=CACHE, tiers=place.both()), large)
    body = json.dumps({"inputs": [X]}).encode()
    body += b" " * ((16 << 20) + 1 - len(body))
    answer = place.ask(body)
    assert answer.status_code == 200
    assert "x-vedette-cache" not in answer.headers
    assert [len(each.body) for each in place.here.asked] == [len(body)]
    place.here.says(**busy())
    assert place.ask(body).status_code == 503
    assert not place.regional.asked


def test_a_picture_goes_to_a_tier_only_where_all_inputs_may_leave(place: Place) -> None:
    place.here.says(**busy())
    first, _ = place.both()
    every = place.tier("central", place.central.port, all_inputs=True)
    place.serve(place.route(tiers=(first, every)), SERVED.model_copy(update={"inputs": INPUTS[1:]}))
    picture = b"\x89PNG of something"
    answer = place.ask(picture, **{"content-type": "image/png"})
    assert answer.headers["x-vedette-tier"] == "central"
    assert not place.regional.asked
    [asked] = place.central.asked
    assert (asked.body, asked.fields["content-type"]) == (picture, "image/png")
