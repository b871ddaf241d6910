"""Streams of a model that remembers: a voice activity detector in a worker, against itself stepped by hand."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.models.stream import Stream
from tests.models.workers import WAIT, Answer, Worker, drain, served, tensor, worker
from tests.support.voice import CHUNK, CONTEXT, RATE, Sound, chunks, silence, silero, stepped, voice
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, unix_connect

TAKES = [tensor("input", [0, 0]), tensor("state", [2, 0, 128]), tensor("sr", [], "INT64")]
GIVES = [tensor("output", [0, 1]), tensor("stateN", [0, 0, 0])]
STREAM: dict[str, Any] = {
    "tensor": "input",
    "shape": [1, CHUNK + CONTEXT],
    "context": CONTEXT,
    "state": [{"input": "state", "output": "stateN", "shape": [2, 1, 128]}],
    "constants": [{"input": "sr", "value": RATE}],
    "score": "output",
    "threshold": 0.5,
}
TALK = np.concatenate([silence(0.6, 2), voice(1.2, 120), silence(0.8, 3)])
OTHER = np.concatenate([voice(1.4, 190), silence(0.6, 4), voice(0.6, 150)])
Start = Callable[..., Worker]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts workers, which end with the tests."""
    file = silero().read_bytes()
    with ExitStack() as started:

        def run(**more: Any) -> Worker:
            folder = tmp_path_factory.mktemp("vad")
            model = served(file, TAKES, GIVES, **{"stream": STREAM, **more})
            found = started.enter_context(worker(folder, file, model))
            assert found.ready.get("ready"), found.ready
            return found

        yield run


@pytest.fixture(scope="module")
def usual(start: Start) -> Worker:
    """One with nothing special."""
    return start()


@pytest.fixture(scope="module")
def wanted() -> dict[str, list[float]]:
    """What the model says of both sounds when nobody else is there."""
    return {"talk": stepped(TALK), "other": stepped(OTHER)}


def _event(chunk: Sound) -> list[float]:
    return [float(each) for each in chunk]


def _websocket(started: Worker, query: str = "") -> ClientConnection:
    uri = f"ws://m{started.base}/stream{query}"
    return unix_connect(str(started.socket_path), uri, compression=None, open_timeout=WAIT)


def _scores(said: list[dict[str, Any]]) -> list[float]:
    assert not [each for each in said if "error" in each]
    return [each["score"] for each in said]


# --- scores


def test_the_made_up_voice_is_one_to_the_detector(wanted: dict[str, list[float]]) -> None:
    """Or else what follows would compare nothing."""
    talk = wanted["talk"]
    assert max(talk[:15]) < 0.2
    assert min(talk[25:50]) > 0.8
    assert max(talk[-10:]) < 0.2


def test_chunk_by_chunk_it_says_what_the_model_says_when_it_is_stepped_by_hand(
    usual: Worker, wanted: dict[str, list[float]]
) -> None:
    with Stream(usual) as stream:
        assert (stream.status, stream.headers["content-type"]) == (200, "application/x-ndjson")
        said = [stream.ask(_event(each)) for each in chunks(TALK)]
        stream.end()
        assert stream.line() is None
    assert np.allclose(_scores(said), wanted["talk"], rtol=0, atol=1e-4)
    assert [each["n"] for each in said] == list(range(1, len(said) + 1))
    assert [each["alarm"] for each in said] == [each["score"] >= 0.5 for each in said]
    assert set(said[0]) == {"n", "score", "alarm"}


def test_bytes_of_a_websocket_say_the_same_as_numbers(
    usual: Worker, wanted: dict[str, list[float]]
) -> None:
    with _websocket(usual) as client:
        said = []
        for at, chunk in enumerate(chunks(TALK)):
            client.send(chunk.astype("<f4").tobytes() if at % 3 else json.dumps(_event(chunk)))
            said.append(json.loads(client.recv(WAIT)))
    assert np.allclose(_scores(said), wanted["talk"], rtol=0, atol=1e-4)


def test_many_events_at_once_are_answered_in_their_order(
    usual: Worker, wanted: dict[str, list[float]]
) -> None:
    with Stream(usual) as stream:
        stream.send(*[{"id": at, "input": _event(each)} for at, each in enumerate(chunks(OTHER))])
        said = [stream.line() or {} for _ in wanted["other"]]
    assert [each["id"] for each in said] == list(range(len(said)))
    assert np.allclose(_scores(said), wanted["other"], rtol=0, atol=1e-4)


