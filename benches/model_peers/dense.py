"""Writes a model of dense layers: `dense.py FILE`; 64 numbers in, 10 out, 13.3 MB of weights.

Owns: a model whose runs take about half a millisecond and whose tensors are small. Must not: mean anything.
"""

from __future__ import annotations

import itertools
import sys

import numpy
from onnx import TensorProto, helper, numpy_helper, save

WIDTHS = (64, *[640] * 9, 10)


def main() -> None:
    """Always the same weights."""
    random = numpy.random.default_rng(7)
    nodes, weights, before = [], [], "x"
    for place, (wide, narrow) in enumerate(itertools.pairwise(WIDTHS)):
        values = random.standard_normal((wide, narrow), numpy.float32) / wide**0.5
        weights.append(numpy_helper.from_array(values, f"w{place}"))
        nodes.append(helper.make_node("MatMul", [before, f"w{place}"], [f"m{place}"]))
        nodes.append(helper.make_node("Relu", [f"m{place}"], [f"r{place}"]))
        before = f"r{place}"
    nodes.append(helper.make_node("Softmax", [before], ["y"]))
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, WIDTHS[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, WIDTHS[-1]])],
        weights,
    )
    opset = helper.make_opsetid("", 17)
    save(helper.make_model(graph, opset_imports=[opset], ir_version=8), sys.argv[1])


if __name__ == "__main__":
    main()
