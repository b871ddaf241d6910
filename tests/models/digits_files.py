"""Handwritten digits (of scikit-learn, 8 x 8 pixels) and small networks that are trained on them within a second.

Owns: the data and the networks as ONNX. Must not: run one.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

Array = np.ndarray[Any, Any]
KNOWN = 1300
"""Pictures that are learnt from; the others are not."""


@cache
def pictures() -> tuple[Array, Array]:
    """Pixels from 0 to 1 as [n, 64], and which digit each is."""
    data = load_digits()
    return (data.data / 16).astype(np.float32), data.target.astype(np.int64)


def save_samples(file: Path, start: int, end: int, shape: tuple[int, ...], labels: bool) -> Path:
    """Some of them as .npz."""
    pixels, digits = pictures()
    arrays = {"pixels": pixels[start:end].reshape(-1, *shape)}
    if labels:
        arrays["labels"] = digits[start:end]
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file


@cache
def perceptron(hidden: int = 64, opset: int = 17) -> bytes:
    """Two dense layers: `pixels` [n, 64] to `scores` [n, 10]."""
    pixels, digits = pictures()
    learnt = MLPClassifier((hidden,), max_iter=200, tol=1e-3, random_state=1).fit(
        pixels[:KNOWN], digits[:KNOWN]
    )
    constants = {
        "w1": learnt.coefs_[0],
        "b1": learnt.intercepts_[0],
        "w2": learnt.coefs_[1],
        "b2": learnt.intercepts_[1],
    }
    nodes = [
        helper.make_node("Gemm", ["pixels", "w1", "b1"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["scores"], "second"),
    ]
    return _file(nodes, constants, ["n", 64], opset)


def with_an_outlier(size: float = 1e6) -> bytes:
    """The same, with one hidden unit so large that the others vanish beside it in eight bits; it is not used after."""
    model = perceptron()
    from onnx import load_model_from_string

    loaded = load_model_from_string(model)
    found = {each.name: numpy_helper.to_array(each).copy() for each in loaded.graph.initializer}
    found["w1"][:, 0], found["b1"][0], found["w2"][0] = 0, size, 0
    return _file(list(loaded.graph.node), found, ["n", 64], 17)


@cache
def convolutional(opset: int = 17) -> bytes:
    """Convolution, the largest of four, dense: `pixels` [n, 1, 8, 8] to `probabilities` [n, 10]. The filters are
    random, which is enough for digits; the last layer is learnt.
    """
    pixels, digits = pictures()
    rng = np.random.default_rng(3)
    filters = rng.normal(0, 0.5, (24, 1, 3, 3)).astype(np.float32)
    images = np.pad(pixels.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(1, 2))
    seen = np.maximum(np.einsum("nhwij,fij->nfhw", windows, filters[:, 0]), 0)
    pooled = seen.reshape(len(seen), 24, 4, 2, 4, 2).max(axis=(3, 5)).reshape(len(seen), -1)
    learnt = LogisticRegression(max_iter=300).fit(pooled[:KNOWN], digits[:KNOWN])
    constants = {"f": filters, "w": learnt.coef_.T, "b": learnt.intercept_}
    nodes = [
        helper.make_node("Conv", ["pixels", "f"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("MaxPool", ["r"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "w", "b"], ["scores"], "dense"),
        helper.make_node("Softmax", ["scores"], ["probabilities"], "softmax", axis=1),
    ]
    return _file(nodes, constants, ["n", 1, 8, 8], opset, "probabilities")


def _file(
    nodes: list[Any],
    constants: dict[str, Array],
    shape: list[Any],
    opset: int,
    output: str = "scores",
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", 10])],
        [
            numpy_helper.from_array(each.astype(np.float32), name)
            for name, each in constants.items()
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return bytes(made.SerializeToString())
