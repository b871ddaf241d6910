"""Drift as control hears of it: workers on real sockets that say what a test wants."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.simulators.worker_socket import answering

from vedette.config.served import ServedModel, Tensor
from vedette.control import worker_asking
from vedette.control.model_drift import DriftWatch
from vedette.errors import ConfigError
from vedette.store.home import Home

WORKER = "0123456789abcdef"
MODEL = ServedModel(
    name="digits",
    version=3,
    blob=f"sha256:{'a' * 64}",
    size=1,
    format="onnx",
    inputs=(Tensor(name="x", datatype="FP32", shape=(0, 64)),),
    outputs=(Tensor(name="y", datatype="FP32", shape=(0,)),),
    worker=WORKER,
)
KEPT = {"edges": [1.5], "counts": [5, 5], "now": [1, 0], "before": [3, 4]}


def column(psi: float | None = 0.02, **more: Any) -> dict[str, Any]:
    state = "steady" if psi is None or psi < 0.25 else "drifted"
    ks = None if psi is None else 0.1
    known = {"name": "x", "side": "input", "state": state, "runs": 7, "psi": psi, "ks": ks}
    return known | {"kept": KEPT} | more


FRESH = column(None, state="learning", runs=12, kept=None)


def report(*columns: dict[str, Any], state: str | None = None) -> dict[str, Any]:
    found = {each["state"] for each in columns}
    order = [each for each in ("drifted", "learning", "steady") if each in found]
    return {"state": state or order[0], "columns": list(columns)}


def reply(body: bytes, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d OK\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


class Node:
    """A folder of a node with a worker in it, whose answers are `said`, by method."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.served = [MODEL]
        self.said: dict[str, Any] = {}
        self.asked: list[tuple[str, bytes]] = []
        self.clock = 1000.0
        self.watch = self.anew()
        self.is_("ready")

    def anew(self) -> DriftWatch:
        """As after a restart of control."""
        kept = {WORKER}
        return DriftWatch(self.home, lambda: self.served, lambda: kept, lambda: self.clock)

    def is_(self, state: str) -> None:
        states = {"models": {WORKER: {"state": state}}}
        self.home.models_state.write_text(json.dumps(states))

    def drift(self, watch: DriftWatch | None = None) -> Any:
        """What is told of the model after a look."""
        watch = watch or self.watch
        watch.look()
        return watch.of(MODEL)

    def file(self) -> Path:
        return self.home.drift / f"{WORKER}.json"

    def answer(self, method: str) -> bytes:
        said = self.said.get(method)
        return said if isinstance(said, bytes) else reply(json.dumps(said).encode())


@pytest.fixture
def node(home: Home) -> Iterator[Node]:
    """A node whose worker answers."""
    home.create()
    node = Node(home)

    def answer(line: bytes, body: bytes) -> bytes:
        method = line.split()[0].decode()
        node.asked.append((method, body))
        return node.answer(method)

    with answering(home.model_socket(WORKER), answer):
        yield node


def test_what_a_worker_says_of_drift_is_told(node: Node) -> None:
    node.said["GET"] = report(column(0.6), column(0.1, name="y", side="score"))
    drift = node.drift()
    assert (drift.state, drift.psi) == ("drifted", 0.6)
    assert [(each.name, each.side, each.psi) for each in drift.columns] == [
        ("x", "input", 0.6),
        ("y", "score", 0.1),
    ]


def test_a_worker_that_rests_is_left_alone_and_what_it_last_said_counts(node: Node) -> None:
    node.said["GET"] = report(column())
    node.drift()
    asked = len(node.asked)
    node.is_("idle")
    assert node.drift().psi == 0.02
    assert len(node.asked) == asked
    assert node.drift(node.anew()).psi == 0.02, "from the file"


def test_the_next_worker_is_given_what_the_one_before_has_learnt(node: Node) -> None:
    node.said["GET"] = report(column())
    node.drift()
    node.said |= {"GET": report(FRESH), "POST": report(column(0.03))}
    for watch in (node.watch, node.anew()):
        node.asked.clear()
        assert node.drift(watch).psi == 0.03
        assert [method for method, _ in node.asked] == ["GET", "POST"]
        assert json.loads(node.asked[1][1])["columns"][0]["kept"] == KEPT


def test_what_was_learnt_is_not_lost_when_a_worker_does_not_take_it_in_time(node: Node) -> None:
    node.said["GET"] = report(column())
    node.drift()
    node.said |= {"GET": report(FRESH), "POST": b""}
    node.clock += 100
    node.drift()
    assert json.loads(node.file().read_bytes())["columns"][0]["kept"] == KEPT
    node.said["POST"] = report(FRESH)  # it takes it, and has no use for it
    node.drift()
    assert node.drift().state == "learning"


