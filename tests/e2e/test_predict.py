"""Models through the whole node: real files, the real runtime in its box, the gateway, and a published client."""

from __future__ import annotations

import json
import os
import random
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy
import onnx
import pytest
import tritonclient.http as triton
from onnx import TensorProto, helper, numpy_helper
from tests.e2e.node import Node, new_home

WIDTH = 8


def scaled(path: Path, factor: float) -> Path:
    """A model that multiplies rows of `WIDTH` numbers, any number of rows, and says the largest of each."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", WIDTH])
    products = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", WIDTH])
    largest = helper.make_tensor_value_info("best", TensorProto.INT64, ["rows"])
    by = numpy_helper.from_array(numpy.array([factor], numpy.float32), "factor")
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["y"]),
        helper.make_node("ArgMax", ["y"], ["best"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(nodes, "scaled", [given], [products, largest], [by])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(new_home())
    try:
        node.start()
        file = scaled(tmp_path_factory.mktemp("models") / "twice.onnx", 2.0)
        node.run("model", "add", str(file), "--name", "twice")
        yield node
    finally:
        node.discard()


def ask(
    node: Node, path: str = "infer", token: str | None = None, **more: object
) -> httpx.Response:
    """One request of the model `twice`, with the node's usual token unless another is given ("": none)."""
    proof = node.usual_token if token is None else token
    headers = {"authorization": f"Bearer {proof}"} if proof else {}
    method = "POST" if more else "GET"
    with httpx.Client(
        verify=ssl.create_default_context(cafile=str(node.ca_file)), timeout=30
    ) as client:
        return client.request(method, f"{node.url}/v2/models/twice/{path}", headers=headers, **more)  # type: ignore[arg-type]


def rows(*values: list[float]) -> dict[str, object]:
    """An infer request of these rows."""
    flat = [each for row in values for each in row]
    shape = [len(values), WIDTH]
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": shape, "data": flat}]}


ONE = [float(each) for each in range(WIDTH)]


def test_a_model_is_added_and_asked_in_two_commands(node: Node) -> None:
    done = node.run("predict", "twice", json.dumps([ONE]), "--json")
    outputs = {each["name"]: each for each in json.loads(done.stdout)["outputs"]}
    assert outputs["y"]["data"] == [2 * each for each in ONE]
    assert outputs["best"]["data"] == [WIDTH - 1]


def test_the_published_client_of_triton_works_unmodified(node: Node) -> None:
    host = f"localhost:{node.endpoint.port}"
    client = triton.InferenceServerClient(
        host,
        ssl=True,
        ssl_options={"ca_certs": str(node.ca_file)},
        ssl_context_factory=None,
    )
    headers = {"authorization": f"Bearer {node.usual_token}"}
    try:
        assert client.is_model_ready("twice", headers=headers)
        told = client.get_model_metadata("twice", headers=headers)
        assert [each["shape"] for each in told["inputs"]] == [[-1, WIDTH]]
        values = numpy.arange(3 * WIDTH, dtype=numpy.float32).reshape(3, WIDTH)
        given = triton.InferInput("x", list(values.shape), "FP32")
        given.set_data_from_numpy(values, binary_data=True)
        wanted = [triton.InferRequestedOutput("y", binary_data=True)]
        answer = client.infer("twice", [given], outputs=wanted, headers=headers)
        assert (answer.as_numpy("y") == 2 * values).all()
        assert answer.as_numpy("best") is None
    finally:
        client.close()


def test_who_has_no_token_is_refused_and_policy_can_forbid(node: Node) -> None:
    assert ask(node, token="", json=rows(ONE)).status_code == 401
    forbid = 'forbid (principal, action == Action::"predict", resource == Model::"twice")\n'
    node.set_policy(
        "no-mallory.cedar",
        forbid + 'when { principal is Subject && principal.subject == "mallory" };',
    )
    mallory = node.token("mallory")
    assert ask(node, token=mallory, json=rows(ONE)).status_code == 403
    assert ask(node, json=rows(ONE)).status_code == 200


def test_each_inference_is_recorded_with_the_model_that_answered(node: Node) -> None:
    answer = ask(node, json=rows(ONE))
    line = node.record(answer.headers["x-request-id"])
    assert (line["model"], line["modelVersion"], line["tier"]) == ("twice", 1, "edge")
    assert line["modelDigest"].startswith("sha256:")
    assert line["runMicros"] >= 0
    assert line["principal"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"name": "z"}, "z"),
        ({"datatype": "FP64"}, "FP64"),
        ({"shape": [1, WIDTH + 1]}, "shape"),
        ({"shape": [1, WIDTH, 1]}, "shape"),
        ({"data": [1.0]}, "elements"),
    ],
)
def test_what_does_not_fit_the_model_is_told(
    node: Node, change: dict[str, object], word: str
) -> None:
    request = rows(ONE)
    request["inputs"][0] |= change  # type: ignore[index]
    answer = ask(node, json=request)
    assert answer.status_code == 400
    assert word in answer.json()["error"]
    line = node.record(answer.headers["x-request-id"])
    assert (line["cause"], line["outcome"]) == ("model_request_invalid", "refused")
    assert line["detail"] == answer.json()["error"]
    assert (line["model"], line["tier"]) == ("twice", "edge")


def worker_of(node: Node, model: str) -> int:
    """The process that answers for a model."""
    told = json.loads(node.run("model", "show", model, "--json").stdout)
    pid = told["worker"]["pid"]
    assert isinstance(pid, int)
    return pid


