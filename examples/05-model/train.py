"""Trains digits.onnx: `python train.py` with scikit-learn and onnx installed; a second on any machine.

The data are the 1,797 handwritten digits of 8 x 8 pixels that scikit-learn ships (UCI Optical Recognition of
Handwritten Digits). A logistic regression, written as an ONNX graph by hand: a model need not come from a framework.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy
from onnx import TensorProto, checker, helper, numpy_helper, save
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

HERE = Path(__file__).parent


def main() -> None:
    """Writes digits.onnx and seven.json, and says how often the model is right about digits that it has not seen."""
    data = load_digits()
    known, others, known_labels, other_labels = train_test_split(
        data.data, data.target, test_size=0.25, random_state=7
    )
    learnt = LogisticRegression(max_iter=2000, C=0.1).fit(known, known_labels)
    weights = learnt.coef_.T.astype(numpy.float32)
    bias = learnt.intercept_.astype(numpy.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["pixels", "weights", "bias"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["scores"], ["digit"], axis=1, keepdims=0),
        ],
        "digits",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["pictures", 64])],
        [
            helper.make_tensor_value_info("digit", TensorProto.INT64, ["pictures"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["pictures", 10]),
        ],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    save(model, str(HERE / "digits.onnx"))
    seven = next(row for row, label in zip(others, other_labels, strict=True) if label == 7)
    lines = ",\n".join(
        json.dumps([int(each) for each in line])[1:-1] for line in seven.reshape(8, 8)
    )
    (HERE / "seven.json").write_text(f"[[\n{lines}\n]]\n")
    print(
        f"right about {learnt.score(others, other_labels):.1%} of {len(others)} digits not seen before"
    )


if __name__ == "__main__":
    main()
