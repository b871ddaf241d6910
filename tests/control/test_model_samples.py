"""Samples as control fetches them: workers on real sockets that say what a test wants."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.simulators.worker_socket import answering

from vedette.config.served import ServedModel, Tensor
from vedette.config.served_samples import ServedSamples
from vedette.control import model_samples
from vedette.control.model_samples import SampleKeeper
from vedette.errors import ConfigError
from vedette.store.home import Home

WORKER = "0123456789abcdef"
SAMPLES = ServedSamples(per_million=1, inputs=("x", "t"), keep_millis=60_000, bytes=1 << 20)
MODEL = ServedModel(
    name="m",
    version=3,
    blob=f"sha256:{'a' * 64}",
    size=1,
    format="onnx",
    inputs=(
        Tensor(name="t", datatype="BYTES", shape=(0,)),
        Tensor(name="x", datatype="FP32", shape=(0, 2)),
    ),
    outputs=(Tensor(name="y", datatype="FP32", shape=(0,)),),
    samples=SAMPLES,
    worker=WORKER,
)
X: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [1, 2]}
T: dict[str, Any] = {"name": "t", "datatype": "BYTES", "shape": [1]}
CONTENT = struct.pack("<ff", 1.5, 2.5) + b"\x07\0\0\0[email]"


def given(
    inputs: Any = (X, T), content: bytes = CONTENT, left_out: object = 0, more: int = 0
) -> bytes:
    """A sample as a worker answers; `more`: by which the length of its JSON is said wrongly."""
    head = json.dumps({"inputs": inputs, "id": "SECRET"}).encode()
    return (
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\ninference-header-content-length: %d\r\n"
        b"x-vedette-left-out: %b\r\n\r\n%b%b"
        % (len(head) + len(content), len(head) + more, str(left_out).encode(), head, content)
    )


NONE = b"HTTP/1.1 204 No Content\r\nx-vedette-left-out: 2\r\n\r\n"


class Node:
    """A folder of a node with a worker in it, whose answers are `said`, one after the other, then that it has none."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.served = [MODEL]
        self.kept = {"m"}
        self.said: list[bytes] = []
        self.asked: list[bytes] = []
        self.clock = 1000.0
        self.keeper = SampleKeeper(home, lambda: self.served, lambda: self.kept, lambda: self.clock)
        self.is_("ready")

    def is_(self, state: str) -> None:
        self.home.models_state.write_text(json.dumps({"models": {WORKER: {"state": state}}}))

    def count(self) -> int:
        return sum(each.count for each in self.keeper.show("m").versions)


@pytest.fixture
def node(home: Home) -> Iterator[Node]:
    """A node whose worker answers."""
    home.create()
    node = Node(home)

    def answer(line: bytes, _body: bytes) -> bytes:
        node.asked.append(line)
        return node.said.pop(0) if node.said else NONE

    with answering(home.model_socket(WORKER), answer):
        yield node


def test_what_a_worker_has_is_kept_as_far_as_it_is_inputs(node: Node) -> None:
    node.said = [given(left_out=1), given()]
    node.keeper.look()
    assert node.asked == [b"POST /samples HTTP/1.1\r\n"] * 3
    shown = node.keeper.show("m")
    (version,) = shown.versions
    assert (version.version, version.count, version.oldest) == (3, 2, "1970-01-01T00:16:40Z")
    assert (shown.asked, shown.left_out) == (SAMPLES, 3)
    content = b"".join(each.read_bytes() for each in node.home.samples.iterdir())
    assert b"[email]" in content
    assert b"SECRET" not in content, "what else a worker says is nobody's"


@pytest.mark.parametrize(
    "said",
    [
        given(inputs=(T, X)),
        given(inputs=(X,)),
        given(inputs=(X, T, T)),
        given(inputs=(X, {**T, "name": "u"})),
        given(inputs=({**X, "datatype": "INT32"}, T)),
        given(inputs=({**X, "shape": [2, 2]}, T)),
        given(inputs=({**X, "shape": [1, 3]}, T)),
        given(inputs=({**X, "shape": [2]}, T)),
        given(inputs=({**X, "shape": [1, 2.0]}, T)),
        given(inputs=({**X, "shape": [True, 2]}, T)),
        given(inputs=({**X, "shape": "12"}, T)),
        given(inputs=({**X, "shape": [-1, 2]}, T)),
        given(inputs=(X, None)),
        given(inputs=7),
        given(content=CONTENT + b"x"),
        given(content=CONTENT[:-1]),
        given(more=1),
        given()[:-5],
        given(more=10_000),
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    ],
)
def test_what_is_no_sample_of_the_model_is_left_out(node: Node, said: bytes) -> None:
    node.said = [said, given()]
    node.keeper.look()
    assert node.count() == 1
    assert node.keeper.show("m").left_out == 3


@pytest.mark.parametrize("said", [b"", b"no HTTP", b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"])
def test_a_worker_that_does_not_answer_is_asked_another_time(node: Node, said: bytes) -> None:
    node.said = [said, given()]
    node.keeper.look()
    assert node.count() == 0
    node.keeper.look()
    assert node.count() == 1


def test_only_workers_that_run_and_whose_manifest_asks_for_it_are_asked(node: Node) -> None:
    node.is_("idle")
    node.keeper.look()
    node.is_("ready")
    node.served = [MODEL.model_copy(update={"samples": None})]
    node.keeper.look()
    assert node.asked == []
    assert not node.home.samples.exists()
    assert node.keeper.show("m").asked is None


def test_a_worker_that_never_ends_is_left_for_others(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_samples, "_AT_ONCE", 3)
    node.said = [given()] * 5
    node.keeper.look()
    assert node.count() == 3


def test_samples_go_when_their_time_is_over_though_nobody_asks_for_new_ones(node: Node) -> None:
    node.said = [given()]
    node.keeper.look()
    node.served = [MODEL.model_copy(update={"samples": None})]
    node.clock += 59
    node.keeper.look()
    assert node.count() == 1
    node.clock += 1
    node.keeper.look()
    assert node.count() == 0


def test_samples_of_a_model_that_is_gone_go_with_it(node: Node) -> None:
    node.said = [given()]
    node.keeper.look()
    node.served = []
    node.keeper.look()
    assert node.count() == 1, "a version of it is kept"
    node.kept = set()
    node.keeper.look()
    assert list(node.home.samples.iterdir()) == []


def test_what_came_while_a_model_was_removed_is_not_kept(node: Node) -> None:
    sample = model_samples.KeptSample(3, 1, 2, "{}", b"")
    node.served = []
    node.keeper._keep(MODEL, [sample])
    assert not node.home.samples.exists()


def test_an_export_leaves_nothing_behind(node: Node) -> None:
    node.said = [given()]
    node.keeper.look()
    with node.keeper.room_for_export() as folder:
        done = node.keeper.export("m", folder / "s.npz", 0, None)
        assert (done.requests, done.samples) == (1, 1)
        with pytest.raises(ConfigError) as refused:
            node.keeper.export("m", folder / "s.npz", 1001, None)
        assert refused.value.code == "samples_missing"
    assert [each.name for each in node.home.samples.iterdir() if each.is_dir()] == []
    left = node.home.samples / "export-x"
    left.mkdir()
    stopping = threading.Event()
    stopping.set()
    node.keeper.run(stopping)
    assert not left.exists(), "of a control that was killed"
