"""What the process of a model hands on of what it is asked: real runs, over its socket."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models import onnx_files
from tests.models.test_media import wired
from tests.models.workers import Answer, Worker, exchange, served, tensor, worker
from tokenizers import Tokenizer, models, pre_tokenizers

TENANT = {"x-vedette-tenant": "a"}
WORDS = {"[UNK]": 0, "[": 1, "]": 2, "email": 3, "ask": 4, "ana": 5}
SAMPLES = {"perMillion": 1_000_000, "inputs": ["in"], "redact": [], "keepMillis": 1, "bytes": 1}
WAIT = 30


def fetched(running: Worker) -> Answer:
    return exchange(running.connect(), "POST", "/samples")


def sample(running: Worker) -> Answer:
    """The next sample, once it has been redacted."""
    ends = time.monotonic() + WAIT
    while (answer := fetched(running)).status == 204 and time.monotonic() < ends:
        time.sleep(0.01)
    assert answer.status == 200, answer.body
    return answer


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Worker]:
    """A worker of a model that makes tokens of texts, and gives them back."""
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "t.json"))
    file = onnx_files.identity("INT64", [1, 8])
    sides = [[tensor(name, [1, 8], "INT64")] for name in ("in", "out")]
    text = {"text": {"tokenizer": "t.json", "tensors": {"ids": "in"}}}
    told = wired(file, *sides, input=text) | {"samples": SAMPLES}
    with worker(tmp_path, file, told, files={"tokenizer": tmp_path / "t.json"}) as running:
        assert running.ready.get("ready"), running.ready
        yield running


def test_tokens_are_made_anew_of_what_is_left_of_a_text(reader: Worker) -> None:
    plain = {"content-type": "text/plain", **TENANT}
    answer = reader.ask("POST", "/infer", b"ask ana@mail.example", plain)
    assert answer.json["outputs"][0]["data"][:3] == [4, 5, 0], "the model was asked with all of it"
    found = sample(reader)
    (given,) = found.json["inputs"]
    assert (given["name"], given["shape"]) == ("in", [1, 8])
    assert np.frombuffer(found.binary, np.int64).tolist() == [4, 1, 3, 2, 0, 0, 0, 0]
    assert fetched(reader).status == 204, "each is given once"


def asked(running: Worker, headers: dict[str, str], data: Any) -> None:
    given = {"name": "in", "datatype": "INT64", "shape": [1, 8], "data": data}
    assert running.infer({"inputs": [given]}, headers=headers).status == 200


def test_tokens_that_came_as_such_are_not_handed_on(reader: Worker) -> None:
    asked(reader, TENANT, [5] * 8)
    plain = {"content-type": "text/plain", **TENANT}
    assert reader.ask("POST", "/infer", b"ask", plain).status == 200
    assert np.frombuffer(sample(reader).binary, np.int64)[0] == 4, "nothing was before it"


def test_what_nobody_asked_is_not_handed_on(tmp_path: Path) -> None:
    file = onnx_files.identity("INT64", [1, 8])
    sides = [[tensor(name, [1, 8], "INT64")] for name in ("in", "out")]
    with worker(tmp_path, file, served(file, *sides, samples=SAMPLES)) as running:
        asked(running, {}, [1] * 8)
        wrong = running.infer({"inputs": []}, headers=TENANT)
        assert wrong.status == 400
        asked(running, TENANT, [2] * 8)
        found = sample(running)
        assert np.frombuffer(found.binary, np.int64).tolist() == [2] * 8
        assert found.headers["x-vedette-left-out"] == "0"
        assert exchange(running.connect(), "GET", "/samples").status == 405
        assert running.ask("POST", "/samples").status == 404, "no caller's path leads there"


def test_a_model_whose_manifest_asks_for_nothing_hands_on_nothing(tmp_path: Path) -> None:
    file = onnx_files.identity("INT64", [1, 8])
    sides = [[tensor(name, [1, 8], "INT64")] for name in ("in", "out")]
    with worker(tmp_path, file, served(file, *sides)) as running:
        asked(running, TENANT, [2] * 8)
        assert fetched(running).status == 404
