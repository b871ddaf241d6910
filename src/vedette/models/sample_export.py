"""Samples as an `.npz`: an array for each input, whose first dimension counts samples, as `vedette model quantize`
takes them.

Owns: which samples fit into one array, and the form of the file (NEP 1, in a ZIP). Must not: need numpy; or hold more
than one sample in memory, but for texts.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Final

from vedette.errors import ConfigError

# numpy's `descr` of little-endian elements, and their bytes, by datatype of the protocol.
_ELEMENTS: Final = {
    "BOOL": ("|b1", 1),
    "UINT8": ("|u1", 1),
    "UINT16": ("<u2", 2),
    "UINT32": ("<u4", 4),
    "UINT64": ("<u8", 8),
    "INT8": ("|i1", 1),
    "INT16": ("<i2", 2),
    "INT32": ("<i4", 4),
    "INT64": ("<i8", 8),
    "FP16": ("<f2", 2),
    "FP32": ("<f4", 4),
    "FP64": ("<f8", 8),
}
MOST_TEXTS: Final = 1 << 30
"""Bytes of an array of texts, in which each takes as much as the longest."""
_CHUNK: Final = 1 << 20
_ALIGNED: Final = 64

Sample = tuple[str, bytes]
"""Inputs as JSON of the Open Inference Protocol without elements, and those."""
_Form = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Name, datatype and dimensions but for the first, of each input."""


@dataclass(frozen=True, slots=True)
class Exported:
    """`requests`: those that are in the file, with `samples` together; `others`: those that did not fit beside them."""

    requests: int
    samples: int
    others: int


def bytes_of(datatype: str, shape: Sequence[int], content: bytes) -> int | None:
    """How many bytes of `content` a tensor takes from its start; None: it is not all there."""
    count = math.prod(shape)
    if datatype != "BYTES":
        size = _ELEMENTS[datatype][1] * count
        return size if size <= len(content) else None
    at = 0
    for _ in range(count):
        if at + 4 > len(content):
            return None
        (length,) = struct.unpack_from("<I", content, at)
        at += 4 + length
        if at > len(content):
            return None
    return at


def write_npz(read: Callable[[], Iterable[Sample]], file: Path) -> Exported:
    """Writes the samples of the commonest form, as which those count whose inputs have the same dimensions but for the
    first. Raises `ConfigError` samples_missing, samples_invalid.
    """
    forms = Counter(_form(_inputs(head)) for head, _ in read())
    total = sum(forms.values())
    forms.pop(None, None)
    if not forms:
        raise ConfigError("samples_missing", "there is no sample that an array could hold")
    form = forms.most_common(1)[0][0]
    assert form is not None
    with ExitStack() as stack:
        parts = [stack.enter_context(TemporaryFile(dir=file.parent)) for _ in form]
        requests = samples = 0
        for head, content in read():
            inputs = _inputs(head)
            if _form(inputs) != form:
                continue
            requests, samples = requests + 1, samples + int(inputs[0]["shape"][0])
            for each, part in zip(inputs, parts, strict=True):
                size = bytes_of(each["datatype"], each["shape"], content) or 0
                part.write(content[:size])
                content = content[size:]
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for (name, datatype, rest), part in zip(form, parts, strict=True):
                part.seek(0)
                entry = zipfile.ZipInfo(f"{name}.npy")
                with archive.open(entry, "w", force_zip64=True) as out:
                    _write_array(out, part, datatype, (samples, *rest))
    return Exported(requests, samples, max(total - requests, 0))


def _inputs(head: str) -> list[dict[str, Any]]:
    inputs: list[dict[str, Any]] = json.loads(head)["inputs"]
    return inputs


def _form(inputs: Sequence[dict[str, Any]]) -> _Form | None:
    """None: an input does not count samples, or another number than the others."""
    if not all(each["shape"] for each in inputs):
        return None
    if len({each["shape"][0] for each in inputs}) != 1:
        return None
    return tuple((each["name"], each["datatype"], tuple(each["shape"][1:])) for each in inputs)


def _write_array(out: IO[bytes], part: IO[bytes], datatype: str, shape: tuple[int, ...]) -> None:
    if datatype == "BYTES":
        texts = [each.decode(errors="replace") for each in _texts(part.read())]
        width = max((len(each) for each in texts), default=0) or 1
        if 4 * width * len(texts) > MOST_TEXTS:
            message = f"texts of up to {width:,} characters take more than {MOST_TEXTS:,} bytes as an array"
            raise ConfigError("samples_invalid", message)
        out.write(_header(f"<U{width}", shape))
        for each in texts:
            out.write(each.ljust(width, "\0").encode("utf-32-le"))
        return
    out.write(_header(_ELEMENTS[datatype][0], shape))
    while chunk := part.read(_CHUNK):
        out.write(chunk)


def _texts(elements: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(elements):
        (length,) = struct.unpack_from("<I", elements, at)
        yield elements[at + 4 : at + 4 + length]
        at += 4 + length


def _header(descr: str, shape: tuple[int, ...]) -> bytes:
    """NEP 1, version 1.0."""
    said = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape!r}, }}"
    length = 10 + len(said) + 1
    text = said + " " * (-length % _ALIGNED) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode("latin-1")