def test_two_streams_of_one_connection_each_do_not_mix(
    usual: Worker, wanted: dict[str, list[float]]
) -> None:
    talk, other = [], []
    with Stream(usual, "?stream=one") as one, _websocket(usual, "?stream=two") as two:
        for mine, theirs in zip(chunks(TALK), chunks(OTHER), strict=True):
            one.send(_event(mine))
            two.send(theirs.tobytes())
            talk.append(one.line() or {})
            other.append(json.loads(two.recv(WAIT)))
    assert np.allclose(_scores(talk), wanted["talk"], rtol=0, atol=1e-4)
    assert np.allclose(_scores(other), wanted["other"], rtol=0, atol=1e-4)
    assert not np.allclose(_scores(talk), _scores(other), atol=0.3)


def test_a_stream_with_a_name_goes_on_after_its_connection_and_one_without_begins_anew(
    usual: Worker, wanted: dict[str, list[float]]
) -> None:
    said = []
    for chunk in chunks(TALK)[:40]:
        with Stream(usual, "?stream=again") as stream:
            said.append(stream.ask(_event(chunk)))
            stream.end()
            assert stream.line() is None
    assert np.allclose(_scores(said), wanted["talk"][:40], rtol=0, atol=1e-4)
    assert said[-1]["n"] == 40
    with Stream(usual) as stream:
        unnamed = stream.ask(_event(chunks(TALK)[40]))
    assert unnamed["n"] == 1
    assert abs(unnamed["score"] - wanted["talk"][40]) > 0.05


def test_a_stream_of_one_caller_is_no_other_callers(usual: Worker) -> None:
    one, other = {"x-vedette-tenant": "1" * 16}, {"x-vedette-tenant": "2" * 16}
    chunk = _event(chunks(TALK)[30])
    with Stream(usual, "?stream=shared", one) as mine:
        first = [mine.ask(chunk)["score"] for _ in range(3)]
        with Stream(usual, "?stream=shared", other) as own:
            assert own.ask(chunk) == {"n": 1, "score": first[0], "alarm": first[0] >= 0.5}


# --- what is no event


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"x", "a JSON object or a list"),
        (b"[]", "512 elements of FP32; at byte"),
        (b"[" + b"0," * 510 + b"0]", "512 elements of FP32; at byte"),
        (b"[" + b"0," * 512 + b"0]", "512 elements of FP32; at byte"),
        (b"[" + b"0," * 511 + b"NaN]", "a number is expected"),
        (b"[" + b"0," * 511 + b"1e39]", "a number that FP32 has"),
        (b"[" + b"0," * 511 + b'"0"]', "a number is expected"),
        (b"[" + b"0," * 511 + b"null]", "a number is expected"),
        (b"[[" + b"0," * 511 + b"0]]", "a number is expected"),
        (b"[" + b"0," * 511 + b"0] x", "the end is expected"),
        (b'{"input": 3}', "a list of elements"),
        (b'{"id": 3}', '"input" is missing'),
        (b'{"state": [1]}', '"input" is missing'),
        (b'{"input": [' + b"0," * 511 + b'0], "input": []}', "twice"),
        (b"[" + b" " * 65_536 + b"]", "longer than 65536 bytes"),
    ],
)
def test_what_is_no_event_is_told_why_and_the_stream_goes_on_as_if_it_had_not_been(
    usual: Worker, wanted: dict[str, list[float]], line: bytes, words: str
) -> None:
    said = []
    with Stream(usual) as stream:
        for at, chunk in enumerate(chunks(TALK)[:25]):
            if at == 22:
                stream.send_bytes(line + b"\n")
                refused = stream.line() or {}
                assert refused["n"] == 23
                assert words in refused["error"], refused
            said.append(stream.ask(_event(chunk)))
    assert said[-1]["n"] == 26
    assert np.allclose(_scores(said), wanted["talk"][:25], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"", "512 elements of FP32, 2048 bytes"),
        (b"\0" * 2_047, "512 elements of FP32, 2048 bytes"),
        (b"\0" * 4_096, "512 elements of FP32, 2048 bytes"),
        (np.full(CHUNK, math.nan, np.float32).tobytes(), "finite numbers"),
        (np.full(CHUNK, -math.inf, np.float32).tobytes(), "finite numbers"),
    ],
)
def test_bytes_that_are_no_event_are_told_why_and_the_websocket_goes_on(
    usual: Worker, wanted: dict[str, list[float]], message: bytes, words: str
) -> None:
    first, second = (each.tobytes() for each in chunks(TALK)[:2])
    with _websocket(usual) as client:
        said = []
        for each in (first, message, second):
            client.send(each)
            said.append(json.loads(client.recv(WAIT)))
    assert [each["n"] for each in said] == [1, 2, 3]
    assert words in said[1]["error"]
    assert abs(said[2]["score"] - wanted["talk"][1]) < 1e-4


