"""A model's file is sent when the node does not have it, and only then."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from vedette.cli.manifests import _send
from vedette.cli.uploading import is_there, upload_model
from vedette.control.client import ControlClient
from vedette.errors import ConfigError, UnavailableError

MODEL, COMPONENT, FILE = ("sha256:" + each * 64 for each in "abc")


class Node:
    """What control would answer; `has`: digests of files of models that are there."""

    def __init__(self, *has: str) -> None:
        self.has = set(has)
        self.sent: list[tuple[str, str, int]] = []

    def get(self, path: str) -> Any:
        if path == "/v1/model-files/away":
            raise UnavailableError("control_away", "away")
        if path.rpartition("/")[2] not in self.has:
            raise ConfigError("blob_missing", "not there")
        return {}

    def upload(self, digest: str, file: Path, on_sent: Callable[[int], None], room: str) -> None:
        on_sent(file.stat().st_size)
        self.sent.append((room, digest, file.stat().st_size))

    def upload_bytes(self, digest: str, data: bytes, room: str = "files") -> None:
        self.sent.append((room, digest, len(data)))

    def post(self, _path: str, _body: Any, timeout: float) -> Any:
        assert timeout > 0
        return {"applied": True, "generation": 1, "digest": MODEL}


def client_of(node: Node) -> ControlClient:
    return cast("ControlClient", node)


def test_it_is_sent_once(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(b"12345")
    node = Node()
    assert upload_model(client_of(node), MODEL, file, "m")
    assert node.sent == [("model-files", MODEL, 5)]
    assert not upload_model(client_of(Node(MODEL)), MODEL, file, "m")
    assert not upload_model(client_of(node := Node(MODEL)), MODEL, file, "m")
    assert node.sent == []


def test_whether_it_is_there_is_not_guessed() -> None:
    with pytest.raises(UnavailableError):
        is_there(client_of(Node()), "away")


@pytest.mark.parametrize("has", [(), (MODEL,)])
def test_applying_sends_each_content_to_its_room(has: tuple[str, ...]) -> None:
    node = Node(*has)
    payload = json.dumps({"models": [{"blob": MODEL}]})
    answer = {"blobs": [MODEL, COMPONENT, FILE], "payload": payload, "changes": []}
    _send(client_of(node), answer, lambda digest: digest.encode(), {COMPONENT}, as_json=True)
    sent = [("blobs", COMPONENT, 71), ("files", FILE, 71)]
    assert node.sent == ([] if has else [("model-files", MODEL, 71)]) + sent
