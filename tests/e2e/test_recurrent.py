"""A voice activity detector through the whole node: a folder taken in, sound in, scores and alarms out."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.e2e.node import Node, new_home
from tests.e2e.talk import Talk
from tests.e2e.wire import HTTP_1, HTTP_2, connect, tls_context
from tests.support.voice import Sound, chunks, silence, silero, stepped, voice
from websockets.sync.client import connect as websocket

PATH = "/v2/models/door/stream"
SPEC = """
task: voice-activity
stream:
  size: 512
  context: 64
  state: [{input: state, output: stateN}]
  constants: {sr: 16000}
  threshold: 0.5
"""
TALK = np.concatenate([silence(0.6, 2), voice(0.8, 120), silence(0.4, 3)])


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with the detector."""
    folder = tmp_path_factory.mktemp("door")
    shutil.copy(silero(), folder / "model.onnx")
    (folder / "model.yaml").write_text(SPEC, "utf-8")
    node = Node(new_home())
    try:
        node.start()
        node.run("model", "add", str(folder), "--name", "door")
        yield node
    finally:
        node.discard()


@pytest.fixture(scope="module")
def wanted() -> list[float]:
    """What the model says by itself."""
    return stepped(TALK)


def _event(chunk: Sound) -> list[float]:
    return [float(each) for each in chunk]


def _require_scores(said: list[dict[str, Any]], wanted: list[float]) -> None:
    assert [each for each in said if "error" in each] == []
    assert np.allclose([each["score"] for each in said], wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("protocol", [HTTP_1, HTTP_2])
def test_sound_goes_in_over_two_connections_and_what_comes_out_is_the_models(
    node: Node, wanted: list[float], protocol: str
) -> None:
    query, said = f"?stream=hall-{protocol[-3]}", []
    for part in (chunks(TALK)[:25], chunks(TALK)[25:]):
        with connect(node.endpoint, protocol) as secured:
            talk = Talk(node, protocol, secured, path=PATH, query=query)
            assert talk.status == 200
            said += [talk.ask(_event(each)) for each in part]
            talk.end()
            assert talk.line() is None
    _require_scores(said, wanted)
    record = node.record(talk.head["x-request-id"])
    assert (record["outcome"], record["model"]) == ("served", "door")


def test_alarms_are_the_models_and_their_stream_is_named(node: Node, wanted: list[float]) -> None:
    with connect(node.endpoint, HTTP_2) as secured:
        talk = Talk(node, HTTP_2, secured, path=PATH, query="?stream=alarm")
        said = [talk.ask(_event(each)) for each in chunks(TALK)]
    assert [each["alarm"] for each in said] == [each >= 0.5 for each in wanted]
    noted = json.loads(node.run("model", "alarms", "door", "--json").stdout)
    assert {each["stream"].split("-")[0] for each in noted} <= {"alarm", "hall"}
    found = {each["n"]: each["score"] for each in noted}
    assert found
    assert all(abs(wanted[n - 1] - score) < 1e-4 and score >= 0.5 for n, score in found.items())


def test_a_websocket_takes_sound_as_it_is(node: Node, wanted: list[float]) -> None:
    with websocket(
        f"wss://{node.endpoint.authority}{PATH}",
        sock=socket.create_connection((node.endpoint.host, node.endpoint.port), timeout=60),
        ssl=tls_context(node.ca_file, HTTP_1),
        server_hostname="localhost",
        additional_headers={"authorization": f"Bearer {node.usual_token}"},
        proxy=None,
        compression=None,
    ) as client:
        said = []
        for chunk in chunks(TALK):
            client.send(chunk.tobytes())
            said.append(json.loads(client.recv(60)))
        client.send(b"\0" * 100)
        assert "2048 bytes" in json.loads(client.recv(60))["error"]
    _require_scores(said, wanted)


def test_a_version_that_does_not_say_keeps_how_it_answers_streams(
    node: Node, tmp_path: Path
) -> None:
    shutil.copy(silero(), tmp_path / "again.onnx")
    node.run("model", "add", str(tmp_path / "again.onnx"), "--name", "door", "--threads", "2")
    shown = node.run("model", "show", "door").stdout
    assert "512 numbers an event, an alarm from 0.5; output is the score" in shown
    with connect(node.endpoint, HTTP_2) as secured:
        talk = Talk(node, HTTP_2, secured, path=PATH)
        assert talk.status == 200
        assert talk.ask(_event(chunks(TALK)[0]))["n"] == 1


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            "stream: {state: [{input: state, output: stateN}], constants: {sr: 16000}}",
            "stream.size",
        ),
        ("stream: {size: 512, state: [{input: state, output: stateN}]}", "say which of input"),
        (
            "stream: {size: 512, state: [{input: state, output: output}], constants: {sr: 16000}, score: output}",
            "stream.state: output is",
        ),
    ],
)
def test_a_folder_that_says_what_does_not_fit_is_refused(
    node: Node, tmp_path: Path, spec: str, words: str
) -> None:
    shutil.copy(silero(), tmp_path / "model.onnx")
    (tmp_path / "model.yaml").write_text(spec, "utf-8")
    refused = node.run("model", "add", str(tmp_path), "--name", "other", check=False)
    assert refused.returncode != 0
    assert words in refused.stderr