def test_a_file_is_written_when_something_was_learnt_and_then_now_and_again(node: Node) -> None:
    node.said["GET"] = report(FRESH)
    node.drift()
    assert not node.home.drift.exists()
    node.said["GET"] = report(column())
    node.drift()
    assert node.file().stat().st_mode & 0o777 == 0o600
    for ahead, psi in ((1, 0.02), (40, 0.07)):
        node.said["GET"] = report(column(0.07))
        node.clock += ahead
        node.drift()
        assert json.loads(node.file().read_bytes())["columns"][0]["psi"] == psi
    stopping = threading.Event()
    stopping.set()
    node.said["GET"] = report(column(0.09))
    node.drift()
    node.watch.run(stopping)
    assert json.loads(node.file().read_bytes())["columns"][0]["psi"] == 0.09, "at the end"


def test_what_is_of_versions_that_are_gone_is_removed(node: Node) -> None:
    node.home.drift.mkdir()
    gone = node.home.drift / "fedcba9876543210.json"
    gone.write_text("{}")
    node.said["GET"] = report(column())
    node.drift()
    assert list(node.home.drift.iterdir()) == [node.file()]


def test_a_version_that_serves_no_more_keeps_what_it_knew_last(node: Node) -> None:
    for psi in (0.02, 0.03):
        node.said["GET"] = report(column(psi))
        node.drift()
    node.served = []
    assert node.drift().psi == 0.03
    assert json.loads(node.file().read_bytes())["columns"][0]["psi"] == 0.03


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n{}",
        reply(b"[" * 60_000),
        reply(json.dumps(report(column())).encode() + b" " * 70_000),
        reply(b"{}", 404),
        reply(json.dumps(report(column(float("nan")))).encode()),
        reply(json.dumps(report(column(-1.0))).encode()),
        reply(json.dumps(report(*[column()] * 17)).encode()),
        reply(json.dumps(report(column(state="fine"), state="steady")).encode()),
        reply(json.dumps({"state": None, "columns": []}).encode()),
        reply(json.dumps(report(column(kept={**KEPT, "counts": [1] * 33}))).encode()),
    ],
)
def test_a_worker_that_says_nonsense_is_one_that_says_nothing(node: Node, said: bytes) -> None:
    node.said["GET"] = said
    assert node.drift() is None
    assert not node.home.drift.exists()


def test_a_name_that_is_no_tensor_of_the_model_is_not_shown(node: Node) -> None:
    node.said["GET"] = report(column(), column(name="\x1b[2J"), column(name="y"))
    assert [each.name for each in node.drift().columns] == ["x"]


def test_a_worker_that_dribbles_holds_nobody_up(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_asking, "PATIENCE", 0.2)
    ended = threading.Event()

    def dribble(_method: str) -> bytes:
        ended.wait(30)
        return b""

    monkeypatch.setattr(node, "answer", dribble)
    began = time.monotonic()
    assert node.drift() is None
    ended.set()
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("said", "most", "code", "words"),
    [
        (lambda: report(column(0.6)), 0.25, "model_drifted", "'x' is no longer as it was: its PSI is 0.60"),
        (lambda: report(column(0.1), column(0.3, name="y", side="score")), 0.25, "model_drifted", "score 'y'"),
        (lambda: report(column(0.2)), 0.1, "model_drifted", "more than 0.1"),
        (lambda: report(FRESH), 9.0, "model_drift_unknown", "has seen 12 of 1,000 requests"),
        (lambda: report(column(None)), 9.0, "model_drift_unknown", "too few requests"),
        (lambda: b"", 9.0, "model_drift_unknown", "says nothing of drift"),
    ],
)  # fmt: skip
def test_the_gate_is_closed_when_what_comes_has_changed_or_nobody_knows(
    node: Node, said: Callable[[], Any], most: float, code: str, words: str
) -> None:
    node.said["GET"] = said()
    with pytest.raises(ConfigError) as caught:
        node.watch.require("digits", MODEL, most)
    assert caught.value.code == code
    assert words in caught.value.message


def test_the_gate_is_open_as_long_as_what_comes_is_near_enough(node: Node) -> None:
    node.said["GET"] = report(column(0.2))
    node.watch.require("digits", MODEL, 0.25)
    node.said["GET"] = report(column(0.6))
    with pytest.raises(ConfigError, match="no longer"):
        node.watch.require("digits", MODEL, 0.25)
    node.watch.require("digits", MODEL, 0.6)
    with pytest.raises(ConfigError, match="no version of 'digits' serves"):
        node.watch.require("digits", None, 0.25)
