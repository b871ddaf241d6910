"""Streams of a model through the whole node: events over HTTP/1.1, HTTP/2 and WebSocket, and what ends them."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import wsproto.frame_protocol as frames
from tests.e2e.node import Node, new_home, wait_until
from tests.e2e.talk import Talk
from tests.e2e.wire import HTTP_1, HTTP_2, Http2, connect, tls_context
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as websocket

PATH = "/v2/models/pump/stream"
DETECTOR = {
    "detector": "half-space-trees",
    "features": [{"name": "temp", "min": 0, "max": 120}, {"name": "flow", "min": 0, "max": 10}],
    "threshold": 0.97,
}
PROTOCOLS = [HTTP_1, HTTP_2]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with a detector."""
    file = tmp_path_factory.mktemp("detector") / "pump.json"
    file.write_text(json.dumps(DETECTOR), "utf-8")
    node = Node(new_home())
    try:
        node.start()
        node.run("model", "add", str(file), "--name", "pump")
        yield node
    finally:
        node.discard()


def events(count: int) -> list[dict[str, float]]:
    """A pump that runs, and fails once."""
    drawn = random.Random(3)
    found = [{"temp": drawn.gauss(71, 1), "flow": drawn.gauss(4, 0.2)} for _ in range(count)]
    found[count * 3 // 4] = {"temp": 111.0, "flow": 0.5}
    return found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_2000_events_are_answered_one_by_one_and_the_failure_is_an_alarm(
    node: Node, protocol: str
) -> None:
    with connect(node.endpoint, protocol) as secured:
        talk = Talk(node, protocol, secured)
        assert (talk.status, talk.head["content-type"]) == (200, "application/x-ndjson")
        found = [talk.ask(each) for each in events(2_000)]
        talk.end()
        assert talk.line() is None
    assert [each["n"] for each in found] == list(range(1, 2_001))
    noted = json.loads(node.run("model", "alarms", "pump", "--json").stdout)
    assert [(each["n"], each["score"]) for each in noted][-1] == (1_501, found[1_500]["score"])
    assert found[1_500]["alarm"]
    assert found[1_500]["score"] == max(each["score"] for each in found)
    record = node.record(talk.head["x-request-id"])
    assert (record["outcome"], record["model"], record["modelVersion"]) == ("served", "pump", 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_stream_is_kept_for_its_caller_and_nobody_else(node: Node, protocol: str) -> None:
    query = f"?stream=line-{protocol[-3]}"
    token = node.token("mallory")
    with connect(node.endpoint, protocol) as one, connect(node.endpoint, protocol) as other:
        talk = Talk(node, protocol, one, query=query)
        assert [talk.ask([70, 4])["n"] for _ in range(3)] == [1, 2, 3]
        assert Talk(node, protocol, other, query=query).status == 409
        talk.end()
        assert talk.line() is None
    with connect(node.endpoint, protocol) as one, connect(node.endpoint, protocol) as other:
        assert Talk(node, protocol, one, query=query).ask([70, 4])["n"] == 4
        assert Talk(node, protocol, other, query=query, token=token).ask([70, 4])["n"] == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_stream_ends_when_its_token_is_revoked_and_others_go_on(
    node: Node, protocol: str
) -> None:
    token = node.token("mallory")
    with connect(node.endpoint, protocol) as one, connect(node.endpoint, protocol) as two:
        ending = Talk(node, protocol, one, token=token)
        other = Talk(node, protocol, two)
        assert (ending.ask([70, 4])["n"], other.ask([70, 4])["n"]) == (1, 1)
        node.run("token", "revoke", token)
        assert ending.line() is None
        assert other.ask([70, 4])["n"] == 2
    record = node.record(ending.head["x-request-id"])
    assert (record["cause"], record["outcome"]) == ("token_revoked", "aborted")


def _websocket(node: Node, query: str = "", token: str = "") -> ClientConnection:
    address = (node.endpoint.host, node.endpoint.port)
    return websocket(
        f"wss://{node.endpoint.authority}{PATH}{query}",
        sock=socket.create_connection(address, timeout=60),
        ssl=tls_context(node.ca_file, HTTP_1),
        server_hostname="localhost",
        additional_headers={"authorization": f"Bearer {token or node.usual_token}"},
        proxy=None,
        compression=None,
    )


def test_a_websocket_takes_an_event_a_message(node: Node) -> None:
    with _websocket(node, "?stream=ws") as client:
        for n in range(1, 100):
            client.send(json.dumps({"temp": 70, "flow": 4, "id": n}))
            said = json.loads(client.recv(60))
            assert (said["n"], said["id"]) == (n, n)
        with pytest.raises(InvalidStatus) as refused:
            _websocket(node, "?stream=ws")
        assert refused.value.response.status_code == 409
    with pytest.raises(InvalidStatus) as refused:
        _websocket(node, token="none")
    assert refused.value.response.status_code == 401


def test_a_websocket_ends_when_its_token_is_revoked(node: Node) -> None:
    token = node.token("mallory")
    with _websocket(node, token=token) as client:
        client.send("[70, 4]")
        assert json.loads(client.recv(60))["n"] == 1
        node.run("token", "revoke", token)
        with pytest.raises(ConnectionClosed):
            client.recv(60)


def test_a_websocket_is_a_stream_of_http_2(node: Node) -> None:
    """RFC 8441."""
    with connect(node.endpoint, HTTP_2) as secured:
        http = Http2(secured)
        http.ping()
        asked = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "https"),
            (":authority", node.endpoint.authority),
            (":path", PATH),
            ("sec-websocket-version", "13"),
            ("authorization", f"Bearer {node.usual_token}"),
        ]
        number = http.request(asked, end=False)
        while not http.status(number):
            http.pump()
        assert http.status(number) == 200
        protocol = frames.FrameProtocol(client=True, extensions=[])
        http.connection.send_data(number, protocol.send_data("[70, 4]", fin=True))
        http.flush()
        while not http.body_so_far(number):
            http.pump()
        protocol.receive_bytes(http.body_so_far(number))
        (frame,) = protocol.received_frames()
        assert json.loads(frame.payload)["n"] == 1


