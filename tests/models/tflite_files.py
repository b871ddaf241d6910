"""Small real files of TensorFlow Lite, built with its own schema: what a model file may hold, and what it may not.

Owns: bytes of files. Must not: run one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

KINDS = {
    "FP32": (schema.TensorType.FLOAT32, np.float32),
    "FP16": (schema.TensorType.FLOAT16, np.float16),
    "FP64": (schema.TensorType.FLOAT64, np.float64),
    "INT8": (schema.TensorType.INT8, np.int8),
    "INT16": (schema.TensorType.INT16, np.int16),
    "INT32": (schema.TensorType.INT32, np.int32),
    "INT64": (schema.TensorType.INT64, np.int64),
    "UINT8": (schema.TensorType.UINT8, np.uint8),
    "UINT16": (schema.TensorType.UINT16, np.uint16),
    "UINT32": (schema.TensorType.UINT32, np.uint32),
    "UINT64": (schema.TensorType.UINT64, np.uint64),
    "BOOL": (schema.TensorType.BOOL, np.bool_),
    "BYTES": (schema.TensorType.STRING, np.uint8),
}
"""Datatypes of the Open Inference Protocol, and what TensorFlow Lite calls them."""
OPERATORS = schema.BuiltinOperator


@dataclass
class Graph:
    """A graph that is built tensor by tensor."""

    model: Any = field(default_factory=schema.ModelT)
    graph: Any = field(default_factory=schema.SubGraphT)

    def __post_init__(self) -> None:
        self.model.version = 3
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes = []
        self.model.subgraphs = [self.graph]
        self.graph.tensors, self.graph.operators = [], []

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        datatype: str = "FP32",
        values: np.ndarray[Any, Any] | None = None,
    ) -> int:
        """A tensor; -1 in its shape: any. With `values` it is a constant."""
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.hasRank = name, KINDS[datatype][0], True
        tensor.shape = [max(size, 1) for size in shape]
        tensor.shapeSignature = list(shape) if -1 in shape else None
        tensor.buffer = 0
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(values.astype(KINDS[datatype][1]).tobytes(), dtype=np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def operator(
        self,
        code: int,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: tuple[int, Any] | None = None,
        custom: str | None = None,
    ) -> Any:
        """An operator; `options` are their kind and themselves."""
        kind = schema.OperatorCodeT()
        kind.builtinCode, kind.deprecatedBuiltinCode = code, min(code, 127)
        kind.version, kind.customCode = 1, custom
        self.model.operatorCodes.append(kind)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if options:
            operator.builtinOptionsType, operator.builtinOptions = options
        self.graph.operators.append(operator)
        return operator

    def signed(self, inputs: dict[str, int], outputs: dict[str, int]) -> None:
        """Gives the model a signature, and its graph these inputs and outputs."""
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        signature.inputs = [_named(name, index) for name, index in inputs.items()]
        signature.outputs = [_named(name, index) for name, index in outputs.items()]
        self.model.signatureDefs = [signature]
        self.graph.inputs, self.graph.outputs = list(inputs.values()), list(outputs.values())

    def unsigned(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Gives the graph these inputs and outputs, and the model no signature."""
        self.graph.inputs, self.graph.outputs = list(inputs), list(outputs)

    def file(self) -> bytes:
        """The model as bytes."""
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def _named(name: str, index: int) -> Any:
    named = schema.TensorMapT()
    named.name, named.tensorIndex = name, index
    return named


def _add(graph: Graph, left: int, right: int, result: int) -> Any:
    options = (schema.BuiltinOptions.AddOptions, schema.AddOptionsT())
    return graph.operator(OPERATORS.ADD, [left, right], [result], options)


def adding() -> Graph:
    """y = x + [1, 2, 3, 4], with a signature whose names are not the tensors'."""
    graph = Graph()
    x = graph.tensor("x:0", [1, 4])
    weights = graph.tensor("w", [1, 4], values=np.array([1, 2, 3, 4]))
    y = graph.tensor("y:0", [1, 4])
    _add(graph, x, weights, y)
    graph.signed({"x": x}, {"y": y})
    return graph


