"""Samples as numpy reads them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vedette.errors import ConfigError
from vedette.models import sample_export
from vedette.models.quantize_samples import read_samples
from vedette.models.sample_export import Exported, bytes_of, write_npz

Given = tuple[str, str, "np.ndarray[Any, Any] | list[bytes]", list[int]]


def sample(*inputs: Given) -> tuple[str, bytes]:
    heads, content = [], b""
    for name, datatype, value, shape in inputs:
        heads.append({"name": name, "datatype": datatype, "shape": shape})
        if isinstance(value, list):
            content += b"".join(struct.pack("<I", len(each)) + each for each in value)
        else:
            content += value.tobytes()
    return json.dumps({"inputs": heads}), content


def row(number: float, count: int = 1) -> Given:
    return ("x", "FP32", np.full((count, 2), number, np.float32), [count, 2])


def test_samples_of_requests_follow_one_another(tmp_path: Path) -> None:
    given = [sample(row(1)), sample(row(2, 3)), sample(row(4))]
    done = write_npz(lambda: given, tmp_path / "s.npz")
    assert done == Exported(requests=3, samples=5, others=0)
    (array,) = np.load(tmp_path / "s.npz", allow_pickle=False).values()
    assert array.dtype == np.float32
    assert array.tolist() == [[1, 1], [2, 2], [2, 2], [2, 2], [4, 4]]
    found = read_samples([str(tmp_path / "s.npz")], {"x": ("float32", ["n", 2])})
    assert found is not None
    assert found.count == 5


@pytest.mark.parametrize(
    ("datatype", "kind"),
    [
        *(("BOOL", "bool"), ("UINT8", "u1"), ("UINT16", "<u2"), ("UINT32", "<u4")),
        *(("UINT64", "<u8"), ("INT8", "i1"), ("INT16", "<i2"), ("INT32", "<i4")),
        *(("INT64", "<i8"), ("FP16", "<f2"), ("FP32", "<f4"), ("FP64", "<f8")),
    ],
)
def test_every_datatype_is_numpys(tmp_path: Path, datatype: str, kind: str) -> None:
    array = np.array([[1, 0, 1]], kind)
    write_npz(lambda: [sample(("a/b:0", datatype, array, [1, 3]))], tmp_path / "s.npz")
    found = np.load(tmp_path / "s.npz", allow_pickle=False)["a/b:0"]
    assert found.dtype == array.dtype
    assert found.tolist() == array.tolist()


def test_texts_are_as_wide_as_the_longest(tmp_path: Path) -> None:
    given = [
        sample(("t", "BYTES", ["für".encode(), b""], [2])),
        sample(("t", "BYTES", [b"[email] said"], [1])),
    ]
    write_npz(lambda: given, tmp_path / "s.npz")
    found = np.load(tmp_path / "s.npz", allow_pickle=False)["t"]
    assert found.tolist() == ["für", "", "[email] said"]


def test_texts_that_would_fill_the_disk_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_export, "MOST_TEXTS", 79)
    given = [sample(("t", "BYTES", [b"a" * 10, b""], [2]))]
    with pytest.raises(ConfigError, match="up to 10 characters"):
        write_npz(lambda: given, tmp_path / "s.npz")


def test_the_commonest_dimensions_are_exported_and_others_counted(tmp_path: Path) -> None:
    long = sample(("x", "FP32", np.zeros((1, 9), np.float32), [1, 9]))
    uneven = sample(row(1), ("n", "INT64", np.array([1, 2]), [2]))
    single = sample(("x", "FP32", np.float32(1).reshape(()), []))
    done = write_npz(
        lambda: [long, uneven, single, sample(row(1)), sample(row(2))], tmp_path / "s.npz"
    )
    assert done == Exported(requests=2, samples=2, others=3)
    with pytest.raises(ConfigError) as refused:
        write_npz(lambda: [uneven, single], tmp_path / "s.npz")
    assert refused.value.code == "samples_missing"


@pytest.mark.parametrize(
    ("datatype", "shape", "content", "size"),
    [
        ("FP32", [2, 2], b"\0" * 17, 16),
        ("FP32", [2, 2], b"\0" * 15, None),
        ("INT8", [], b"\0", 1),
        ("FP64", [0, 5], b"", 0),
        ("BYTES", [2], b"\1\0\0\0a\0\0\0\0rest", 9),
        ("BYTES", [2], b"\1\0\0\0a\0\0\0", None),
        ("BYTES", [1], b"\xff\xff\xff\xff", None),
        ("BYTES", [1 << 40], b"\0" * 8, None),
    ],
)
def test_a_tensor_ends_where_its_elements_do(
    datatype: str, shape: list[int], content: bytes, size: int | None
) -> None:
    assert bytes_of(datatype, shape, content) == size
