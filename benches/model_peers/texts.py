"""Writes MiniLM as it is, and with a head that tells kinds apart: `texts.py BUILDER FOLDER`.

Owns: the head, whose weights are random, always the same. Must not: build MiniLM itself.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy
from onnx import ModelProto, TensorProto, helper, numpy_helper

KINDS = 5


def main() -> None:
    """minilm.onnx, tokenizer.json and kinds.onnx into the folder."""
    spec = importlib.util.spec_from_file_location("builder", sys.argv[1])
    assert spec is not None
    assert spec.loader is not None
    builder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builder)
    folder = Path(sys.argv[2])
    builder.main(folder)
    model = builder.model()
    _tell_kinds(model, builder.WIDTH)
    (folder / "kinds.onnx").write_bytes(model.SerializeToString())


def _tell_kinds(model: ModelProto, width: int) -> None:
    """`kind` FP32 [batch, KINDS]: the first token's vector through a dense layer, as in BERT's own heads."""
    random = numpy.random.default_rng(7)
    weights = random.standard_normal((width, KINDS), numpy.float32) / width**0.5
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(weights, "head"),
            numpy_helper.from_array(numpy.array(0, numpy.int64), "first"),
        ]
    )
    model.graph.node.extend(
        [
            helper.make_node("Gather", ["last_hidden_state", "first"], ["sentence"], axis=1),
            helper.make_node("MatMul", ["sentence", "head"], ["kind"]),
        ]
    )
    del model.graph.output[:]
    kind = helper.make_tensor_value_info("kind", TensorProto.FLOAT, ["batch", KINDS])
    model.graph.output.append(kind)


if __name__ == "__main__":
    main()
