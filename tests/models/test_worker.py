"""The process of a model, as it runs: real files, the real library, over its socket."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models import onnx_files
from tests.models.workers import (
    WAIT,
    Answer,
    Worker,
    drain,
    exchange,
    inspect,
    served,
    tensor,
    worker,
)

NUMPY = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
COUNT = tensor("times", [1], "INT64")


def add_model(**more: Any) -> dict[str, Any]:
    """What the node says of `onnx_files.add()`."""
    ports = [tensor("left", [1, 16]), tensor("right", [1, 16])]
    return served(onnx_files.add(), ports, [tensor("sum", [1, 16])], **more)


def given(name: str, data: Any, shape: list[int], datatype: str = "FP32") -> dict[str, Any]:
    """An input as JSON."""
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def binary(name: str, array: np.ndarray, datatype: str) -> dict[str, Any]:
    """An input whose bytes follow."""
    size = {"binary_data_size": array.nbytes}
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "parameters": size}


def error(answer: Answer) -> str:
    """The sentence of a refusal."""
    said = answer.json
    assert list(said) == ["error"]
    text: str = said["error"]
    return text


@pytest.fixture(scope="module")
def adding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker that adds."""
    folder = tmp_path_factory.mktemp("adding")
    with worker(folder, onnx_files.add(), add_model()) as started:
        assert started.ready["ready"], started.ready
        yield started


ADDENDS = [given("left", [1.5] * 16, [1, 16]), given("right", [2.0] * 16, [1, 16])]


def test_a_prediction_says_who_made_it_and_how_long_it_took(adding: Worker) -> None:
    answer = adding.infer({"id": "q1", "inputs": ADDENDS})
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {
        "model_name": "model",
        "model_version": "3",
        "id": "q1",
        "outputs": [{"name": "sum", "datatype": "FP32", "shape": [1, 16], "data": [3.5] * 16}],
    }
    assert int(answer.headers["x-vedette-run-us"]) < WAIT * 1_000_000
    assert int(answer.headers["x-vedette-queue-us"]) < WAIT * 1_000_000


def test_metadata_and_readiness_are_those_of_the_protocol(adding: Worker) -> None:
    for path in ("", "/versions/3"):
        said = adding.ask("GET", path).json
        assert said["name"] == "model"
        assert said["versions"] == ["3"]
        assert said["platform"] == "onnxruntime_onnx"
        assert said["inputs"][0] == {"name": "left", "datatype": "FP32", "shape": [1, 16]}
        assert adding.ask("GET", f"{path}/ready").json == {"name": "model", "ready": True}
    assert (
        adding.ask("POST", "/versions/3/infer", json.dumps({"inputs": ADDENDS}).encode()).status
        == 200
    )


@pytest.mark.parametrize(
    "path", ["/versions/2", "/versions/", "/versions/x/infer", "/unload", "x", "/infer/"]
)
def test_what_is_not_there_is_404(adding: Worker, path: str) -> None:
    answer = adding.ask("GET", path)
    assert answer.status == 404
    assert "version 3" in error(answer)


def test_another_method_is_405_and_says_which_one_it_is(adding: Worker) -> None:
    answer = adding.ask("GET", "/infer")
    assert answer.status == 405
    assert answer.headers["allow"] == "POST"
    assert adding.ask("POST", "", b"{}").status == 405


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "middle"}, 'takes no input "middle"'),
        ({"datatype": "FP64"}, "is FP64, and the model takes FP32"),
        ({"shape": [16]}, "has the shape [16]"),
        ({"shape": [1, 15]}, "has the shape [1, 15]"),
        ({"data": [1.0] * 15}, "more elements"),
        ({"data": "AAAA"}, "a list"),
    ],
)
def test_a_wrong_request_is_400_and_the_next_one_is_answered(
    adding: Worker, change: dict[str, Any], words: str
) -> None:
    connection = adding.connect()
    wrong = {"inputs": [{**ADDENDS[0], **change}, ADDENDS[1]]}
    path = f"{adding.base}/infer"
    answer = exchange(connection, "POST", path, json.dumps(wrong).encode())
    assert answer.status == 400
    assert words in error(answer)
    right = exchange(connection, "POST", path, json.dumps({"inputs": ADDENDS}).encode())
    assert right.status == 200