def sums(batch: int = -1) -> bytes:
    """total = x + y, without a signature, for any number of rows."""
    graph = Graph()
    x, y = graph.tensor("x", [batch, 4]), graph.tensor("y", [batch, 4])
    total = graph.tensor("total", [batch, 4])
    _add(graph, x, y, total)
    graph.unsigned([x, y], [total])
    return graph.file()


def identity(datatype: str) -> bytes:
    """out = in, of any datatype, four elements."""
    graph = Graph()
    given = graph.tensor("in", [4], datatype)
    shape = graph.tensor("shape", [1], "INT32", np.array([4]))
    out = graph.tensor("out", [4], datatype)
    graph.operator(OPERATORS.RESHAPE, [given, shape], [out])
    graph.unsigned([given], [out])
    return graph.file()


def identity_of(size: int) -> bytes:
    """out = in, so many bytes of each."""
    graph = Graph()
    given, zero = (
        graph.tensor("in", [size], "INT8"),
        graph.tensor("axis", [1], "INT32", np.zeros(1)),
    )
    out = graph.tensor("out", [1, size], "INT8")
    graph.operator(OPERATORS.EXPAND_DIMS, [given, zero], [out])
    graph.unsigned([given], [out])
    return graph.file()


def passing() -> bytes:
    """An output that is an input."""
    graph = adding()
    graph.signed({"x": 0}, {"y": 2, "same": 0})
    return graph.file()


def misnamed() -> bytes:
    """A signature that names a tensor which does not go in."""
    graph = adding()
    graph.model.signatureDefs[0].inputs[0].tensorIndex = 1
    return graph.file()


def broken() -> bytes:
    """A graph that adds what cannot be added."""
    graph = Graph()
    x, weights = graph.tensor("x", [3]), graph.tensor("w", [4], values=np.ones(4))
    y = graph.tensor("y", [4])
    _add(graph, x, weights, y)
    graph.unsigned([x], [y])
    return graph.file()


def squares() -> bytes:
    """Rows of four as squares of two by two, their number as it came: SHAPE, STRIDED_SLICE, PACK, RESHAPE, as
    converters of Keras write it.
    """
    graph = Graph()
    x = graph.tensor("x", [-1, 4])
    one = graph.tensor("one", [1, 4], values=np.ones(4))
    more = graph.tensor("more", [-1, 4])
    _add(graph, x, one, more)
    shape = graph.tensor("shape", [2], "INT32")
    graph.operator(
        OPERATORS.SHAPE, [more], [shape], (schema.BuiltinOptions.ShapeOptions, _int32_shape())
    )
    bounds = [graph.tensor(f"b{at}", [1], "INT32", np.array([at % 2])) for at in (0, 1, 3)]
    rows = graph.tensor("rows", [], "INT32")
    slicing = schema.StridedSliceOptionsT()
    slicing.shrinkAxisMask = 1
    graph.operator(
        OPERATORS.STRIDED_SLICE,
        [shape, *bounds],
        [rows],
        (schema.BuiltinOptions.StridedSliceOptions, slicing),
    )
    two = graph.tensor("two", [], "INT32", np.array(2))
    wanted = graph.tensor("wanted", [3], "INT32")
    packing = schema.PackOptionsT()
    packing.valuesCount = 3
    graph.operator(
        OPERATORS.PACK, [rows, two, two], [wanted], (schema.BuiltinOptions.PackOptions, packing)
    )
    y = graph.tensor("y", [-1, 2, 2])
    graph.operator(OPERATORS.RESHAPE, [more, wanted], [y])
    graph.signed({"x": x}, {"y": y})
    return graph.file()


def _int32_shape() -> Any:
    options = schema.ShapeOptionsT()
    options.outType = schema.TensorType.INT32
    return options


def as_told() -> bytes:
    """y is x in the shape that the second input says: nobody knows it before the run."""
    graph = Graph()
    x = graph.tensor("x", [4])
    shape = graph.tensor("shape", [2], "INT32")
    y = graph.tensor("y", [-1, -1])
    graph.operator(OPERATORS.RESHAPE, [x, shape], [y])
    graph.signed({"x": x, "shape": shape}, {"y": y})
    return graph.file()


