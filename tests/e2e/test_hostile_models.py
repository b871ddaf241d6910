"""What a model, or those who ask it, can do to a node: too long, too much, too many, gone in the middle of it."""

from __future__ import annotations

import json
import ssl
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from tests.e2e.node import Node, new_home, wait_until
from tests.e2e.test_predict import ONE, rows, scaled, worker_of
from tests.e2e.wire import HTTP_2, Http2, connect
from tests.models import onnx_files

NEVER_ENDING = 2**40
STREAMS = 128
"""How many requests the node takes at once on a connection."""
MODELS = """\
apiVersion: vedette.dev/v1alpha1
kind: Model
metadata: {name: brief}
spec: {file: slow.onnx, limits: {run: 1s}}
---
apiVersion: vedette.dev/v1alpha1
kind: Model
metadata: {name: patient}
spec: {file: slow.onnx, limits: {run: 30m, queue: 64}}
---
apiVersion: vedette.dev/v1alpha1
kind: Model
metadata: {name: hungry}
spec: {file: hungry.onnx, limits: {memory: 128MB}}
---
apiVersion: vedette.dev/v1alpha1
kind: Model
metadata: {name: seeing}
spec: {file: pooled.onnx, input: {image: {resize: stretch}}}
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with models that can be made to misbehave, and `twice`, which behaves."""
    node = Node(new_home())
    folder = tmp_path_factory.mktemp("models")
    try:
        node.start()
        node.run("model", "add", str(scaled(folder / "twice.onnx", 2.0)), "--name", "twice")
        for name in ("slow", "hungry", "pooled"):
            (folder / f"{name}.onnx").write_bytes(getattr(onnx_files, name)())
        (folder / "models.yaml").write_text(MODELS, "utf-8")
        node.run("apply", "--yes", "-f", str(folder / "models.yaml"))
        yield node
    finally:
        node.discard()


@contextmanager
def asking(node: Node) -> Iterator[httpx.Client]:
    """A client of the node with its usual token."""
    headers = {"authorization": f"Bearer {node.usual_token}"}
    context = ssl.create_default_context(cafile=str(node.ca_file))
    with httpx.Client(verify=context, timeout=120, headers=headers) as client:
        yield client


def url(node: Node, name: str) -> str:
    return f"{node.url}/v2/models/{name}/infer"


def one(name: str, value: int) -> dict[str, object]:
    """A request with one whole number."""
    return {"inputs": [{"name": name, "datatype": "INT64", "shape": [1], "data": [value]}]}


def require_others_are_served(node: Node, client: httpx.Client) -> None:
    """Another model answers, and answers right."""
    answer = client.post(url(node, "twice"), json=rows(ONE))
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["data"] == [2 * each for each in ONE]


def test_a_model_that_takes_too_long_is_stopped_and_others_are_answered_meanwhile(
    node: Node,
) -> None:
    with asking(node) as client, asking(node) as other, ThreadPoolExecutor(1) as thread:
        pid = worker_of(node, "brief")
        endless = thread.submit(client.post, url(node, "brief"), json=one("times", NEVER_ENDING))
        while not endless.done():
            require_others_are_served(node, other)
        answer = endless.result()
        assert answer.status_code == 504, answer.text
        assert "1000 ms" in answer.json()["error"]
        line = node.record(answer.headers["x-request-id"])
        assert (line["model"], line["outcome"]) == ("brief", "failed")
        assert client.post(url(node, "brief"), json=one("times", 1)).status_code == 200
        assert worker_of(node, "brief") == pid, "a run that can be stopped costs no process"