def test_an_output_that_is_not_there_is_400(adding: Worker) -> None:
    answer = adding.infer({"inputs": ADDENDS, "outputs": [{"name": "product"}]})
    assert answer.status == 400
    assert 'no output "product"; it has "sum"' in error(answer)


def test_headers_that_are_no_numbers_are_400(adding: Worker) -> None:
    for header in ("Inference-Header-Content-Length", "x-vedette-deadline-ms"):
        answer = adding.infer({"inputs": ADDENDS}, headers={header: "-1"})
        assert answer.status == 400
        assert header.lower() in error(answer)
    compressed = adding.infer({"inputs": ADDENDS}, headers={"Content-Encoding": "gzip"})
    assert compressed.status == 400


@pytest.mark.parametrize("datatype", [*NUMPY, "BYTES"])
def test_every_datatype_comes_back_as_it_went_in(tmp_path: Path, datatype: str) -> None:
    file = onnx_files.identity(datatype)
    model = served(file, [tensor("in", [0], datatype)], [tensor("out", [0], datatype)])
    with worker(tmp_path, file, model) as started:
        assert started.ready["ready"], started.ready
        if datatype == "BYTES":
            texts = [b"", b"a\0b", b"\xff\xfe", "ä".encode() * 1000]
            raw = b"".join(struct.pack("<I", len(it)) + it for it in texts)
            count = len(texts)
        else:
            values = [0, 1, 0, 1, 1] if datatype == "BOOL" else [0, 1, 2, 100, 127]
            raw = np.array(values, NUMPY[datatype]).tobytes()
            count = len(values)
        head = {
            "name": "in",
            "datatype": datatype,
            "shape": [count],
            "parameters": {"binary_data_size": len(raw)},
        }
        question = {"inputs": [head], "parameters": {"binary_data_output": True}}
        answer = started.infer(question, raw)
        assert answer.status == 200, answer.body
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.binary == raw
        # An odd place in memory: the JSON is one byte longer.
        again = started.infer({**question, "id": "é"}, raw)
        assert again.binary == raw
        if datatype == "FP16":
            assert "binary" in error(started.infer({"inputs": [head]}, raw))
        elif datatype == "BYTES":
            assert "UTF-8" in error(started.infer({"inputs": [head]}, raw))
            said = started.infer({"inputs": [given("in", ["", "ä\0"], [2], "BYTES")]})
            assert said.json["outputs"][0]["data"] == ["", "ä\0"]
        else:
            elements = np.array(values, NUMPY[datatype]).tolist()
            said = started.infer({"inputs": [given("in", elements, [count], datatype)]})
            assert said.json["outputs"][0]["data"] == elements


def test_the_largest_whole_numbers_are_exact(tmp_path: Path) -> None:
    file = onnx_files.identity("INT64")
    model = served(file, [tensor("in", [0], "INT64")], [tensor("out", [0], "INT64")])
    numbers = [2**63 - 1, -(2**63), 2**53 + 1]
    with worker(tmp_path, file, model) as started:
        answer = started.infer({"inputs": [given("in", numbers, [3], "INT64")]})
        assert answer.json["outputs"][0]["data"] == numbers


def test_large_tensors_of_any_batch_are_right_flat_nested_and_binary(tmp_path: Path) -> None:
    file = onnx_files.scaled()
    model = served(file, [tensor("x", [0, 3])], [tensor("y", [0, 3])])
    random = np.random.default_rng(3)
    with worker(tmp_path, file, model) as started:
        for batch in (0, 1, 1000, 200_000):
            array = random.standard_normal((batch, 3), np.float32)
            question = {
                "inputs": [binary("x", array, "FP32")],
                "parameters": {"binary_data_output": True},
            }
            answer = started.infer(question, array.tobytes()) if batch else None
            if answer is not None:
                assert answer.status == 200, answer.body[:500]
                assert answer.binary == (array * 2).tobytes()
            if batch <= 1000:
                for data in (array.tolist(), array.ravel().tolist()):
                    said = started.infer({"inputs": [given("x", data, [batch, 3])]})
                    values = np.array(said.json["outputs"][0]["data"], np.float32)
                    assert np.array_equal(values, (array * 2).ravel())