def test_the_node_answers_for_itself_by_the_protocol(node: Node) -> None:
    client = triton.InferenceServerClient(
        f"localhost:{node.endpoint.port}", ssl=True, ssl_options={"ca_certs": str(node.ca_file)}
    )
    headers = {"authorization": f"Bearer {node.usual_token}"}
    try:
        assert client.is_server_live(headers=headers)
        assert client.is_server_ready(headers=headers)
        told = client.get_server_metadata(headers=headers)
        assert (told["name"], told["extensions"]) == ("vedette", ["binary_tensor_data"])
        assert not client.is_server_live()
    finally:
        client.close()


def test_nobody_waits_for_a_worker_that_is_stopped(node: Node, tmp_path: Path) -> None:
    """Without any deadline of the caller's or the route's: twice the longest run and 5 s."""
    scaled(tmp_path / "brief.onnx", 5.0)
    (tmp_path / "brief.yaml").write_text(
        "apiVersion: vedette.dev/v1alpha1\nkind: Model\nmetadata: {name: brief}\n"
        "spec: {file: brief.onnx, limits: {run: 100ms}}\n"
    )
    node.run("apply", "--yes", str(tmp_path / "brief.yaml"))
    url = f"{node.url}/v2/models/brief/infer"
    context = ssl.create_default_context(cafile=str(node.ca_file))
    headers = {"authorization": f"Bearer {node.usual_token}"}
    pid = worker_of(node, "brief")
    with httpx.Client(verify=context, timeout=120, headers=headers) as client:
        os.kill(pid, signal.SIGSTOP)
        try:
            stuck = client.post(url, json=rows(ONE))
            unready = client.get(f"{node.url}/v2/health/ready")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert (stuck.status_code, unready.status_code) == (504, 503)
        line = node.record(stuck.headers["x-request-id"])
        assert (line["cause"], line["outcome"]) == ("model_silent", "failed")
        assert line["detail"] == "nothing came of its process for 5200 ms"
        line = node.record(unready.headers["x-request-id"])
        assert (line["cause"], line["detail"]) == ("model_unavailable", "brief is not ready")
        assert client.post(url, json=rows(ONE)).status_code == 200
        assert client.get(f"{node.url}/v2/health/ready").json() == {"ready": True}
    node.run("model", "remove", "brief")


def test_a_killed_worker_is_back_and_the_node_never_notices(node: Node) -> None:
    state = json.loads(node.path("run", "models", "state.json").read_text("utf-8"))
    [pid] = [each["pid"] for each in state["models"].values() if each["state"] == "ready"]
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while ask(node, json=rows(ONE)).status_code != 200:
        assert time.monotonic() < deadline, node.last_words()
        time.sleep(0.05)
    told = json.loads(node.run("model", "show", "twice", "--json").stdout)
    assert told["worker"]["restarts"] == 1


def test_a_new_version_takes_over_under_load_without_a_failed_request(
    node: Node, tmp_path: Path
) -> None:
    seen: list[tuple[int, float]] = []
    done = threading.Event()

    def load() -> None:
        headers = {"authorization": f"Bearer {node.usual_token}"}
        with httpx.Client(
            verify=ssl.create_default_context(cafile=str(node.ca_file)), timeout=30
        ) as client:
            while not done.is_set():
                url = f"{node.url}/v2/models/twice/infer"
                answer = client.post(url, json=rows(ONE), headers=headers)
                told = answer.json()["outputs"][0]["data"][1] if answer.is_success else 0.0
                seen.append((answer.status_code, told))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        file = scaled(tmp_path / "thrice.onnx", 3.0)
        node.run("model", "add", str(file), "--name", "twice")
        node.run("model", "rollback", "twice")
        node.run("model", "promote", "twice", "--version", "2")
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert {status for status, _ in seen} == {200}
    assert {told for _, told in seen} == {2.0, 3.0}
    assert ask(node, json=rows(ONE)).json()["model_version"] == "2"


def test_an_older_version_is_refused(node: Node, tmp_path: Path) -> None:
    file = scaled(tmp_path / "once.onnx", 1.0)
    told = node.run("model", "add", str(file), "--name", "twice", "--version", "1", check=False)
    assert told.returncode != 0
    assert "version 1 of 'twice' is not higher than" in told.stderr


@pytest.mark.parametrize("what", ["truncated", "random", "reaching"])
def test_a_file_that_is_no_model_changes_nothing(node: Node, tmp_path: Path, what: str) -> None:
    file = scaled(tmp_path / "bad.onnx", 1.0)
    if what == "truncated":
        file.write_bytes(file.read_bytes()[:-9])
    elif what == "random":
        file.write_bytes(b"\x08\x08" + random.Random(7).randbytes(4096))
    else:
        model = onnx.load(str(file))
        outside = model.graph.initializer[0]
        outside.ClearField("raw_data")
        outside.data_location = TensorProto.EXTERNAL
        outside.external_data.add(key="location", value="../../etc/passwd")
        file.write_bytes(model.SerializeToString())
    before = node.status()["snapshot"]["digest"]
    told = node.run("model", "add", str(file), "--name", "bad", check=False)
    assert told.returncode != 0
    said = {
        "truncated": "is not ONNX: it ends in the middle",
        "random": "is not ONNX",
        "reaching": 'tensor "factor" has its values in another file ("../../etc/passwd")',
    }
    assert said[what] in told.stderr
    assert node.status()["snapshot"]["digest"] == before
