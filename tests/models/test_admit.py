"""What passes for a model by its content, and what certainly is none."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from tests.simulators.inspection import onnx_like, varint

from vedette.errors import ConfigError
from vedette.ids import digest_of
from vedette.models import admit
from vedette.models.admit import find_model, format_of, read_model

TFLITE = b"\x1c\0\0\0TFL3" + b"\0" * 32


def refused(data: bytes) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        format_of(io.BytesIO(data), len(data), "m")
    return caught.value


def test_a_model_is_known_by_its_content_and_named_by_its_digest(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(onnx_like())
    found = read_model(file)
    assert (found.format, found.digest) == ("onnx", digest_of(onnx_like()))
    assert (found.path, found.size) == (file, len(onnx_like()))
    assert format_of(io.BytesIO(TFLITE), len(TFLITE)) == "tflite"


def test_fields_may_come_in_any_order_and_be_of_any_type() -> None:
    others = b"\x12\x03abc" + b"\x29" + b"12345678" + b"\x2d" + b"1234" + b"\x42\x00"
    data = onnx_like(ahead=others)
    assert format_of(io.BytesIO(data), len(data)) == "onnx"
    assert format_of(io.BytesIO(data + others), len(data + others)) == "onnx"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is empty"),
        (onnx_like(b"x" * 300)[:-1], "ends in the middle of a field"),
        (onnx_like()[:4], "ends in the middle of a field"),
        (b"\x3a" + varint(2**63) + b"x", "ends in the middle of a field"),
        (b"\x3a" + b"\xff" * 11, "ends in the middle of a field"),
        (b"\x08", "ends in the middle of a number"),
        (b"\x08\x0a", "it has no graph"),
        (b"\x0b\x00", "no message of protobuf"),
        (b"\x02\x00" + onnx_like(), "no message of protobuf"),
        (onnx_like() + b"\x2d12", "no message of protobuf"),
        (b"\x80\x02]q\x00.", "a Python pickle, which runs code"),
        (b"PK\x03\x04" + b"\0" * 40, "an archive"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"GGUF\x03\0\0\0", "GGUF"),
        (b"\x7fELF\x02\x01\x01", "machine-code"),
        (b"<!doctype html>", "a page of HTML"),
    ],
)
def test_what_is_no_model_is_told_for_what_it_is(data: bytes, why: str) -> None:
    error = refused(data)
    assert error.code == "model_invalid"
    assert why in error.message


@pytest.mark.parametrize(
    ("data", "mend"),
    [
        (onnx_like(b"x" * 300)[:-1], "Copy or download it again"),
        (b"", "Copy or download it again"),
        (b"\x80\x02]q\x00.", "torch.onnx.export"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x1f\x8b\x08", "gunzip"),
        (b"<!doctype html>", "Download it again"),
    ],
)
def test_the_mend_is_for_what_the_file_is(data: bytes, mend: str) -> None:
    assert mend in refused(data).hint


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link to a pipe"])
def test_what_is_no_plain_file_is_refused_and_not_waited_for(tmp_path: Path, kind: str) -> None:
    pipe = tmp_path / "m.onnx"
    os.mkfifo(pipe)
    link = tmp_path / "link.onnx"
    link.symlink_to(pipe)
    places = {"pipe": pipe, "device": Path("/dev/zero"), "folder": tmp_path, "link to a pipe": link}
    with pytest.raises(ConfigError) as caught:
        read_model(places[kind])
    assert caught.value.code == "model_missing"
    if kind != "folder":  # which cannot be opened as a file at all
        assert "is no plain file" in caught.value.message


def test_so_many_fields_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admit, "_MOST_FIELDS", 5)
    assert "more than 5 outermost fields" in refused(b"\x08\x01" * 5 + onnx_like()).message


@pytest.mark.parametrize(("name", "data"), [("m.onnx", TFLITE), ("m.tflite", onnx_like())])
def test_a_name_that_says_another_format_is_told(tmp_path: Path, name: str, data: bytes) -> None:
    file = tmp_path / name
    file.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        read_model(file)
    assert caught.value.code == "model_format"
    right = {"m.onnx": "m.tflite", "m.tflite": "m.onnx"}[name]
    assert right in str(caught.value.hint)


def test_what_is_too_large_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admit, "MAX_MODEL_BYTES", 8)
    file = tmp_path / "m.onnx"
    file.write_bytes(onnx_like(b"12345"))
    with pytest.raises(ConfigError) as caught:
        read_model(file)
    assert caught.value.code == "model_too_large"
    assert "has 9 bytes; 8 are allowed" in caught.value.message


def test_a_folder_is_asked_for_its_one_model(tmp_path: Path) -> None:
    def missing() -> ConfigError:
        with pytest.raises(ConfigError) as caught:
            find_model(tmp_path)
        assert caught.value.code == "model_missing"
        return caught.value

    assert "holds no .onnx" in missing().message
    (tmp_path / "labels.txt").touch()
    (tmp_path / "b.onnx").touch()
    assert find_model(tmp_path) == tmp_path / "b.onnx"
    (tmp_path / "a.tflite").touch()
    assert "holds 2 models (a.tflite, b.onnx)" in missing().message
    assert str(tmp_path / "a.tflite") in missing().hint
    (tmp_path / "model.onnx").touch()
    assert find_model(tmp_path) == tmp_path / "model.onnx"
    assert find_model(tmp_path / "b.onnx") == tmp_path / "b.onnx"
    with pytest.raises(ConfigError) as caught:
        read_model(tmp_path / "none.onnx")
    assert caught.value.code == "model_missing"


DETECTOR = b'\n {"detector": "half-space-trees", "features": [{"name": "x"}]}'


def test_a_detector_is_known_by_what_it_says(tmp_path: Path) -> None:
    file = tmp_path / "pump.json"
    file.write_bytes(DETECTOR)
    assert read_model(file).format == "detector"
    file.rename(tmp_path / "pump.onnx")
    with pytest.raises(ConfigError) as caught:
        read_model(tmp_path / "pump.onnx")
    assert caught.value.code == "model_format"
    assert "pump.json" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "data",
    [b"{}", b'{"detektor": 1}', b"{" * 50_000, DETECTOR[:-1], DETECTOR + b" " * 70_000, b"[1]"],
)
def test_other_json_is_no_model(data: bytes) -> None:
    assert refused(data).code == "model_invalid"


def test_json_in_a_folder_is_not_taken_for_its_model(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(onnx_like())
    (tmp_path / "input.json").write_bytes(DETECTOR)
    assert find_model(tmp_path) == tmp_path / "m.onnx"