def test_a_model_that_wants_ten_gigabytes_gets_none_and_the_next_request_is_answered(
    node: Node,
) -> None:
    with asking(node) as client:
        answer = client.post(url(node, "hungry"), json=one("count", 10 * (1 << 30) // 4))
        assert answer.status_code == 503, answer.text
        assert "memory" in answer.json()["error"]
        assert int(answer.headers["retry-after"]) >= 1
        line = node.record(answer.headers["x-request-id"])
        assert line["model"] == "hungry"
        assert line["detail"] == answer.json()["error"]
        few = client.post(url(node, "hungry"), json=one("count", 1000))
        assert few.json()["outputs"][0]["data"] == [1000.0]
        require_others_are_served(node, client)


def bomb(side: int) -> bytes:
    """A PNG of `side` x `side` pixels by its head, in less than a kilobyte."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(300_000), 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)


def test_a_picture_of_100_megapixels_in_a_kilobyte_is_refused_before_its_pixels_are_made(
    node: Node,
) -> None:
    picture = bomb(10_000)
    assert len(picture) < 1_024
    with asking(node) as client:
        before = most_memory(worker_of(node, "seeing"))
        answer = client.post(
            url(node, "seeing"), content=picture, headers={"content-type": "image/png"}
        )
        assert answer.status_code == 400, answer.text
        assert "10000 x 10000 pixels" in answer.json()["error"]
        # Three bytes a pixel would be 300 MB.
        assert most_memory(worker_of(node, "seeing")) - before < 32 << 20
        require_others_are_served(node, client)


def most_memory(pid: int) -> int:
    """The most that a process ever had resident, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


class Crowd:
    """As many requests at once as are wanted, over as many connections of HTTP/2 as that takes."""

    def __init__(self, node: Node, name: str) -> None:
        self._node = node
        self._open = ExitStack()
        self._connections: list[tuple[Http2, list[int]]] = []
        self._head = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", node.endpoint.authority),
            (":path", f"/v2/models/{name}/infer"),
            ("authorization", f"Bearer {node.usual_token}"),
            ("content-type", "application/json"),
        ]

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leaves, whatever is under way."""
        self._open.close()

    def ask(self, count: int, body: bytes) -> None:
        """Sends so many requests, and waits for none."""
        for at in range(0, count, STREAMS):
            stream = Http2(self._open.enter_context(connect(self._node.endpoint, HTTP_2)))
            # Until the node's settings are there, it may not be asked for that many at once.
            stream.ping()
            wanted = min(STREAMS, count - at)
            self._connections.append(
                (stream, [stream.request(self._head, body) for _ in range(wanted)])
            )

    def read(self) -> None:
        """Takes in what has come by now."""
        for stream, _ in self._connections:
            stream.ping()

    def heads(self) -> list[tuple[int, dict[str, str]]]:
        """Status and fields of each answer that is there; reads nothing."""
        pairs = [(stream, number) for stream, numbers in self._connections for number in numbers]
        found = [(stream.status(number), stream, number) for stream, number in pairs]
        return [(status, stream.head(number)) for status, stream, number in found if status]

    def answers(self) -> list[int]:
        """Every status, once all are there."""
        return [
            stream.answer(number).status
            for stream, numbers in self._connections
            for number in numbers
        ]


@pytest.mark.timeout(600)
def test_of_10000_requests_as_many_wait_as_may_and_all_others_are_told_to_come_again(
    node: Node,
) -> None:
    count, queue = 10_000, 64
    with asking(node) as client, Crowd(node, "patient") as first, Crowd(node, "patient") as crowd:
        before = node.resident()
        pid = worker_of(node, "patient")
        idle = processor_time(pid)
        first.ask(1, json.dumps(one("times", NEVER_ENDING)).encode())
        wait_until("it runs", lambda: processor_time(pid) > idle + 20)
        crowd.ask(count, json.dumps(one("times", 1)).encode())

        def told() -> int:
            crowd.read()
            require_others_are_served(node, client)
            return len(crowd.heads())

        wait_until("all but those who wait are told", lambda: told() >= count - queue, 300)
        refused = crowd.heads()
        assert {status for status, _ in refused} == {503}
        assert len(refused) == count - queue
        assert all(int(head["retry-after"]) >= 1 for _, head in refused)
        line = node.record(refused[-1][1]["x-request-id"])
        # What waits at the model's process is its own word; beyond that the engine asks it no more.
        assert line["model"] == "patient"
        assert (line["cause"], line["detail"]) in (
            ("model_busy", "as many requests wait for the model as may"),
            ("model_busy", "overloaded"),
        )
        assert worker_of(node, "patient") == pid
        first.close()  # it leaves, and its run ends
        answers = crowd.answers()
        assert answers.count(200) == queue
        assert answers.count(503) == count - queue
        assert node.resident() - before < 256 << 20
        require_others_are_served(node, client)


def processor_time(pid: int) -> int:
    """Of all its threads, in ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