# --- beside requests


def _request(started: Worker, sound: Sound, state: Any) -> Answer:
    inputs = [
        {**tensor("input", [1, len(sound)]), "data": _event(sound)},
        {**tensor("state", [2, 1, 128]), "data": np.asarray(state).ravel().tolist()},
        {**tensor("sr", [], "INT64"), "data": [RATE]},
    ]
    return started.infer({"inputs": inputs})


def test_a_request_carries_its_state_itself(usual: Worker, wanted: dict[str, list[float]]) -> None:
    state: Any = np.zeros(256)
    context = np.zeros(CONTEXT, np.float32)
    for at, chunk in enumerate(chunks(TALK)[:22]):
        answer = _request(usual, np.concatenate([context, chunk]), state)
        assert answer.status == 200
        score, state = (each["data"] for each in answer.json["outputs"])
        assert abs(score[0] - wanted["talk"][at]) < 1e-4
        context = chunk[-CONTEXT:]


def test_requests_are_answered_while_more_streams_push_than_the_queue_has_places(
    start: Start, wanted: dict[str, list[float]]
) -> None:
    started = start(limits={"queue": 4})
    over = threading.Event()
    found: list[list[float]] = []

    def push() -> None:
        with Stream(started) as stream:
            said = [stream.ask(_event(each)) for each in chunks(TALK)]
            while not over.is_set():
                stream.ask(_event(chunks(TALK)[0]))
        found.append(_scores(said))

    threads = [threading.Thread(target=push) for _ in range(12)]
    for each in threads:
        each.start()
    statuses = [_request(started, TALK[:CHUNK], np.zeros(256)).status for _ in range(100)]
    over.set()
    for each in threads:
        each.join(WAIT)
    assert statuses == [200] * 100
    assert len(found) == 12
    for scores in found:
        assert np.allclose(scores, wanted["talk"], rtol=0, atol=1e-4)


# --- bounds, alarms, endings


def test_no_more_streams_are_kept_than_may(start: Start) -> None:
    started = start(limits={"streams": 2})
    chunk = _event(chunks(TALK)[0])
    for name, n in [("a", 1), ("b", 1), ("c", 1), ("c", 2), ("a", 1)]:
        with Stream(started, f"?stream={name}") as stream:
            assert stream.ask(chunk)["n"] == n
            stream.end()
            assert stream.line() is None
    with Stream(started) as one, Stream(started) as two, Stream(started) as third:
        assert (one.status, two.status, third.status) == (200, 200, 503)


