"""Writes a model of dense layers: `dense.py FILE [--rows] [BYTES [SEED]]`; 64 numbers in, 10 out, 13.3 MB of weights.

Owns: a model whose runs take about half a millisecond and whose tensors are small. Must not: mean anything.
"""

from __future__ import annotations

import itertools
import sys

import numpy
from onnx import TensorProto, helper, numpy_helper, save

LAYERS, FIRST, LAST = 8, 64, 10
_USUAL_BYTES = 13_300_000


def main() -> None:
    """Always the same weights for a seed. With `--rows` any number of rows goes in."""
    numbers = [int(each) for each in sys.argv[2:] if each != "--rows"]
    size, seed = [*numbers, *(_USUAL_BYTES, 7)[len(numbers) :]]
    rows = "n" if "--rows" in sys.argv else 1
    widths = (FIRST, *[_width(size // 4)] * (LAYERS + 1), LAST)
    random = numpy.random.default_rng(seed)
    nodes, weights, before = [], [], "x"
    for place, (wide, narrow) in enumerate(itertools.pairwise(widths)):
        values = random.standard_normal((wide, narrow), numpy.float32) / wide**0.5
        weights.append(numpy_helper.from_array(values, f"w{place}"))
        nodes.append(helper.make_node("MatMul", [before, f"w{place}"], [f"m{place}"]))
        nodes.append(helper.make_node("Relu", [f"m{place}"], [f"r{place}"]))
        before = f"r{place}"
    nodes.append(helper.make_node("Softmax", [before], ["y"]))
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, FIRST])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, LAST])],
        weights,
    )
    opset = helper.make_opsetid("", 17)
    save(helper.make_model(graph, opset_imports=[opset], ir_version=8), sys.argv[1])


def _width(weights: int) -> int:
    """Of layers between which there are about so many weights."""
    ends = FIRST + LAST
    return round(((ends**2 + 4 * LAYERS * weights) ** 0.5 - ends) / (2 * LAYERS))


if __name__ == "__main__":
    main()
