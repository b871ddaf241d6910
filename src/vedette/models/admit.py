"""Admission: what is a model by its content, and what is certainly not.

Owns: finding the file in a folder, the size limit, and the look at the first bytes and the outermost fields that gives
a clear answer before anything is loaded. Must not: read a graph, or believe a file's name; the process in a sandbox
(`inspection`) reads the rest.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from vedette.config.served import ModelFormat
from vedette.errors import ConfigError

MAX_MODEL_BYTES: Final = (2 << 30) - 1
"""Of one file: a message of protobuf is smaller than 2 GiB, and so is an ONNX model without data beside it."""
SUFFIXES: Final[dict[str, ModelFormat]] = {
    ".onnx": "onnx",
    ".tflite": "tflite",
    ".json": "detector",
}
_IN_FOLDERS: Final = (".onnx", ".tflite")
MAX_DETECTOR_BYTES: Final = 65_536
"""As crates/models/src/streams/spec.rs has it."""
_FOLDERS_MODEL: Final = "model.onnx"
_MOST_IN_FOLDER: Final = 10_000
_PART: Final = 1 << 20
_HEAD: Final = 64
# FlatBuffers file identifier of TensorFlow Lite's schema.fbs, after the offset of the root table.
_TFLITE: Final = (4, b"TFL3")
# onnx.proto, ModelProto: graph = 7. Its other fields may come in any order, as often as they like.
_GRAPH: Final = 7
_MOST_FIELDS: Final = 200_000
_FROM_TORCH: Final = (
    "Export the model as ONNX: torch.onnx.export(model, inputs, FILE, external_data=False)"
)
# First bytes, what that is, and what to do instead.
_OTHERS: Final = (
    (b"version https://git-lfs", "a pointer of Git LFS", "Run: git lfs pull"),
    (b"PK\x03\x04", "an archive, as PyTorch and Keras save it", _FROM_TORCH),
    (b"\x80\x02", "a Python pickle, which runs code when it is loaded", _FROM_TORCH),
    (b"\x80\x04", "a Python pickle, which runs code when it is loaded", _FROM_TORCH),
    (
        b"\x89HDF",
        "HDF5, as Keras saves it",
        "Export the model as ONNX: model.export(FILE, format='onnx')",
    ),
    (b"GGUF", "GGUF, which is for language models of llama.cpp", "The node runs ONNX."),
    (b"\x7fELF", "a machine-code binary", "Give a file of ONNX."),
    (b"\x1f\x8b", "compressed with gzip", "Unpack it: gunzip FILE"),
    (
        b"<",
        "a page of HTML or XML",
        "Download it again, and look at the address: it may want a login.",
    ),
    (b"{", "JSON that names no detector", "Give a file of ONNX, or a detector (docs/models.md)."),
)
_AGAIN: Final = "Copy or download it again, and compare its size with that of the original."


@dataclass(frozen=True, slots=True)
class Admitted:
    """A file that may be a model: what its content says it is, its digest and its size in bytes."""

    path: Path
    format: ModelFormat
    digest: str
    size: int


def find_model(path: Path) -> Path:
    """The file that is meant: `path` itself, or in a folder `model.onnx`, else the only .onnx or .tflite file.

    Raises `ConfigError` model_missing.
    """
    if not path.is_dir():
        return path
    if (path / _FOLDERS_MODEL).is_file():
        return path / _FOLDERS_MODEL
    found = []
    for count, each in enumerate(path.iterdir()):
        if count >= _MOST_IN_FOLDER:
            message = f"{path} holds more than {_MOST_IN_FOLDER:,} files"
            raise ConfigError("model_missing", message, "Name the model's file itself.")
        if each.suffix.lower() in _IN_FOLDERS and each.is_file():
            found.append(each)
    if len(found) == 1:
        return found[0]
    if not found:
        message = f"{path} holds no .onnx or .tflite file"
        raise ConfigError("model_missing", message, "Folders within it are not searched.")
    names = sorted(each.name for each in found)
    message = f"{path} holds {len(found)} models ({', '.join(names[:5])}) and none called {_FOLDERS_MODEL}"
    raise ConfigError("model_missing", message, f"Name the one you mean, such as {path / names[0]}")


def read_model(path: Path) -> Admitted:
    """Says whether the file can be a model, and its digest. Nothing of it is kept in memory.

    Raises `ConfigError` model_missing, model_too_large, model_invalid, model_format when its name says another format
    than its content.
    """
    try:
        with open(path, "rb", opener=_open) as file:
            size = _require_size(file, path)
            format_ = format_of(file, size, str(path))
            file.seek(0)
            digest, size = _digest(file, path)
    except OSError as error:
        hint = None if isinstance(error, FileNotFoundError) else "Check who may read it: ls -l"
        raise ConfigError("model_missing", f"cannot read {path}: {error.strerror}", hint) from None
    said = SUFFIXES.get(path.suffix.lower())
    if said is not None and said != format_:
        message = f"{path} is {_SHOWN[format_]} by its content, whatever its name says"
        (suffix,) = (each for each, of in SUFFIXES.items() if of == format_)
        hint = f"If that is what you mean, call it {path.with_suffix(suffix).name}."
        raise ConfigError("model_format", message, hint)
    return Admitted(path, format_, digest, size)


_SHOWN: Final[dict[ModelFormat, str]] = {
    "onnx": "ONNX",
    "tflite": "TensorFlow Lite",
    "detector": "a detector",
}


def format_of(file: BinaryIO, size: int, name: str = "the file") -> ModelFormat:
    """What `size` bytes are by their content. `name` is how errors call them.

    Raises `ConfigError` model_invalid, with what it is instead where that is known, or where it ends too early.
    """
    file.seek(0)
    head = file.read(_HEAD)
    at, mark = _TFLITE
    if head[at : at + len(mark)] == mark:
        return "tflite"
    file.seek(0)
    if _is_detector(file, size):
        return "detector"
    file.seek(0)
    problem = _problem_of_onnx(file, size)
    if problem is None:
        return "onnx"
    for start, what, instead in _OTHERS:
        if head.startswith(start):
            raise ConfigError("model_invalid", f"{name} is no model but {what}", instead)
    is_cut = size == 0 or problem.startswith("it ends")
    raise ConfigError("model_invalid", f"{name} is not ONNX: {problem}", _AGAIN if is_cut else None)


def _is_detector(file: BinaryIO, size: int) -> bool:
    """Whether it is a JSON object that says which detector it is. What else it says is read by its process."""
    if size > MAX_DETECTOR_BYTES or not file.read(_HEAD).lstrip().startswith(b"{"):
        return False
    file.seek(0)
    try:
        said = json.loads(file.read(MAX_DETECTOR_BYTES + 1))
    except (ValueError, RecursionError):
        return False
    return "detector" in said


def _problem_of_onnx(file: BinaryIO, size: int) -> str | None:
    """What keeps the bytes from being a ModelProto (onnx.proto) by its outermost fields; None: nothing.

    The wire format is protobuf's: a tag is a varint of field number and wire type, lengths are skipped unread.
    """
    if size == 0:
        return "it is empty"
    has_graph = False
    for _ in range(_MOST_FIELDS):
        tag = _varint(file)
        if tag is None:
            return None if has_graph else "it has no graph"
        number, wire = tag >> 3, tag & 7
        if wire == 2:
            length = _varint(file)
            if length is None or file.tell() + length > size:
                return "it ends in the middle of a field"
            file.seek(length, io.SEEK_CUR)
            has_graph = has_graph or number == _GRAPH
        elif wire == 0:
            if _varint(file) is None:
                return "it ends in the middle of a number"
        elif wire in (1, 5):
            file.seek(8 if wire == 1 else 4, io.SEEK_CUR)
        else:
            return "it is no message of protobuf"
        if number == 0 or file.tell() > size:
            return "it is no message of protobuf"
    return f"it has more than {_MOST_FIELDS:,} outermost fields"


def _varint(file: BinaryIO) -> int | None:
    """The next number; None at the end, and for one of more than 64 bits."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None


def _open(path: str, flags: int) -> int:
    """Opens without waiting: a pipe that nobody writes into would be waited for."""
    return os.open(path, flags | os.O_NONBLOCK)


def _require_size(file: BinaryIO, path: Path) -> int:
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        hint = "Write what comes out of a pipe or device into a file first."
        raise ConfigError("model_missing", f"{path} is no plain file", hint)
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if size > MAX_MODEL_BYTES:
        message = f"{path} has {size:,} bytes; {MAX_MODEL_BYTES:,} are allowed"
        raise ConfigError("model_too_large", message)
    return size


def _digest(file: BinaryIO, path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while chunk := file.read(_PART):
        digest.update(chunk)
        size += len(chunk)
        if size > MAX_MODEL_BYTES:
            raise ConfigError("model_too_large", f"{path} grew while it was read")
    return f"sha256:{digest.hexdigest()}", size