def test_states_count_against_the_models_memory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Half of 64 MiB has room for 3 states of 8 MiB, or 31 of 1 MiB; and for none of 64 MiB."""
    for elements, most in [(1 << 21, 3), (1 << 18, 31), (1 << 24, 0)]:
        file = counter(elements)
        shape = [elements]
        model = served(
            file,
            [tensor("x", [1]), tensor("h", shape)],
            [tensor("y", [1]), tensor("next", shape)],
            limits={"memoryBytes": 1 << 26},
            stream={
                "tensor": "x",
                "shape": [1],
                "state": [{"input": "h", "output": "next", "shape": shape}],
                "score": "y",
            },
        )
        with worker(tmp_path_factory.mktemp("large"), file, model) as started, ExitStack() as open_:
            if not most:
                assert started.ready["error"]["code"] == "model_too_large"
                continue
            assert started.ready["ready"], started.ready
            streams = [open_.enter_context(Stream(started)) for _ in range(most + 1)]
            assert [each.status for each in streams] == [200] * most + [503]


def counter(elements: int) -> bytes:
    """A model that adds its event to each element it remembers; the score is the first of them."""
    shape = [elements]
    nodes = [
        helper.make_node("Add", ["h", "x"], ["next"]),
        helper.make_node("Gather", ["next", "zero"], ["y"], axis=0),
    ]
    graph = helper.make_graph(
        nodes,
        "counter",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("h", TensorProto.FLOAT, shape),
        ],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, shape),
        ],
        [helper.make_tensor("zero", TensorProto.INT64, [1], [0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(onnx.ModelProto.SerializeToString(model))


def test_memory_does_not_grow_with_the_events_of_a_stream(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """States of 256 KiB: what the runtime lends would hold on to each one before."""
    elements = 1 << 16
    file = counter(elements)
    model = served(
        file,
        [tensor("x", [1]), tensor("h", [elements])],
        [tensor("y", [1]), tensor("next", [elements])],
        stream={
            "tensor": "x",
            "shape": [1],
            "state": [{"input": "h", "output": "next", "shape": [elements]}],
            "score": "y",
        },
    )
    with worker(tmp_path_factory.mktemp("counter"), file, model) as started, Stream(started) as one:
        assert [one.ask([1])["score"] for _ in range(200)] == list(range(1, 201))
        before = _resident(started)
        assert [one.ask([1])["score"] for _ in range(400)] == list(range(201, 601))
        assert _resident(started) - before < 16 << 20


def _resident(started: Worker) -> int:
    with open(f"/proc/{started.process.pid}/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_a_run_whose_score_is_no_number_is_told_and_forgotten(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    file = counter(1)
    model = served(
        file,
        [tensor("x", [1]), tensor("h", [1])],
        [tensor("y", [1]), tensor("next", [1])],
        stream={
            "tensor": "x",
            "shape": [1],
            "state": [{"input": "h", "output": "next", "shape": [1]}],
            "score": "y",
            "threshold": 5,
        },
    )
    with worker(tmp_path_factory.mktemp("nan"), file, model) as started, Stream(started) as stream:
        assert stream.ask([3])["score"] == 3
        assert stream.ask([3e38])["alarm"]
        assert "no finite number" in stream.ask([3e38])["error"]
        assert stream.ask([-3e38])["n"] == 4


def test_alarms_are_lines_of_the_log(start: Start) -> None:
    started = start()
    with Stream(started, "?stream=door") as stream:
        said = [stream.ask(_event(each)) for each in chunks(TALK)]
    first = next(each for each in said if each["alarm"])
    lines = [json.loads(each) for each in started.log.read_text().splitlines() if each[:1] == "{"]
    assert [each["kind"] for each in lines[:20]] == ["alarm"] * 20
    assert (lines[0]["model"], lines[0]["stream"]) == ("model", "door")
    assert (lines[0]["n"], lines[0]["score"]) == (first["n"], first["score"])


def test_streams_end_with_a_word_when_their_process_is_to_end(start: Start) -> None:
    started = start()
    chunk = chunks(TALK)[0]
    with Stream(started) as stream, _websocket(started) as client:
        assert stream.ask(_event(chunk))["n"] == 1
        client.send(chunk.tobytes())
        assert json.loads(client.recv(WAIT))["n"] == 1
        started.process.send_signal(signal.SIGTERM)
        assert stream.line() == {"end": "the model is being replaced"}
        assert json.loads(client.recv(WAIT)) == {"end": "the model is being replaced"}
        with pytest.raises(ConnectionClosed):
            client.recv(WAIT)
    assert started.process.wait(WAIT) == 0


def test_who_leaves_in_the_middle_of_an_event_leaves_the_stream_whole(start: Start) -> None:
    """However many of his events were run, the next one is judged by just those."""
    started = start()
    chunk = chunks(TALK)[25]
    wanted = stepped(np.tile(chunk, 101))
    for _ in range(20):
        with _free(started, "?stream=torn") as stream:
            stream.send(*[_event(chunk)] * 5)
    with _free(started, "?stream=torn") as stream:
        said = stream.ask(_event(chunk))
    assert 1 <= said["n"] <= 101
    assert abs(said["score"] - wanted[said["n"] - 1]) < 1e-4
    assert drain(started) == 0


def _free(started: Worker, query: str) -> Stream:
    """The stream, once the connection before has let go of it."""
    deadline = time.monotonic() + WAIT
    while True:
        stream = Stream(started, query)
        if stream.status == 200:
            return stream
        stream.close()
        assert time.monotonic() < deadline


def test_a_model_without_a_stream_takes_none(start: Start) -> None:
    started = start(stream=None)
    with Stream(started) as stream:
        assert stream.status == 400
        assert "takes no streams" in json.loads(stream.body())["error"]
