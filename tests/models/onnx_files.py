"""Small real ONNX files, built with `onnx.helper`: what a model file may hold, and what it may not.

Owns: bytes of files. Must not: run one.
"""

from __future__ import annotations

import numpy as np
from onnx import (
    AttributeProto,
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

OPSET = 17
IR_VERSION = 9

ELEMENTS = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}
"""Datatypes of the Open Inference Protocol, and what ONNX calls them."""

Shape = list[int | str | None]


def tensor(name: str, shape: Shape, datatype: str = "FP32") -> ValueInfoProto:
    """An input or output."""
    return helper.make_tensor_value_info(name, ELEMENTS[datatype], shape)


def file(
    nodes: list[NodeProto],
    inputs: list[ValueInfoProto],
    outputs: list[ValueInfoProto],
    initializers: list[TensorProto] | None = None,
    functions: list[FunctionProto] | None = None,
) -> bytes:
    """A model of these parts."""
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers or [])
    return model(graph, functions).SerializeToString()


def model(graph: GraphProto, functions: list[FunctionProto] | None = None) -> ModelProto:
    """A model of this graph, in the opset that the tests use."""
    domains = {"": OPSET, **{it.domain: 1 for it in functions or []}}
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    return helper.make_model(
        graph, opset_imports=opsets, ir_version=IR_VERSION, functions=functions or []
    )


def add(size: int = 16) -> bytes:
    """`sum = left + right`, each FP32 [1, size]."""
    shape: Shape = [1, size]
    nodes = [helper.make_node("Add", ["left", "right"], ["sum"])]
    return file(nodes, [tensor("left", shape), tensor("right", shape)], [tensor("sum", shape)])


def identity(datatype: str = "FP32", shape: Shape | None = None) -> bytes:
    """`out` is `in`, of any length unless a shape is given."""
    shape = ["n"] if shape is None else shape
    nodes = [helper.make_node("Identity", ["in"], ["out"])]
    return file(nodes, [tensor("in", shape, datatype)], [tensor("out", shape, datatype)])


def passed_through(datatype: str = "FP32") -> bytes:
    """`in` is an output itself, beside twice of it."""
    shape: Shape = ["n"]
    nodes = [helper.make_node("Add", ["in", "in"], ["twice"])]
    outputs = [tensor("in", shape, datatype), tensor("twice", shape, datatype)]
    return file(nodes, [tensor("in", shape, datatype)], outputs)


def mlp(inside: int = 256, layers: int = 3, seed: int = 7) -> bytes:
    """Dense layers with ReLU between them, FP32 [batch, inside] to [batch, inside], any batch."""
    random = np.random.default_rng(seed)
    nodes: list[NodeProto] = []
    weights: list[TensorProto] = []
    before = "x"
    for layer in range(layers):
        matrix = random.standard_normal((inside, inside), np.float32) / np.float32(inside**0.5)
        weights.append(numpy_helper.from_array(matrix, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [before, f"w{layer}"], [f"m{layer}"]))
        after = "y" if layer == layers - 1 else f"r{layer}"
        nodes.append(helper.make_node("Relu", [f"m{layer}"], [after]))
        before = after
    shape: Shape = ["batch", inside]
    return file(nodes, [tensor("x", shape)], [tensor("y", shape)], weights)


def scaled(batch: str = "batch") -> bytes:
    """`y = 2 x`, FP32 [batch, 3]: any batch, always three."""
    two = numpy_helper.from_array(np.array(2, np.float32), "two")
    nodes = [helper.make_node("Mul", ["x", "two"], ["y"])]
    shape: Shape = [batch, 3]
    return file(nodes, [tensor("x", shape)], [tensor("y", shape)], [two])


def divided() -> bytes:
    """`y = a / b`, FP32 of any length: NaN and infinity come easily."""
    shape: Shape = ["n"]
    nodes = [helper.make_node("Div", ["a", "b"], ["y"])]
    return file(nodes, [tensor("a", shape), tensor("b", shape)], [tensor("y", shape)])


def gathered() -> bytes:
    """`y = x[at]`, so an index out of range fails within the run: FP32 [n], INT64 [m]."""
    nodes = [helper.make_node("Gather", ["x", "at"], ["y"])]
    inputs = [tensor("x", ["n"]), tensor("at", ["m"], "INT64")]
    return file(nodes, inputs, [tensor("y", ["m"])])