def test_an_output_that_is_an_input_is_given_back_whole(tmp_path: Path) -> None:
    file = onnx_files.passed_through()
    model = served(file, [tensor("in", [0])], [tensor("in", [0]), tensor("twice", [0])])
    array = np.arange(100_000, dtype=np.float32)
    with worker(tmp_path, file, model) as started:
        assert started.ready["ready"], started.ready
        question = {
            "inputs": [binary("in", array, "FP32")],
            "parameters": {"binary_data_output": True},
        }
        answer = started.infer(question, array.tobytes())
        assert answer.binary == array.tobytes() + (array * 2).tobytes()


def test_a_scalar_goes_in_and_out(tmp_path: Path) -> None:
    file = onnx_files.scalar()
    model = served(file, [tensor("x", [], "FP64")], [tensor("y", [], "FP64")])
    with worker(tmp_path, file, model) as started:
        answer = started.infer({"inputs": [given("x", [2.5], [], "FP64")]})
        assert answer.json["outputs"][0] == given("y", [-2.5], [], "FP64")


def test_nan_and_infinity_are_said_in_binary_alone(tmp_path: Path) -> None:
    file = onnx_files.divided()
    model = served(file, [tensor("a", [0]), tensor("b", [0])], [tensor("y", [0])])
    question = {"inputs": [given("a", [0.0, 1.0], [2]), given("b", [0.0, 0.0], [2])]}
    with worker(tmp_path, file, model) as started:
        refused = started.infer(question)
        assert refused.status == 400
        assert "binary_data" in error(refused)
        answer = started.infer({**question, "parameters": {"binary_data_output": True}})
        values = np.frombuffer(answer.binary, np.float32)
        assert np.isnan(values[0])
        assert np.isposinf(values[1])


def test_inputs_that_the_model_does_not_take_are_400_and_the_next_ones_run(tmp_path: Path) -> None:
    file = onnx_files.gathered()
    model = served(file, [tensor("x", [0]), tensor("at", [0], "INT64")], [tensor("y", [0])])
    with worker(tmp_path, file, model) as started:
        wrong = started.infer({"inputs": [given("x", [1.0], [1]), given("at", [7], [1], "INT64")]})
        assert wrong.status == 400
        assert "Gather: indices element out of data bounds" in error(wrong)
        right = started.infer({"inputs": [given("x", [1.0], [1]), given("at", [0], [1], "INT64")]})
        assert right.json["outputs"][0]["data"] == [1.0]


def test_shapes_that_do_not_go_together_are_400_and_nothing_is_said_of_the_runtimes_sources(
    tmp_path: Path,
) -> None:
    file = onnx_files.sums()
    model = served(file, [tensor("a", [0]), tensor("b", [0])], [tensor("y", [0])])
    with worker(tmp_path, file, model) as started:
        wrong = started.infer({"inputs": [given("a", [1.0] * 2, [2]), given("b", [1.0] * 3, [3])]})
        assert wrong.status == 400
        said = error(wrong)
        assert "Add: " in said
        assert "2 by 3" in said
        for place in ("/", ".h:", ".cc:", "::"):
            assert place not in said


def test_a_model_that_fails_though_it_got_all_that_it_asks_for_is_500(tmp_path: Path) -> None:
    file = onnx_files.faulty()
    model = served(file, [tensor("x", [4])], [tensor("y", [3], "INT64")])
    with worker(tmp_path, file, model) as started:
        wrong = started.infer({"inputs": [given("x", [1.0] * 4, [4])]})
        assert wrong.status == 500
        assert "/onnxruntime" not in error(wrong)
        right = started.infer({"inputs": [given("x", [1.0, 0.0, 1.0, 1.0], [4])]})
        assert right.json["outputs"][0]["data"] == [0, 2, 3]