def test_a_model_without_streams_has_none_and_a_detector_nothing_else(node: Node) -> None:
    with connect(node.endpoint, HTTP_2) as secured:
        http = Http2(secured)
        fields = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", node.endpoint.authority),
            (":path", "/v2/models/pump/infer"),
            ("authorization", f"Bearer {node.usual_token}"),
            ("content-type", "application/json"),
        ]
        refused = http.answer(http.request(fields, b'{"inputs": []}'))
    assert refused.status == 400
    assert "/stream" in json.loads(refused.body)["error"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_streams_end_with_a_word_when_a_new_version_serves_and_begin_anew(
    node: Node, protocol: str, tmp_path: Path
) -> None:
    other = tmp_path / "pump.json"
    other.write_text(
        json.dumps({**DETECTOR, "seed": len(protocol) + hash(protocol) % 1000}), "utf-8"
    )
    with connect(node.endpoint, protocol) as secured:
        talk = Talk(node, protocol, secured, query=f"?stream=long-{protocol[-3]}")
        assert talk.ask([70, 4])["n"] == 1
        node.run("model", "add", str(other), "--name", "pump")
        assert talk.ask([70, 4])["n"] == 2
        assert talk.line() == {"end": "the model is being replaced"}
        assert talk.line() is None
    with connect(node.endpoint, protocol) as secured:
        talk = Talk(node, protocol, secured, query=f"?stream=long-{protocol[-3]}")
        assert talk.ask([70, 4])["n"] == 1


def test_a_killed_worker_ends_its_streams_and_the_next_ones_are_served(node: Node) -> None:
    with connect(node.endpoint, HTTP_2) as secured:
        talk = Talk(node, HTTP_2, secured)
        assert talk.ask([70, 4])["n"] == 1
        worker = json.loads(node.run("model", "show", "pump", "--json").stdout)["worker"]
        os.kill(worker["pid"], signal.SIGKILL)
        assert talk.line() is None
        assert not talk.is_whole()

    def serves() -> bool:
        with connect(node.endpoint, HTTP_2) as secured:
            talk = Talk(node, HTTP_2, secured)
            return talk.status == 200 and talk.ask([70, 4])["n"] == 1

    wait_until("a stream is served again", serves)
