"""Golden answers in control: asked of a new worker before it serves, recorded, and put back when it does not."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.control.conftest import Running
from tests.control.test_models import add, shown, upload
from tests.simulators import inspection, worker_socket

from vedette.config.served import ServedModel
from vedette.control import golden_check
from vedette.control.golden_check import GoldenAnswers
from vedette.control.models import Models
from vedette.errors import ConfigError, UnavailableError, VedetteError
from vedette.models.golden import parse_golden

X = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
Y = {"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [2, 4, 6]}


@pytest.fixture(autouse=True)
def _inspector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Models.__init__, "__defaults__", (inspection.inspect,))


def golden(running: Running, **case: Any) -> str:
    """Uploads one golden answer, and returns its digest."""
    said = {"request": {"inputs": [X]}, **case}
    return running.activator.blobs.put(json.dumps(said).encode())


def reply(status: int, head: dict[str, Any], tail: bytes = b"") -> bytes:
    text = json.dumps(head).encode()
    fields = [
        f"HTTP/1.1 {status} X",
        f"content-length: {len(text) + len(tail)}",
        f"Inference-Header-Content-Length: {len(text)}",
    ]
    return ("\r\n".join(fields) + "\r\n\r\n").encode() + text + tail


def doubled(factor: float = 2.0) -> bytes:
    output = {"name": "y", "datatype": "FP32", "shape": [1, 3]}
    output["parameters"] = {"binary_data_size": 12}
    return reply(200, {"outputs": [output]}, struct.pack("<3f", factor, 2 * factor, 3 * factor))


@contextmanager
def answering(monkeypatch: pytest.MonkeyPatch, folder: Path, said: bytes) -> Iterator[list[bytes]]:
    """Every worker of a model answers so; gives what they were asked."""
    path, asked = folder / f"{uuid4().hex[:8]}.sock", list[bytes]()

    def answer(line: bytes, _body: bytes) -> bytes:
        asked.append(line)
        return said

    monkeypatch.setattr("vedette.store.home.Home.model_socket", lambda _home, _worker: path)
    with worker_socket.answering(path, answer):
        yield asked


def refused(running: Running, **wish: Any) -> VedetteError:
    before = running.activator.active()[0]
    with pytest.raises(VedetteError) as caught:
        add(running, **wish)
    assert running.activator.active()[0] == before
    return caught.value


def test_a_model_that_answers_as_it_should_serves(
    running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with answering(monkeypatch, tmp_path, doubled()) as asked:
        added = add(running, golden=golden(running, outputs=[Y]))
    assert (added.version, added.golden, len(asked)) == (1, 1, 1)
    assert asked[0] == b"POST /v2/models/m/versions/1/infer HTTP/1.1\r\n"
    assert [each.golden for each in shown(running).versions] == [1]
    kept = running.node.models.store.attached("golden/m")
    assert kept[added.file].blob in running.node.models.needed()


def test_one_that_does_not_changes_nothing_and_leaves_nothing(
    running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with answering(monkeypatch, tmp_path, doubled(3.0)):
        error = refused(running, golden=golden(running, outputs=[Y]))
        assert error.code == "model_golden"
        assert "m version 1, golden answer 1: output 'y' differs in 3 of 3" in error.message
        assert "at [0,2]: 9 instead of 6" in error.message
        assert running.node.models.list() == []
        assert running.node.models.store.attached("golden/m") == {}
        assert add(running).version == 1, "its number is still free"
    assert running.keeper.seen[-1] == {"m@1"}


def test_they_are_asked_again_whenever_a_version_comes_to_serve(
    running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with answering(monkeypatch, tmp_path, doubled()) as asked:
        add(running, golden=golden(running, outputs=[Y]))
        add(running, b"two")
        assert len(asked) == 1
    with answering(monkeypatch, tmp_path, doubled(2.5)):
        with pytest.raises(ConfigError) as caught:
            running.node.models.promote("m", 1, "uid:1")
        assert caught.value.code == "model_golden"
        with pytest.raises(ConfigError, match="golden answer 1"):
            running.activator.roll_back(None, "uid:1")
    assert shown(running).version == 2


def test_they_are_asked_of_the_model_that_they_are_of_and_of_no_other_with_its_file(
    running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = add(running, name="other", promote=False, golden=golden(running, outputs=[Y]))
    assert other.golden == 1
    with answering(monkeypatch, tmp_path, doubled(3.0)) as asked:
        assert add(running).golden == 0
        assert asked == []
        with pytest.raises(ConfigError, match="other version 1, golden answer 1"):
            running.node.models.promote("other", 1, "uid:1")


def test_what_is_not_said_yet_is_recorded_at_the_first_answer(
    running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = add(running, promote=False, golden=golden(running))
    assert kept.golden == 1
    with answering(monkeypatch, tmp_path, doubled()):
        running.node.models.promote("m", 1, "uid:1")
    whole = running.node.models.store.attached("golden/m")[kept.file]
    (case,) = parse_golden(running.activator.blobs.get(whole.blob)).cases
    assert case.outputs is not None
    assert case.outputs[0].data == [2.0, 4.0, 6.0]


@pytest.mark.parametrize(
    ("said", "code", "why"),
    [
        (reply(400, {"error": "x has 3 dimensions"}), "model_golden", "refused with 400: x has 3"),
        (b"HTTP/1.1 500 X\r\ncontent-length: 2\r\n\r\n\xff!", "model_golden", "refused with 500"),
        (reply(200, {"outputs": 7}), "model_golden", "no answer of the protocol"),
        (reply(200, {"outputs": []}), "model_golden", "output 'y' is not answered"),
        (b"", "model_unavailable", "was not answered"),
        (b"HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\n1", "model_unavailable", "was not answered"),
    ],
)
def test_a_worker_that_answers_nonsense_does_not_serve(
    running: Running,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    said: bytes,
    code: str,
    why: str,
) -> None:
    with answering(monkeypatch, tmp_path, said):
        error = refused(running, golden=golden(running, outputs=[Y]))
    assert error.code == code
    assert why in error.message


def test_an_answer_without_end_is_not_read_to_the_end(
    running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(golden_check, "MAX_ANSWER_BYTES", 100)
    with answering(monkeypatch, tmp_path, reply(200, {"outputs": []}, b"\0" * 200)):
        assert "more than 100 bytes" in refused(running, golden=golden(running)).message


def test_a_file_that_is_none_is_refused_and_what_there_was_stays(running: Running) -> None:
    digest = upload(running, b"one")
    bad = running.activator.blobs.put(b"{}")
    assert refused(running, golden=bad).code == "golden_invalid"
    other = {**X, "name": "z"}
    error = refused(running, golden=golden(running, request={"inputs": [other]}))
    assert "no input 'z'; it has x" in error.message
    assert refused(running, golden="sha256:" + "0" * 64).code == "blob_missing"
    add(running, promote=False, golden=golden(running, outputs=[Y]))
    before = running.node.models.store.attached("golden/m")[digest]
    assert refused(running, golden=bad).code == "golden_invalid"
    assert running.node.models.store.attached("golden/m")[digest] == before
    answers = GoldenAnswers(running.home, running.activator.blobs, running.node.models.store)
    inputs = running.node.models.file(digest).inputs
    with (
        pytest.raises(UnavailableError),
        answers.given("m", digest, inputs, golden(running, tolerance={"absolute": 1})),
    ):
        raise UnavailableError("disk_full", "no room")
    assert running.node.models.store.attached("golden/m")[digest] == before


def test_nobody_waits_while_a_model_is_asked(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    free: list[bool] = []
    require = running.node.models.golden.require

    def watched(models: Sequence[ServedModel]) -> None:
        taken = threading.Thread(target=lambda: free.append(_is_free(running)))
        taken.start()
        taken.join()
        require(models)

    monkeypatch.setattr(running.activator, "proved", watched)
    add(running)
    assert free == [True]


def _is_free(running: Running) -> bool:
    is_free = running.activator.lock.acquire(blocking=False)
    if is_free:
        running.activator.lock.release()
    return is_free
