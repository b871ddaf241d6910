"""The process that puts a model's weights into its file: `python -P -m vedette.models.embed_process`.

Owns: the tensors of a model of ONNX whose elements lie elsewhere (`TensorProto.external_data`, onnx/onnx.proto), and
what may be put in their place: as many bytes as their shape says, of a file that is listed and has the digest that it
is listed by. Must not: open another file; the box of `boxed_process` would not let it, either.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from vedette.errors import ConfigError
from vedette.models.boxed_process import require, serve

_OUT: Final = "whole.onnx"
_MOST_BYTES: Final = (2 << 30) - 1
"""What protobuf can say the length of, and a node takes in."""
_MOST_DEPTH: Final = 64


def main() -> int:
    """Reads what is wanted, and says what came of it."""
    return serve(_embed, "model_invalid")


def _embed(wanted: dict[str, Any]) -> dict[str, Any]:
    require(("numpy", "onnx"), "embeds the weights of")
    import onnx
    from google.protobuf.message import DecodeError

    files = {name: _Data(name, each) for name, each in wanted["data"].items()}
    model = onnx.ModelProto()
    try:
        model.ParseFromString(Path(wanted["model"]).read_bytes())
    except DecodeError:
        raise ConfigError("model_invalid", "it is no model of ONNX") from None
    found = 0
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            found += _fill(tensor, files)
            if found > _MOST_BYTES:
                raise ConfigError("model_too_large", "with its weights it is 2 GiB or more")
    for name, each in files.items():
        if not each.is_used:
            message = f"nothing of the model lies in {name!r}"
            raise ConfigError("request_invalid", message, "Leave it out of --data.")
    if model.ByteSize() > _MOST_BYTES:
        raise ConfigError("model_too_large", "with its weights it is 2 GiB or more")
    Path(wanted["folder"], _OUT).write_bytes(model.SerializeToString(deterministic=True))
    return {"file": _OUT}


class _Data:
    """A file that is listed. Raises `ConfigError` digest_mismatch."""

    def __init__(self, name: str, listed: dict[str, str]) -> None:
        with Path(listed["path"]).open("rb") as file:
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
            if digest != listed["digest"]:
                message = f"{name!r} is {digest}, not {listed['digest']}"
                hint = "List the digest that its publisher says; if it is that one, get the file again."
                raise ConfigError("digest_mismatch", message, hint)
            size = file.seek(0, 2)
            self.content = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) if size else b""
        self.is_used = False


def _fill(tensor: Any, files: dict[str, _Data]) -> int:
    """Puts the elements in; how many bytes. Raises `ConfigError` model_reaches_outside, model_invalid."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    name = said.get("location", "")
    if name not in files:
        message = f"the tensor {tensor.name!r} lies in {name!r}, which is not listed"
        hint = f"See what it is with `sha256sum`, and list it: --data {name}=sha256:…"
        raise ConfigError("model_reaches_outside", message, hint)
    data = files[name]
    data.is_used = True
    offset = _number(tensor, said.get("offset", "0"))
    length = _number(tensor, said.get("length", str(len(data.content) - offset)))
    wanted = _size(tensor)
    if length != wanted or offset + length > len(data.content):
        message = f"the tensor {tensor.name!r} has {wanted:,} bytes; in {name!r} there are {length:,} at {offset:,}"
        raise ConfigError("model_invalid", message)
    tensor.raw_data = bytes(data.content[offset : offset + length])
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    return length


def _number(tensor: Any, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ConfigError("model_invalid", f"the tensor {tensor.name!r} lies at no place of a file")
    return int(text)


def _size(tensor: Any) -> int:
    """Bytes of its elements. Raises `ConfigError` model_invalid."""
    import onnx

    try:
        bits = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize * 8
    except (KeyError, TypeError, ValueError):
        message = f"the tensor {tensor.name!r} has elements of no known type"
        raise ConfigError("model_invalid", message) from None
    narrow = {onnx.TensorProto.UINT4: 4, onnx.TensorProto.INT4: 4}
    bits = narrow.get(tensor.data_type, bits)
    if tensor.data_type == onnx.TensorProto.STRING or any(side < 0 for side in tensor.dims):
        raise ConfigError("model_invalid", f"the tensor {tensor.name!r} cannot lie in another file")
    return -(-math.prod(int(side) for side in tensor.dims) * int(bits) // 8)


def _tensors(model: Any) -> Iterator[Any]:
    yield from _of_graph(model.graph, 0)
    for function in model.functions:
        for node in function.node:
            yield from _of_attributes(node.attribute, 0)
        yield from _of_attributes(function.attribute_proto, 0)
    for training in model.training_info:
        for graph in (training.initialization, training.algorithm):
            yield from _of_graph(graph, 0)


def _of_graph(graph: Any, depth: int) -> Iterator[Any]:
    if depth > _MOST_DEPTH:
        raise ConfigError("model_invalid", "its graphs lie too deep in each other")
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _of_attributes(node.attribute, depth)


def _of_attributes(attributes: Any, depth: int) -> Iterator[Any]:
    for each in attributes:
        if each.HasField("t"):
            yield each.t
        yield from each.tensors
        if each.HasField("sparse_tensor"):
            yield from (each.sparse_tensor.values, each.sparse_tensor.indices)
        for sparse in each.sparse_tensors:
            yield from (sparse.values, sparse.indices)
        if each.HasField("g"):
            yield from _of_graph(each.g, depth + 1)
        for graph in each.graphs:
            yield from _of_graph(graph, depth + 1)


if __name__ == "__main__":
    sys.exit(main())
