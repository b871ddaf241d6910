"""A snapshot changed by one byte is never served, whoever changed it; the node keeps, or heals, the one it has."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.caller import Caller
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node, wait_until
from tests.guests import Guests


@pytest.fixture(scope="module")
def own(start_node: StartNode, guests: Guests) -> Iterator[Node]:
    """A node whose files may be damaged."""
    node = start_node()
    node.deploy(guests.hello, "hello")
    yield node
    node.stop()


def _active_file(node: Node) -> Path:
    digest = node.status()["snapshot"]["digest"].removeprefix("sha256:")
    return node.path("engine", "snapshots", f"{digest}.json")


def _flip(data: bytes, offset: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]


def _changed(envelope: bytes, part: str) -> bytes:
    """The envelope with one bit of one part changed, otherwise intact."""
    document = json.loads(envelope)
    if part == "payload":
        payload = bytearray(base64.b64decode(document["payload"]))
        place = payload.index(b"1000")
        payload[place] ^= 1
        document["payload"] = base64.b64encode(bytes(payload)).decode()
    elif part == "signature":
        signature = base64.b64decode(document["signatures"][0]["sig"])
        document["signatures"][0]["sig"] = base64.b64encode(_flip(signature, 10)).decode()
    elif part == "payloadType":
        document["payloadType"] = document["payloadType"][:-1] + "m"
    return json.dumps(document).encode()


@pytest.mark.parametrize("part", ["payload", "signature", "payloadType"])
def test_a_tampered_snapshot_is_not_applied(own: Node, protocol: str, part: str) -> None:
    """The engine is asked, in control's place, to go to a snapshot whose file does not verify."""
    genuine = _active_file(own)
    status = own.status()["snapshot"]
    fake = genuine.with_name("f" * 64 + ".json")
    fake.write_bytes(_changed(genuine.read_bytes(), part))
    with own.engine() as engine:
        asked = {"digest": "sha256:" + "f" * 64, "generation": status["generation"] + 1}
        answer = engine.post("/apply", json=asked)
        assert answer.status_code == 422
        assert answer.json()["error"]
        assert engine.get("/status").json()["digest"] == status["digest"]
    fake.unlink()
    _expect_served(own, protocol)


def test_a_genuine_snapshot_under_another_name_is_not_applied(own: Node, protocol: str) -> None:
    genuine = _active_file(own)
    fake = genuine.with_name("e" * 64 + ".json")
    shutil.copy(genuine, fake)
    with own.engine() as engine:
        answer = engine.post("/apply", json={"digest": "sha256:" + "e" * 64, "generation": 99})
        assert answer.status_code == 422
    fake.unlink()
    _expect_served(own, protocol)


@pytest.mark.parametrize("damage", ["one byte", "cut short", "gone"])
def test_a_snapshot_damaged_on_disk_is_healed_and_never_served(
    own: Node, protocol: str, damage: str
) -> None:
    """The engine starts, refuses the file and closes; control writes it again from its database."""
    file = _active_file(own)
    before = own.status()["snapshot"]["digest"]
    envelope = file.read_bytes()
    match damage:
        case "one byte":
            file.write_bytes(_flip(envelope, len(envelope) // 2))
        case "cut short":
            file.write_bytes(envelope[:-20])
        case _:
            file.unlink()
    os.kill(own.pid("engine"), signal.SIGKILL)
    wait_until("the snapshot is served again", lambda: _is_served(own, before))
    assert json.loads(file.read_bytes())["payload"] == json.loads(envelope)["payload"]
    assert own.status()["engine"]["error"] is None
    _expect_served(own, protocol)


def test_a_component_changed_on_disk_is_not_taken_again(own: Node, guests: Guests) -> None:
    digest = own.status()["functions"][0]["digest"].removeprefix("sha256:")
    blob = own.path("engine", "blobs", "sha256", digest)
    content = blob.read_bytes()
    blob.chmod(0o600)
    blob.write_bytes(_flip(content, 1_000))
    with own.engine() as engine:
        active = own.status()["snapshot"]
        answer = engine.post("/apply", json=active)
        assert answer.status_code in (200, 422)
        assert engine.get("/status").json()["digest"] == active["digest"]
    own.deploy(guests.hello, "hello")
    assert blob.read_bytes() == content, "deploying again must mend the stored component"


def test_what_was_activated_survives_a_restart_of_the_whole_node(
    own: Node, guests: Guests, protocol: str
) -> None:
    own.deploy(guests.hello, "later")
    before = own.status()
    own.run("down")
    own.start()
    after = own.status()
    assert after["snapshot"]["digest"] == before["snapshot"]["digest"]
    assert [each["name"] for each in after["functions"]] == [
        each["name"] for each in before["functions"]
    ]
    _expect_served(own, protocol)


def _is_served(node: Node, digest: str) -> bool:
    done = node.run("status", "--json", check=False)
    if done.returncode != 0:
        return False
    engine = json.loads(done.stdout)["engine"]
    return engine is not None and engine.get("digest") == digest and not engine.get("error")


def _expect_served(node: Node, protocol: str) -> None:
    caller = Caller(node, protocol)
    caller.expect_neighbour_served()
    caller.close()