def as_told_and_more(told: Sequence[int] = (1, 1)) -> bytes:
    """y is one more than that: what is unknown lies within the graph. The file says `told` of a shape that is any."""
    graph = Graph()
    x = graph.tensor("x", [4])
    shape = graph.tensor("shape", [2], "INT32")
    z, y = graph.tensor("z", [-1, -1]), graph.tensor("y", [-1, -1])
    one = graph.tensor("one", [1], values=np.ones(1))
    graph.graph.tensors[z].shape = graph.graph.tensors[y].shape = list(told)
    graph.operator(OPERATORS.RESHAPE, [x, shape], [z])
    _add(graph, z, one, y)
    graph.signed({"x": x, "shape": shape}, {"y": y})
    return graph.file()


def custom(name: str) -> bytes:
    """An operator of somebody else's code."""
    graph = Graph()
    x, y = graph.tensor("x", [4]), graph.tensor("y", [4])
    graph.operator(OPERATORS.CUSTOM, [x], [y], custom=name)
    graph.unsigned([x], [y])
    return graph.file()


def with_weights_in(group: str) -> bytes:
    """Weights in another file."""
    graph = adding()
    outside = schema.ExternalBufferGroupT()
    outside.name = group
    graph.model.externalBufferGroups = [outside]
    buffer = schema.ExternalBufferT()
    buffer.id, buffer.group, buffer.offset, buffer.length = 1, 0, 0, 16
    graph.model.externalBuffers = [buffer]
    graph.graph.tensors[1].externalBuffer = 1
    return graph.file()


def with_external_tensor() -> bytes:
    """A tensor that says it lies outside, in a model that names no files."""
    graph = adding()
    graph.graph.tensors[1].externalBuffer = 1
    return graph.file()


def with_buffer_at(offset: int, size: int) -> bytes:
    """Weights at a place in the file, as those beyond 2 GiB are."""
    graph = adding()
    buffer = graph.model.buffers[1]
    buffer.data, buffer.offset, buffer.size = None, offset, size
    return graph.file()


def endless() -> bytes:
    """A loop whose condition is always true."""
    graph = Graph()
    x, y = graph.tensor("x", [4]), graph.tensor("y", [4])
    options = schema.WhileOptionsT()
    options.condSubgraphIndex, options.bodySubgraphIndex = 1, 2
    graph.operator(OPERATORS.WHILE, [x], [y], (schema.BuiltinOptions.WhileOptions, options))
    graph.unsigned([x], [y])
    condition, body = _branch(graph), _branch(graph)
    given, least = (
        condition.tensor("x", [4]),
        condition.tensor("least", [4], values=np.full(4, -1e30)),
    )
    greater, axis = (
        condition.tensor("g", [4], "BOOL"),
        condition.tensor("a", [1], "INT32", np.zeros(1)),
    )
    goes_on = condition.tensor("goes_on", [], "BOOL")
    condition.operator(OPERATORS.GREATER, [given, least], [greater])
    condition.operator(
        OPERATORS.REDUCE_ANY,
        [greater, axis],
        [goes_on],
        (schema.BuiltinOptions.ReducerOptions, schema.ReducerOptionsT()),
    )
    condition.unsigned([given], [goes_on])
    given, nothing = body.tensor("x", [4]), body.tensor("nothing", [4], values=np.zeros(4))
    same = body.tensor("same", [4])
    _add(body, given, nothing, same)
    body.unsigned([given], [same])
    return graph.file()


def _branch(outer: Graph) -> Graph:
    """A further graph of the same model."""
    branch = Graph()
    branch.model = outer.model
    outer.model.subgraphs.append(branch.graph)
    return branch


def heavy(operators: int) -> bytes:
    """So many products of matrices, all of which are one operator to the runtime: 2 GFLOP each."""
    graph = Graph()
    size = 1024
    x = last = graph.tensor("x", [1, size, size])
    for at in range(operators):
        following = graph.tensor(f"y{at}", [1, size, size])
        options = (schema.BuiltinOptions.BatchMatMulOptions, schema.BatchMatMulOptionsT())
        graph.operator(OPERATORS.BATCH_MATMUL, [last, x], [following], options)
        last = following
    graph.unsigned([x], [last])
    return graph.file()