@pytest.mark.parametrize("name", ["Inference-Header-Content-Length", "X-Vedette-Deadline-Ms"])
def test_a_header_that_is_there_twice_is_refused_though_both_are_alike(
    adding: Worker, name: str
) -> None:
    body = json.dumps({"inputs": ADDENDS}).encode()
    connection = adding.connect()
    connection.putrequest("POST", f"{adding.base}/infer")
    connection.putheader("Content-Length", str(len(body)))
    for _ in range(2):
        connection.putheader(name, str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    assert response.status == 400
    assert json.loads(response.read())["error"] == f"{name.lower()} is there twice"


def test_a_body_beyond_the_limit_is_413_whether_its_length_is_said_or_not(tmp_path: Path) -> None:
    model = add_model(limits={"requestBytes": 2048})
    with worker(tmp_path, onnx_files.add(), model) as started:
        connection = started.connect()
        connection.putrequest("POST", f"{started.base}/infer")
        connection.putheader("Content-Length", str(1 << 40))
        connection.endheaders()
        response = connection.getresponse()
        assert response.status == 413
        assert "2048" in json.loads(response.read())["error"]
        in_pieces = started.connect()
        in_pieces.request(
            "POST", f"{started.base}/infer", iter([b" " * 1500] * 2), encode_chunked=True
        )
        assert in_pieces.getresponse().status == 413
        assert started.infer({"inputs": ADDENDS}).status == 200


def test_a_caller_that_goes_away_within_its_body_harms_nobody(adding: Worker) -> None:
    for sent in (b"", b"{", b'{"inputs":['):
        connection = adding.connect()
        connection.putrequest("POST", f"{adding.base}/infer")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(sent)
        connection.close()
    assert adding.infer({"inputs": ADDENDS}).status == 200


def slow_model(**more: Any) -> dict[str, Any]:
    return served(onnx_files.slow(), [COUNT], [tensor("sum", [])], **more)


def rounds(times: int) -> dict[str, Any]:
    return {"inputs": [given("times", [times], [1], "INT64")]}


NEVER_ENDING = 2**40


def test_a_run_beyond_its_time_is_504_and_the_process_goes_on(tmp_path: Path) -> None:
    model = slow_model(limits={"runMillis": 300})
    with worker(tmp_path, onnx_files.slow(), model) as started:
        answer = started.infer(rounds(NEVER_ENDING))
        assert answer.status == 504
        assert "300 ms" in error(answer)
        for _ in range(3):
            assert started.infer(rounds(1)).status == 200
        assert started.process.poll() is None


def test_a_run_that_does_not_stop_is_answered_and_ends_the_process_with_75(tmp_path: Path) -> None:
    file = onnx_files.stuck()
    limits = {"runMillis": 2000, "memoryBytes": 1 << 33}
    model = served(file, [COUNT], [tensor("sum", [])], limits=limits)
    with worker(tmp_path, file, model) as started:
        assert started.infer(rounds(8)).status == 200
        # It is the product that looks at nothing; on a busy machine a run may end where the matrix is made.
        for _ in range(20):
            answer = started.infer(rounds(8_000))
            assert answer.status == 504
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert started.process.wait(5) == 75
                return
    pytest.fail("no run came to the product")


def test_a_run_beyond_its_memory_is_503_and_the_next_one_runs(tmp_path: Path) -> None:
    file = onnx_files.hungry()
    count = tensor("count", [1], "INT64")
    model = served(file, [count], [tensor("sum", [])], limits={"memoryBytes": 128 << 20})

    def elements(number: int) -> dict[str, Any]:
        return {"inputs": [given("count", [number], [1], "INT64")]}

    with worker(tmp_path, file, model) as started:
        for number in (1 << 30, 1 << 40):
            answer = started.infer(elements(number))
            assert answer.status == 503, answer.body
            assert "memory" in error(answer)
        assert started.infer(elements(1000)).json["outputs"][0]["data"] == [1000.0]


QUICK = {"x-vedette-deadline-ms": "1"}


def endless(started: Worker) -> Answer:
    """Asks for a run without an end until it is let in."""
    while (answer := started.infer(rounds(NEVER_ENDING))).status == 503:
        pass
    return answer


def wait_for(started: Worker, words: str, headers: dict[str, str] | None = None) -> Answer:
    """Asks for quick runs until one is refused with these words."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        answer = started.infer(rounds(1), headers={**QUICK, **(headers or {})})
        if answer.status != 200 and words in error(answer):
            return answer
    raise AssertionError(f"{words!r} was never said")


def test_as_many_wait_as_may_and_the_next_is_503_with_when_to_come_again(tmp_path: Path) -> None:
    model = slow_model(limits={"queue": 2, "runMillis": 600_000})
    with (
        worker(tmp_path, onnx_files.slow(), model) as started,
        concurrent.futures.ThreadPoolExecutor(3) as callers,
    ):
        waiting = [callers.submit(endless, started) for _ in range(3)]
        answer = wait_for(started, "as many requests wait")
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert started.ask("GET", "/ready").status == 200
        assert not any(caller.done() for caller in waiting)
        started.process.kill()
        for caller in waiting:
            with pytest.raises((OSError, http.client.HTTPException)):
                caller.result(WAIT)


def test_what_is_not_done_by_its_deadline_is_504(tmp_path: Path) -> None:
    model = slow_model(limits={"runMillis": 600_000})
    with worker(tmp_path, onnx_files.slow(), model) as started:
        answer = started.infer(rounds(NEVER_ENDING), headers={"x-vedette-deadline-ms": "2000"})
        assert answer.status == 504
        assert "deadline" in error(answer)


def test_a_run_whose_caller_has_left_ends_and_the_next_one_runs(tmp_path: Path) -> None:
    model = slow_model(limits={"runMillis": 3_600_000})
    with worker(tmp_path, onnx_files.slow(), model) as started:
        leaving = started.connect()
        leaving.request("POST", f"{started.base}/infer", json.dumps(rounds(NEVER_ENDING)))
        wait_for(started, "deadline")  # it runs
        leaving.close()
        assert started.infer(rounds(1)).status == 200


def test_a_run_that_is_not_done_by_its_deadline_ends_and_the_next_one_runs(tmp_path: Path) -> None:
    model = slow_model(limits={"runMillis": 3_600_000})
    with worker(tmp_path, onnx_files.slow(), model) as started:
        late = started.infer(rounds(NEVER_ENDING), headers={"x-vedette-deadline-ms": "2000"})
        assert late.status == 504
        assert started.infer(rounds(1)).status == 200


TENANT = {"x-vedette-tenant": "00ff"}


def test_how_many_ran_together_is_said_and_alone_is_one(adding: Worker) -> None:
    answer = adding.infer({"inputs": ADDENDS}, headers=TENANT)
    assert answer.headers["x-vedette-batch"] == "1"


def test_whatever_runs_together_every_answer_is_that_of_its_own_request(tmp_path: Path) -> None:
    """Eight callers at once, in JSON and in bytes: answers are exact, whoever ran with whom."""
    file = onnx_files.scaled()
    limits = {"batch": 8, "queue": 1000}
    model = served(file, [tensor("x", [0, 3])], [tensor("y", [0, 3])], limits=limits)
    with (
        worker(tmp_path, file, model) as started,
        concurrent.futures.ThreadPoolExecutor(8) as callers,
    ):

        def ask(seed: int) -> int:
            random = np.random.default_rng(seed)
            connection, most = started.connect(), 0
            for at in range(60):
                array = random.standard_normal((1 + at % 3, 3), np.float32)
                question = {
                    "id": f"{seed}-{at}",
                    "inputs": [binary("x", array, "FP32")],
                    "parameters": {"binary_data_output": True},
                }
                head = json.dumps(question).encode()
                length = {"Inference-Header-Content-Length": str(len(head)), **TENANT}
                path = f"{started.base}/infer"
                answer = exchange(connection, "POST", path, head + array.tobytes(), length)
                assert answer.status == 200, answer.body
                assert answer.json["id"] == f"{seed}-{at}"
                assert answer.json["outputs"][0]["shape"] == list(array.shape)
                assert answer.binary == (array * 2).tobytes()
                most = max(most, int(answer.headers["x-vedette-batch"]))
            return most

        # Whether it pays, the clock says, not the test.
        assert all(1 <= most <= 8 for most in callers.map(ask, range(8)))


def test_a_process_that_nobody_asks_ends_in_order_and_looking_keeps_none(tmp_path: Path) -> None:
    model = add_model(idleMillis=1_000)
    with worker(tmp_path, onnx_files.add(), model) as started:
        assert started.infer({"inputs": ADDENDS}).status == 200
        with contextlib.suppress(OSError, http.client.HTTPException):
            while started.process.poll() is None:
                assert started.ask("GET", "/ready").status == 200
                time.sleep(0.05)
        assert started.process.wait(WAIT) == 0


def test_a_process_that_is_asking_is_not_left(tmp_path: Path) -> None:
    model = served(onnx_files.slow(), [COUNT], [tensor("sum", [])], idleMillis=1_000)
    with (
        worker(tmp_path, onnx_files.slow(), model) as started,
        concurrent.futures.ThreadPoolExecutor(1) as callers,
    ):
        under_way = callers.submit(endless, started)
        assert under_way.result(WAIT).status == 504  # its longest run: ten seconds
        assert started.process.wait(WAIT) == 0


def test_what_is_more_critical_takes_the_place_of_what_is_less(tmp_path: Path) -> None:
    model = slow_model(limits={"queue": 1, "runMillis": 600_000})
    with (
        worker(tmp_path, onnx_files.slow(), model) as started,
        concurrent.futures.ThreadPoolExecutor(3) as callers,
    ):
        are_in = threading.Event()

        def ask(criticality: str) -> Answer:
            headers = {"x-vedette-criticality": criticality}
            while True:
                answer = started.infer(rounds(NEVER_ENDING), headers=headers)
                if are_in.is_set() or answer.status != 503:
                    return answer

        one_runs_and_one_waits = [callers.submit(ask, "sheddable") for _ in range(2)]
        wait_for(started, "as many requests wait", {"x-vedette-criticality": "sheddable"})
        are_in.set()
        critical = callers.submit(ask, "critical")
        over, _ = concurrent.futures.wait(
            one_runs_and_one_waits, WAIT, concurrent.futures.FIRST_COMPLETED
        )
        [told] = [each.result() for each in over]
        assert told.status == 503
        assert "as many requests wait" in error(told)
        assert int(told.headers["retry-after"]) >= 1
        assert ask("critical").status == 503, "nobody goes for one like it"
        assert not critical.done()
        assert ask("urgent").status == 400
        started.process.kill()
        with pytest.raises((OSError, http.client.HTTPException)):
            critical.result(WAIT)


def test_a_deadline_that_cannot_be_kept_is_refused_before_it_runs(tmp_path: Path) -> None:
    with worker(tmp_path, onnx_files.slow(), slow_model(limits={"runMillis": 60_000})) as started:
        took = int(started.infer(rounds(20_000)).headers["x-vedette-run-us"])
        early = {"x-vedette-deadline-ms": str(took // 10_000)}
        answer = started.infer(rounds(20_000), headers=early)
        assert answer.status == 503
        assert "deadline" in error(answer)
        assert int(answer.headers["retry-after"]) >= 1
        ample = {"x-vedette-deadline-ms": "3600000"}
        assert started.infer(rounds(1), headers=ample).status == 200


def test_sessions_run_beside_each_other(tmp_path: Path) -> None:
    model = slow_model(sessions=2, limits={"runMillis": 600_000})
    with (
        worker(tmp_path, onnx_files.slow(), model) as started,
        concurrent.futures.ThreadPoolExecutor(1) as callers,
    ):
        unending = callers.submit(endless, started)
        # Only where the endless one is not can these end.
        for _ in range(5):
            assert started.infer(rounds(1)).status == 200
        assert not unending.done()
        started.process.kill()
        with pytest.raises((OSError, http.client.HTTPException)):
            unending.result(WAIT)


def test_told_to_stop_it_answers_what_has_come_and_ends(tmp_path: Path) -> None:
    model = slow_model(limits={"runMillis": 60_000})
    with (
        worker(tmp_path, onnx_files.slow(), model) as started,
        concurrent.futures.ThreadPoolExecutor(1) as callers,
    ):
        idle = started.connect()
        assert exchange(idle, "GET", f"{started.base}/ready").status == 200
        under_way = callers.submit(started.infer, rounds(100_000))
        wait_for(started, "deadline")  # it runs
        assert drain(started) == 0
        assert under_way.result(WAIT).status == 200


def test_many_connections_are_answered(adding: Worker) -> None:
    assert 0 < adding.ready["loadMillis"] < WAIT * 1000
    path = f"{adding.base}/ready"
    connections = []
    for _ in range(100):
        connections.append(adding.connect())
        assert exchange(connections[-1], "GET", path).status == 200
    assert all(exchange(it, "GET", path).status == 200 for it in connections)


@pytest.mark.parametrize(
    ("file", "code", "words"),
    [
        (onnx_files.external(), "model_reaches_out", "etc/passwd"),
        (onnx_files.external_in_a_branch(), "model_reaches_out", "weights.bin"),
        (onnx_files.custom_domain(), "model_reaches_out", "com.example"),
        (onnx_files.custom_domain("com.microsoft", "EPContext"), "model_reaches_out", "EPContext"),
        (onnx_files.sequence(), "model_invalid", "no plain tensor"),
        (onnx_files.without_rank(), "model_invalid", "how many dimensions"),
        (onnx_files.nested(30), "model_invalid", "too deep"),
        (onnx_files.add()[:-1], "model_invalid", "ends early"),
        (b"#!/bin/sh\n", "model_invalid", "no ONNX model"),
        (b"", "model_invalid", "empty"),
        (onnx_files.custom_domain("", "NoSuchOperator"), "model_invalid", "NoSuchOperator"),
    ],
    ids=lambda it: it if isinstance(it, str) else "",
)
def test_a_file_that_is_refused_is_refused_by_worker_and_inspection_alike(
    tmp_path: Path, file: bytes, code: str, words: str
) -> None:
    model = served(file, [tensor("x", [4])], [tensor("y", [4])])
    with worker(tmp_path, file, model) as started:
        assert started.ready["ready"] is False
        assert started.ready["error"]["code"] == code, started.ready
        assert words in started.ready["error"]["message"]
        assert started.process.wait(WAIT) == 1
    said = inspect(tmp_path / "blob.onnx")
    assert said["error"] == started.ready["error"]


def test_an_inspection_says_what_goes_in_and_out(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(onnx_files.mlp(8))
    said = inspect(file)
    assert said["inputs"] == [tensor("x", [0, 8])]
    assert said["outputs"] == [tensor("y", [0, 8])]
    assert re.fullmatch(r"onnxruntime 1\.\d+\.\d+", said["runtime"])
    assert said["loadMillis"] > 0
    file.write_bytes(onnx_files.with_function())
    assert inspect(file)["inputs"] == [tensor("x", [4])]
    file.write_bytes(onnx_files.identity("BYTES"))
    assert inspect(file)["inputs"] == [tensor("in", [0], "BYTES")]


def test_what_is_no_file_or_none_of_its_format_says_so(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"\x1c\0\0\0TFL3")
    assert inspect(file)["error"]["code"] == "model_invalid"
    assert inspect(tmp_path / "none")["error"]["code"] == "model_missing"
    assert inspect(tmp_path)["error"]["code"] == "model_invalid"


def test_a_file_larger_than_the_models_memory_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    with file.open("wb") as sparse:
        sparse.truncate(3 << 30)
    assert inspect(file)["error"]["code"] == "model_too_large"


def test_loading_that_takes_too_long_is_told(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(onnx_files.constant_work())
    said = inspect(file, runMillis=200, memoryBytes=8 << 30)
    assert said["error"]["code"] == "model_too_slow", said


def test_a_file_that_is_not_the_one_that_was_registered_is_refused(tmp_path: Path) -> None:
    model = served(onnx_files.add(), [tensor("x", [4])], [tensor("y", [4])])
    with worker(tmp_path, onnx_files.add(), model) as started:
        assert started.ready["error"]["code"] == "model_mismatch"


def test_a_runtime_that_is_missing_or_another_library_is_told_and_nothing_hangs(
    tmp_path: Path,
) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(onnx_files.add())
    text = tmp_path / "libtext.so"
    text.write_text("not a library")
    fifo = tmp_path / "libfifo.so"
    os.mkfifo(fifo)
    other = next(Path(np.__file__).parent.glob("_core/_multiarray_umath*.so"))
    for path, code in (
        (tmp_path / "libnone.so", "runtime_missing"),
        (text, "runtime_invalid"),
        (fifo, "runtime_invalid"),
        (other, "runtime_invalid"),
    ):
        assert inspect(file, library=str(path))["error"]["code"] == code, path


def trace(folder: Path) -> list[str]:
    """Lines of all traced threads, as strace wrote them."""
    return (folder / "trace").read_text(errors="replace").splitlines()


needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed (apt-get install strace)"
)


@needs_strace
def test_a_worker_that_loads_and_predicts_makes_no_socket_and_writes_no_file(
    tmp_path: Path,
) -> None:
    calls = "trace=network,%file,process"
    out = tmp_path / "trace"
    prefix = ["strace", "-f", "-qq", "-e", calls, "-o", str(out)]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    with worker(tmp_path, onnx_files.add(), add_model(threads=2), prefix=prefix) as started:
        assert started.ready["ready"], started.ready
        for _ in range(5):
            assert started.infer({"inputs": ADDENDS}).status == 200
        # strace passes the signal on to nobody; the worker is its child.
        children = Path(f"/proc/{started.process.pid}/task/{started.process.pid}/children")
        os.kill(int(children.read_text().split()[0]), signal.SIGTERM)
        assert started.process.wait(WAIT) == 0
        loaded = [line for line in trace(tmp_path) if "libonnxruntime.so" in line]
        lines = trace(tmp_path)
    assert loaded, "the trace is of another process"
    assert any("accept4(" in line for line in lines)
    made = re.compile(r"\b(socket|connect|bind|listen|sendmmsg|execve|fork|vfork)\(")
    started_at = next(at for at, line in enumerate(lines) if "execve(" in line)
    assert [line for line in lines[started_at + 1 :] if made.search(line)] == []
    changes = re.compile(
        r"O_WRONLY|O_RDWR|O_CREAT|\b(creat|mkdir|mkdirat|unlink|unlinkat|rename|renameat|renameat2|"
        r"link|linkat|symlink|symlinkat|truncate|chmod|fchmodat|mknod|mknodat)\("
    )
    assert [line for line in lines if changes.search(line) and "O_RDONLY" not in line] == []
    assert not any("resolv.conf" in line or "/etc/hosts" in line for line in lines)
    assert set(before) <= set(tmp_path.iterdir())


def test_a_worker_has_no_privileges_leaves_no_core_and_has_a_bound_on_its_memory(
    adding: Worker,
) -> None:
    """As the kernel says it."""
    status = Path(f"/proc/{adding.process.pid}/status").read_text()
    said = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert said["NoNewPrivs"] == "1"
    assert said["Seccomp"] == "2"
    assert int(said["CapEff"], 16) == 0
    limits = Path(f"/proc/{adding.process.pid}/limits").read_text()
    assert re.search(r"Max core file size +0 +0", limits)
    data = re.search(r"Max data size +(\d+)", limits)
    assert data
    assert 1 << 30 < int(data[1]) < 4 << 30
