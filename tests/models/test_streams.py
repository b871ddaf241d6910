"""Streams of a worker: detectors against a published implementation, and the two ways to talk to one."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from river import anomaly
from river.drift import ADWIN
from tests.models.stream import Stream, answers
from tests.models.workers import WAIT, Worker, drain, inspect, served, tensor, worker
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, unix_connect

TWO = [{"name": "temp", "min": 0, "max": 1}, {"name": "flow", "min": 0, "max": 1}]
GIVES = [tensor("score", [1], "FP64"), tensor("alarm", [1], "BOOL"), tensor("drift", [1], "BOOL")]
Start = Callable[..., Worker]


def detector(**more: Any) -> bytes:
    """A detector's file."""
    return json.dumps({"detector": "half-space-trees", "features": TWO, **more}).encode()


def as_served(file: bytes, **more: Any) -> dict[str, Any]:
    """What the node says of it."""
    features = json.loads(file)["features"]
    inputs = [tensor(each["name"], [1], "FP64") for each in features]
    return served(file, inputs, GIVES, format="detector", **more)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts workers of detectors, which end with the tests."""
    with ExitStack() as started:

        def run(file: bytes | None = None, **more: Any) -> Worker:
            file = file or detector()
            folder = tmp_path_factory.mktemp("detector")
            found = started.enter_context(worker(folder, file, as_served(file, **more)))
            assert found.ready.get("ready"), found.ready
            return found

        yield run


@pytest.fixture(scope="module")
def usual(start: Start) -> Worker:
    """A worker of a detector with nothing special."""
    return start()


def cloud(count: int, seed: int, every: int = 97) -> tuple[list[list[float]], list[bool]]:
    """Events around two places, every so many of which lies anywhere; and which those are."""
    drawn = random.Random(seed)
    events, labels = [], []
    for number in range(count):
        is_odd = number > 0 and number % every == 0
        at = [drawn.random(), drawn.random()]
        if not is_odd:
            middle = drawn.choice([(0.3, 0.7), (0.6, 0.4)])
            at = [min(max(drawn.gauss(each, 0.04), 0.0), 1.0) for each in middle]
        events.append(at)
        labels.append(is_odd)
    return events, labels


def auc(scores: list[float], labels: list[bool]) -> float:
    """How likely an odd event scores higher than a usual one (Mann-Whitney)."""
    odd = np.array([score for score, label in zip(scores, labels, strict=True) if label])
    even = np.array([score for score, label in zip(scores, labels, strict=True) if not label])
    above = (odd[:, None] > even[None, :]).mean()
    equal = (odd[:, None] == even[None, :]).mean()
    return float(above + equal / 2)


# --- the algorithms


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_scores_tell_odd_events_from_usual_ones_as_well_as_river_does(
    start: Start, seed: int
) -> None:
    """Both draw their trees at random: within 0.02 of each other in AUC. Event by event two of river's own, of other
    seeds, are correlated by 0.74 to 0.97.
    """
    events, labels = cloud(6_000, seed)
    started = start(detector(trees=50, depth=8, window=250, seed=seed))
    own = [each["score"] for each in answers(started, events)]
    peer = anomaly.HalfSpaceTrees(n_trees=50, height=8, window_size=250, seed=seed)
    theirs = []
    for temp, flow in events:
        event = {"temp": temp, "flow": flow}
        theirs.append(peer.score_one(event))
        peer.learn_one(event)
    assert own[:250] == theirs[:250] == [0] * 250
    mine, other = auc(own[250:], labels[250:]), auc(theirs[250:], labels[250:])
    assert mine > 0.9
    assert abs(mine - other) < 0.02, (mine, other)
    together = np.corrcoef(own[250:], theirs[250:])[0, 1]
    assert together > 0.6, together


@pytest.mark.parametrize(("before", "after"), [(0.3, 0.7), (0.5, 0.58), (0.8, 0.2)])
def test_a_change_is_told_at_the_event_at_which_river_tells_it(
    start: Start, before: float, after: float
) -> None:
    features = [{"name": "x", "min": 0, "max": 1}]
    drift = {"adwin": {"delta": 0.002}}
    started = start(detector(features=features, drift=drift))
    for seed in range(5):
        drawn = random.Random(seed)
        means = [before] * 2_000 + [after] * 2_000
        values = [min(max(drawn.gauss(each, 0.1), 0.0), 1.0) for each in means]
        told = [
            each["n"] for each in answers(started, [[each] for each in values]) if each["drift"]
        ]
        peer = ADWIN(delta=0.002)
        theirs = next(n for n, each in enumerate(values, 1) if _tells(peer, each))
        assert told[0] == theirs
        assert 2_000 < told[0] < 2_400


def _tells(peer: ADWIN, value: float) -> bool:
    peer.update(value)
    return bool(peer.drift_detected)


def test_nothing_is_told_of_a_stream_that_does_not_change(start: Start) -> None:
    drift = {"adwin": {"delta": 0.002}}
    started = start(detector(drift=drift))
    events, _ = cloud(5_000, 4, every=10_000)
    found = answers(started, events)
    assert not any(each["drift"] for each in found)


def test_ranges_that_are_not_given_are_learnt_from_the_first_window(start: Start) -> None:
    features = [{"name": "temp"}, {"name": "flow"}]
    started = start(detector(features=features, window=100, threshold=0.9))
    drawn = random.Random(5)
    events = [[drawn.gauss(900, 5), drawn.gauss(-0.01, 0.001)] for _ in range(1_000)]
    events[800] = [990.0, 0.05]
    scores = [each["score"] for each in answers(started, events)]
    assert scores[:200] == [0] * 200
    assert np.argmax(scores) == 800


# --- lines over HTTP


def test_each_event_is_answered_before_the_next_one_is_sent(usual: Worker) -> None:
    with Stream(usual) as stream:
        assert (stream.status, stream.headers["content-type"]) == (200, "application/x-ndjson")
        said = stream.ask({"flow": 0.5, "temp": 0.25, "id": "a", "at": "12:00"})
        assert said == {"n": 1, "id": "a", "score": 0, "alarm": False, "drift": False}
        assert stream.ask([0.1, 0.2]) == {"n": 2, "score": 0, "alarm": False, "drift": False}
        assert stream.ask({"temp": 0.1, "flow": 0.2, "id": 7})["id"] == 7
        stream.end()
        assert stream.line() is None


def test_a_line_may_come_in_any_pieces(usual: Worker) -> None:
    with Stream(usual) as stream:
        for byte in b"[0.1,0.2]\r\n\n[0.3,0.4]\n[0.5,0.6]":
            stream.send_bytes(bytes([byte]))
        stream.end()
        assert [(stream.line() or {}).get("n") for _ in range(4)] == [1, 2, 3, None]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"x", "a JSON object or a list"),
        (b"{", "is expected there"),
        (b"[0.1]", '"flow" is missing'),
        (b"[0.1,0.2,0.3]", "has 2 numbers"),
        (b'{"temp":1,"temp":1,"flow":1}', "twice"),
        (b"[NaN,1]", "a number is expected"),
        (b"[1e999,1]", "between"),
        (b'["1",1]', "a number is expected"),
        (b"\xff\xfe", "a JSON object or a list"),
        (b'{"temp":1,"flow":1,"\xff":1}', "UTF-8"),
        (b"[" * 10_000, "expected"),
        (b"[0.1," + b" " * 65_536 + b"0.2]", "longer than 65536 bytes"),
    ],
)
def test_what_is_no_event_is_told_why_and_the_stream_goes_on(
    usual: Worker, line: bytes, words: str
) -> None:
    with Stream(usual) as stream:
        assert stream.ask([0.1, 0.2])["n"] == 1
        stream.send_bytes(line + b"\n")
        said = stream.line()
        assert said is not None
        assert said["n"] == 2
        assert words in said["error"]
        assert stream.ask([0.1, 0.2])["n"] == 3


def test_a_line_without_an_end_costs_no_more_than_the_longest_line(usual: Worker) -> None:
    before = _resident(usual)
    with Stream(usual) as stream:
        piece = b"x" * 65_536
        for _ in range(500):
            stream.send_bytes(piece)
        stream.send_bytes(b"\n[0.1,0.2]\n")
        assert "longer" in (stream.line() or {})["error"]
        assert (stream.line() or {})["n"] == 2
    assert _resident(usual) - before < 16 << 20


def _resident(started: Worker) -> int:
    pages = Path(f"/proc/{started.process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


def test_who_does_not_read_is_read_from_no_more(usual: Worker) -> None:
    with Stream(usual) as stream:
        stream.socket.setblocking(False)
        line = b"[0.1,0.2]\n" * 1_000
        chunk = b"%x\r\n%s\r\n" % (len(line), line)
        sent, waits = 0, 0
        while waits < 20:
            try:
                sent += stream.socket.send(chunk)
                waits = 0
            except BlockingIOError:
                waits += 1
                time.sleep(0.05)
            assert sent < 32 << 20
        with Stream(usual) as other:  # who reads is not held up
            assert other.ask([0.1, 0.2])["n"] == 1


def test_a_detector_is_asked_by_streams_alone(usual: Worker) -> None:
    refused = usual.infer({"inputs": []})
    assert refused.status == 400
    assert "stream" in refused.json["error"]
    wrong = usual.ask("GET", "/stream")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
    metadata = usual.ask("GET", "").json
    assert metadata["platform"] == "vedette_detector"
    assert [each["name"] for each in metadata["inputs"]] == ["temp", "flow"]
    assert usual.ask("GET", "/ready").status == 200


# --- what streams keep


def test_a_stream_with_a_name_goes_on_where_it_was_left(usual: Worker) -> None:
    with Stream(usual, "?stream=line-3") as stream:
        assert stream.ask([0.1, 0.2])["n"] == 1
        with Stream(usual, "?stream=line-3") as second:
            assert second.status == 409
            assert "another connection" in json.loads(second.body())["error"]
        assert stream.ask([0.1, 0.2])["n"] == 2
        stream.end()
        assert stream.line() is None
    with Stream(usual, "?stream=line-3") as stream:
        assert stream.ask([0.1, 0.2])["n"] == 3
    with Stream(usual, "?stream=line-4") as stream:
        assert stream.ask([0.1, 0.2])["n"] == 1


def test_a_stream_whose_connection_broke_can_be_taken_up_again(usual: Worker) -> None:
    with Stream(usual, "?stream=broken") as stream:
        assert stream.ask([0.1, 0.2])["n"] == 1
    deadline = time.monotonic() + WAIT
    while True:
        with Stream(usual, "?stream=broken") as again:
            if again.status == 200:
                assert again.ask([0.1, 0.2])["n"] == 2
                return
        assert time.monotonic() < deadline


def test_a_stream_of_one_caller_is_no_other_callers(usual: Worker) -> None:
    one, other = {"x-vedette-tenant": "1" * 16}, {"x-vedette-tenant": "2" * 16}
    with (
        Stream(usual, "?stream=shared", one) as mine,
        Stream(usual, "?stream=shared", other) as own,
    ):
        assert [mine.ask([0.1, 0.2])["n"] for _ in range(3)] == [1, 2, 3]
        assert own.ask([0.1, 0.2])["n"] == 1


@pytest.mark.parametrize("query", ["?stream=", "?stream=a%20b", "?stream=a&x=1", "?x=1"])
def test_a_name_that_is_none_is_refused(usual: Worker, query: str) -> None:
    with Stream(usual, query) as stream:
        assert stream.status == 400
        assert "?stream=NAME" in json.loads(stream.body())["error"]


def test_no_more_streams_are_kept_than_may_and_live_ones_are_not_dropped(start: Start) -> None:
    started = start(limits={"streams": 2})
    for name in ("a", "b", "c"):
        _one_event(started, name, 1)
    _one_event(started, "c", 2)
    _one_event(started, "a", 1)  # made room for c
    with Stream(started, "?stream=x") as x, Stream(started) as y:
        assert (x.status, y.status) == (200, 200)
        with Stream(started) as third:
            assert third.status == 503
            assert third.headers["retry-after"] == "1"
            assert "limits.streams" in json.loads(third.body())["error"]
        assert x.ask([0.1, 0.2])["n"] == 1


def _one_event(started: Worker, name: str, wanted: int) -> None:
    with Stream(started, f"?stream={name}") as stream:
        assert stream.ask([0.1, 0.2])["n"] == wanted
        stream.end()
        assert stream.line() is None


def test_streams_end_with_a_word_when_their_process_is_to_end(start: Start) -> None:
    started = start()
    with Stream(started) as stream, _websocket(started) as client:
        assert stream.ask([0.1, 0.2])["n"] == 1
        client.send("[0.1,0.2]")
        assert json.loads(client.recv(WAIT))["n"] == 1
        started.process.send_signal(signal.SIGTERM)
        assert stream.line() == {"end": "the model is being replaced"}
        assert stream.line() is None
        assert json.loads(client.recv(WAIT)) == {"end": "the model is being replaced"}
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(WAIT)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
    assert started.process.wait(WAIT) == 0


def test_a_process_without_streams_ends_at_once(start: Start) -> None:
    assert drain(start()) == 0


# --- WebSocket


def _websocket(started: Worker, query: str = "") -> ClientConnection:
    uri = f"ws://m{started.base}/stream{query}"
    return unix_connect(str(started.socket_path), uri, compression=None, open_timeout=WAIT)


def test_an_event_is_a_text_message(usual: Worker) -> None:
    with _websocket(usual, "?stream=ws") as client:
        for n in range(1, 200):
            client.send(json.dumps({"temp": 0.1, "flow": 0.2, "id": n}))
            assert json.loads(client.recv(WAIT))["id"] == n
        client.send("nonsense")
        assert "error" in json.loads(client.recv(WAIT))
        assert client.ping().wait(WAIT)
        client.send("[0.1,0.2]")
        assert json.loads(client.recv(WAIT))["n"] == 201
    with Stream(usual, "?stream=ws") as stream:  # the same stream by the other way
        assert stream.ask([0.1, 0.2])["n"] == 202


@pytest.mark.parametrize(("message", "code"), [(b"[1,2]", 1003), ("x" * 65_537, 1009)])
def test_a_message_that_is_none_ends_the_websocket(
    usual: Worker, message: str | bytes, code: int
) -> None:
    with _websocket(usual) as client:
        client.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(WAIT)
    if code == 1003:
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code


def test_an_opening_that_is_none_is_refused(usual: Worker) -> None:
    whole = {
        "connection": "keep-alive, Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    assert usual.ask("GET", "/stream", headers=whole).status == 101
    for name, wrong in [
        ("sec-websocket-version", "12"),
        ("sec-websocket-key", "x"),
        ("connection", "close"),
    ]:
        assert usual.ask("GET", "/stream", headers={**whole, name: wrong}).status == 400
    assert usual.ask("POST", "/stream", headers={**whole, "content-length": "0"}).status == 200


# --- alarms, files


def test_alarms_are_lines_of_the_log_and_a_storm_of_them_is_counted(start: Start) -> None:
    started = start(detector(window=16, threshold=0.01))
    with Stream(started, "?stream=pump") as stream:
        drawn = random.Random(6)
        stream.send(*[[drawn.random(), drawn.random()] for _ in range(2_000)])
        said = [stream.line() or {} for _ in range(2_000)]
    alarms = [each for each in said if each["alarm"]]
    lines = [json.loads(line) for line in started.log.read_text().splitlines()]
    assert len(alarms) > 1_000
    assert 20 <= len(lines) < 100
    assert {line["kind"] for line in lines} == {"alarm"}
    first = lines[0]
    assert (first["model"], first["version"], first["stream"]) == ("model", 3, "pump")
    assert (first["n"], first["score"]) == (alarms[0]["n"], alarms[0]["score"])


def test_inspection_says_what_an_event_has(tmp_path: Path) -> None:
    file = tmp_path / "pump.json"
    file.write_bytes(detector())
    said = inspect(file, "detector")
    assert said["inputs"] == [tensor("temp", [1], "FP64"), tensor("flow", [1], "FP64")]
    assert said["outputs"] == GIVES
    assert said["runtime"].startswith("vedette ")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (b"", "EOF"),
        (b"{", "EOF"),
        (b"[" * 60_000, "the detector"),
        (b" " * 70_000, "at most 65536 bytes"),
        (detector(trees=101), "trees is 1 to 100"),
        (detector(depth=16), "depth is 1 to 15"),
        (detector(window=10**9), "window"),
        (detector(more=1), "unknown field"),
        (detector(features=[]), "1 to 64 features"),
        (detector(features=TWO * 2), "twice"),
    ],
)
def test_a_file_that_is_no_detector_is_refused(tmp_path: Path, file: bytes, words: str) -> None:
    path = tmp_path / "pump.json"
    path.write_bytes(file)
    refused = inspect(path, "detector")["error"]
    assert refused["code"] in ("model_invalid", "model_too_large")
    assert words in refused["message"]


def test_a_detector_whose_streams_do_not_fit_is_not_loaded(tmp_path: Path) -> None:
    file = detector(trees=100, depth=15)
    model = as_served(file, limits={"memoryBytes": 1 << 26})
    with worker(tmp_path, file, model) as started:
        assert started.ready["error"]["code"] == "model_too_large"
        assert "limits.memory" in started.ready["error"]["message"]