def faulty() -> bytes:
    """Fails for every four numbers but zeros: FP32 [4], whose places that are not zero are to be three."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("Reshape", ["places", "three"], ["y"]),
    ]
    three = numpy_helper.from_array(np.array([3]), "three")
    return file(nodes, [tensor("x", [4])], [tensor("y", [3], "INT64")], [three])


def sums() -> bytes:
    """Adds two vectors of any length, which have to have the same: FP32 [n], FP32 [m]."""
    nodes = [helper.make_node("Add", ["a", "b"], ["y"])]
    return file(nodes, [tensor("a", ["n"]), tensor("b", ["m"])], [tensor("y", ["k"])])


def scalar() -> bytes:
    """`y = -x`, FP64 without dimensions."""
    nodes = [helper.make_node("Neg", ["x"], ["y"])]
    return file(nodes, [tensor("x", [], "FP64")], [tensor("y", [], "FP64")])


def slow() -> bytes:
    """Multiplies a matrix `times` times (INT64 [1]): takes as long as is asked, and stops between two rounds."""
    return _loop(inside=64)


def stuck() -> bytes:
    """One operator that takes minutes, and looks at nothing meanwhile: `times` (INT64 [1]) is the side of a matrix
    that is multiplied with itself.
    """
    nodes = [
        helper.make_node("Concat", ["times", "times"], ["shape"], axis=0),
        helper.make_node("ConstantOfShape", ["shape"], ["matrix"], value=_value(1.0)),
        helper.make_node("MatMul", ["matrix", "matrix"], ["product"]),
        helper.make_node("ReduceSum", ["product"], ["sum"], keepdims=0),
    ]
    return file(nodes, [tensor("times", [1], "INT64")], [tensor("sum", [])])


def constant_work(side: int = 12_000) -> bytes:
    """Work that the runtime does while it loads: a product of two constants, folded."""
    shape = numpy_helper.from_array(np.array([side, side]), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["matrix"], value=_value(1.0)),
        helper.make_node("MatMul", ["matrix", "matrix"], ["product"]),
        helper.make_node("ReduceSum", ["product"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    return file(nodes, [tensor("x", [4])], [tensor("y", [4])], [shape])


def hungry() -> bytes:
    """Fills `count` elements (INT64 [1]) with ones and sums them: 4 bytes each."""
    nodes = [
        helper.make_node("ConstantOfShape", ["count"], ["ones"], value=_value(1.0)),
        helper.make_node("ReduceSum", ["ones"], ["sum"], keepdims=0),
    ]
    return file(nodes, [tensor("count", [1], "INT64")], [tensor("sum", [])])


def _value(number: float) -> TensorProto:
    return helper.make_tensor("value", TensorProto.FLOAT, [1], [number])


def _loop(inside: int) -> bytes:
    start = numpy_helper.from_array(np.eye(inside, dtype=np.float32), "start")
    go_on = numpy_helper.from_array(np.array(True), "go_on")
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["was", "start"], ["is"]),
            helper.make_node("Identity", ["on"], ["still"]),
        ],
        "body",
        [
            tensor("round", [], "INT64"),
            tensor("on", [], "BOOL"),
            tensor("was", [inside, inside]),
        ],
        [tensor("still", [], "BOOL"), tensor("is", [inside, inside])],
    )
    nodes = [
        helper.make_node("Squeeze", ["times"], ["rounds"]),
        helper.make_node("Loop", ["rounds", "go_on", "start"], ["matrix"], body=body),
        helper.make_node("ReduceSum", ["matrix"], ["sum"], keepdims=0),
    ]
    return file(
        nodes, [tensor("times", [1], "INT64")], [tensor("sum", [])], initializers=[start, go_on]
    )


def external(location: str = "../../../../etc/passwd") -> bytes:
    """A weight whose values are to be read from another file."""
    return file(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [tensor("x", [4])],
        [tensor("y", [4])],
        [_elsewhere("w", location)],
    )


def external_in_a_branch(location: str = "weights.bin") -> bytes:
    """The same, in a tensor of a graph within the graph."""
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=_elsewhere("deep", location))],
        "branch",
        [],
        [tensor("c", [4])],
    )
    condition = numpy_helper.from_array(np.array(True), "condition")
    nodes = [
        helper.make_node("If", ["condition"], ["c4"], then_branch=branch, else_branch=branch),
        helper.make_node("Add", ["x", "c4"], ["y"]),
    ]
    return file(nodes, [tensor("x", [4])], [tensor("y", [4])], [condition])


def _elsewhere(name: str, location: str) -> TensorProto:
    weight = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    return weight


def custom_domain(domain: str = "com.example", operator: str = "Secret") -> bytes:
    """An operator that no runtime brings."""
    nodes = [helper.make_node(operator, ["x"], ["y"], domain=domain)]
    graph = helper.make_graph(nodes, "graph", [tensor("x", [4])], [tensor("y", [4])])
    made = model(graph)
    made.opset_import.append(helper.make_opsetid(domain, 1))
    return made.SerializeToString()


def with_function() -> bytes:
    """A domain of its own, whose one operator the file defines: allowed, since it needs nothing from outside."""
    double = helper.make_function(
        "com.example",
        "Double",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", OPSET)],
    )
    nodes = [helper.make_node("Double", ["x"], ["y"], domain="com.example")]
    return file(nodes, [tensor("x", [4])], [tensor("y", [4])], functions=[double])


def sequence() -> bytes:
    """An input that is no plain tensor."""
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [4]))
    nodes = [helper.make_node("SequenceLength", ["x"], ["y"])]
    inputs = [helper.make_value_info("x", kind)]
    return file(nodes, inputs, [tensor("y", [], "INT64")])


def without_rank() -> bytes:
    """An input that does not say how many dimensions it has."""
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    return file(nodes, [helper.make_value_info("x", kind)], [tensor("y", ["n"])])


def nested(depth: int) -> bytes:
    """Graphs within graphs."""
    inner = helper.make_graph([], "g", [], [tensor("c", [4])])
    for _ in range(depth):
        attribute = AttributeProto(name="g", type=AttributeProto.GRAPH)
        attribute.g.CopyFrom(inner)
        node = NodeProto(op_type="If", attribute=[attribute])
        inner = helper.make_graph([node], "g", [], [tensor("c", [4])])
    return model(inner).SerializeToString()


def pooled() -> bytes:
    """The mean of each channel of a picture: FP32 [1, 3, 224, 224] to [1, 3, 1, 1]: much in, little out."""
    nodes = [helper.make_node("GlobalAveragePool", ["x"], ["y"])]
    return file(nodes, [tensor("x", [1, 3, 224, 224])], [tensor("y", [1, 3, 1, 1])])
