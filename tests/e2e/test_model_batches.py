"""Requests that run together, through the whole node: those of one caller may, those of several never do."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node, wait_until
from tests.e2e.test_predict import worker_of
from tests.e2e.wire import HTTP_1, tls_context
from tests.models import onnx_files

INSIDE = 512
CALLERS = 12
SUITED = 2_000
"""Requests after which a model whose rows get cheaper together has put some together, many times over."""


@pytest.fixture(scope="module")
def node(start_node: StartNode, tmp_path_factory: pytest.TempPathFactory) -> Node:
    """A node with a model whose run is the reading of its weights: eight rows take as long as one."""
    node = start_node()
    file = tmp_path_factory.mktemp("models") / "dense.onnx"
    file.write_bytes(onnx_files.mlp(INSIDE, 8))
    node.run("model", "add", str(file), "--name", "dense")
    return node


@pytest.fixture
def answers(node: Node) -> Iterator[Answers]:
    """The model's answers to one row, by who asks."""
    with Answers(node) as answers:
        yield answers


class Answers:
    """Rows that are asked, and which requests ran together."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._client = httpx.Client(verify=tls_context(node.ca_file, HTTP_1), timeout=60)
        self._url = f"{node.url}/v2/models/dense/infer"

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def send(self, token: str, seed: int) -> httpx.Response:
        """What came for one row, whatever it is."""
        row = np.random.default_rng(seed).standard_normal(INSIDE, np.float32)
        given = {"name": "x", "datatype": "FP32", "shape": [1, INSIDE], "data": row.tolist()}
        headers = {"authorization": f"Bearer {token}"}
        return self._client.post(self._url, json={"inputs": [given]}, headers=headers)

    def ask(self, token: str, seed: int) -> tuple[str, np.ndarray]:
        """The id of a request with one row, and what came."""
        answer = self.send(token, seed)
        assert answer.status_code == 200, answer.text
        [output] = answer.json()["outputs"]
        assert output["shape"] == [1, INSIDE]
        return answer.headers["x-request-id"], np.array(output["data"], np.float32)

    def batch(self, request_id: str) -> int:
        """How many ran together, as the record says."""
        batch: int = self._node.record(request_id)["batch"]
        return batch

    def together(self, tokens: list[str]) -> list[tuple[int, str, np.ndarray]]:
        """Asks with each token at once; seed, id and answer of each."""
        begin = threading.Barrier(len(tokens))

        def one(number: int, token: str) -> tuple[int, str, np.ndarray]:
            begin.wait(60)
            return number, *self.ask(token, number)

        with ThreadPoolExecutor(len(tokens)) as pool:
            return list(pool.map(one, range(len(tokens)), tokens))


def test_requests_of_one_caller_run_together_and_each_gets_its_own(
    node: Node, answers: Answers
) -> None:
    alone = {seed: answers.ask(node.usual_token, seed)[1] for seed in range(CALLERS)}
    most = 1
    for _ in range(SUITED // CALLERS):
        found = answers.together([node.usual_token] * CALLERS)
        for seed, _, got in found:
            np.testing.assert_allclose(got, alone[seed], rtol=1e-4, atol=1e-4)
        most = max(most, *(answers.batch(request_id) for _, request_id, _ in found))
        if most > 1:
            break
    assert 1 < most <= 8


def test_requests_of_several_callers_never_do(node: Node, answers: Answers) -> None:
    tokens = [node.token(f"caller-{number}") for number in range(CALLERS)]
    for _ in range(5):
        for _, request_id, _ in answers.together(tokens):
            assert answers.batch(request_id) == 1


def test_a_process_killed_amid_batches_spoils_no_answer_and_is_back(
    node: Node, answers: Answers
) -> None:
    alone = {seed: answers.ask(node.usual_token, seed)[1] for seed in range(CALLERS)}
    came: list[tuple[int, httpx.Response]] = []
    done = threading.Event()

    def load(seed: int) -> None:
        while not done.is_set():
            came.append((seed, answers.send(node.usual_token, seed)))

    with ThreadPoolExecutor(CALLERS) as pool:
        callers = [pool.submit(load, seed) for seed in range(CALLERS)]
        try:
            wait_until(
                "some ran together", lambda: node.requests.lines()[-1].get("batch", 1) > 1, 300
            )
            killed = worker_of(node, "dense")
            os.kill(killed, signal.SIGKILL)
            wait_until("calls under way failed", lambda: failed(came))
            known = len(came)
            wait_until("it answers again", lambda: any(ok(each) for _, each in came[known:]))
        finally:
            done.set()
        for caller in callers:
            caller.result(60)
    assert worker_of(node, "dense") != killed
    for seed, answer in came:
        if ok(answer):
            [output] = answer.json()["outputs"]
            got = np.array(output["data"], np.float32).reshape(1, INSIDE)
            np.testing.assert_allclose(got, alone[seed].reshape(1, INSIDE), rtol=1e-4, atol=1e-4)
    causes = {node.record(each.headers["x-request-id"])["cause"] for each in failed(came)}
    assert causes <= {"model_unavailable", "model_busy"}


def ok(answer: httpx.Response) -> bool:
    return answer.status_code == 200


def failed(came: list[tuple[int, httpx.Response]]) -> list[httpx.Response]:
    """Those that were not answered, each of which has to say that it may come again."""
    others = [answer for _, answer in came if not ok(answer)]
    assert {answer.status_code for answer in others} <= {503}
    assert all("retry-after" in answer.headers for answer in others)
    return others
