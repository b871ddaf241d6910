"""`input` and `output` of a Model: what is meant where something is left out, and what does not fit the model."""

from __future__ import annotations

from typing import Any

import pytest
from tests.config.samples import OTHER_DIGEST
from tests.config.test_served import LEAST

from vedette.config.media_manifest import MediaSpec
from vedette.config.model import build, wire_value
from vedette.config.served import ServedModel, served_model
from vedette.config.served_media import FileRole, ModelExtra
from vedette.config.tensor import Tensor
from vedette.errors import ConfigError


def tensor(name: str, datatype: str, *shape: int) -> Tensor:
    return build(Tensor, {"name": name, "datatype": datatype, "shape": list(shape)})


PICTURE = tensor("x", "FP32", 0, 3, 224, 200)
TOKENS = (tensor("input_ids", "INT64", 0, 0), tensor("attention_mask", "INT64", 0, 0))
SCORES = tensor("y", "FP32", 1, 1000)
FILE = "names.txt"


def extra(written: str, role: FileRole) -> ModelExtra:
    assert written in (FILE, "tokenizer.json")
    return ModelExtra(role=role, blob=OTHER_DIGEST, size=3)


def served(
    inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...] = (SCORES,), **spec: Any
) -> ServedModel:
    media = build(MediaSpec, spec).resolve(inputs, outputs, extra)
    tensors = {
        "inputs": [wire_value(each) for each in inputs],
        "outputs": [wire_value(each) for each in outputs],
    }
    return served_model({**LEAST, **tensors, **media})


def test_the_models_shape_says_what_a_manifest_does_not() -> None:
    model = served((PICTURE,), input={"image": {}})
    assert wire_value(model)["input"] == {
        "type": "Image",
        "tensor": "x",
        "width": 200,
        "height": 224,
        "resize": "fit",
        "layout": "NCHW",
        "colors": "RGB",
        "scale": 1 / 255,
        "mean": [0.0],
        "std": [1.0],
        "pad": 114,
    }
    last = served((tensor("x", "UINT8", 1, 0, 0, 3),), input={"image": {"width": 8, "height": 4}})
    said = wire_value(last)["input"]
    assert (said["layout"], said["scale"]) == ("NHWC", 1.0)
    sound = served((tensor("x", "FP32", 1, 16_000),), input={"audio": {"sampleRate": 16_000}})
    assert wire_value(sound)["input"]["samples"] == 16_000
    timed = {"sampleRate": 8_000, "seconds": 1.5}
    sound = served((tensor("x", "INT16", 0),), input={"audio": timed})
    assert wire_value(sound)["input"]["samples"] == 12_000


def test_a_text_takes_the_inputs_that_models_usually_have() -> None:
    hidden = tensor("h", "FP32", 0, 0, 384)
    model = served(
        TOKENS,
        (hidden,),
        input={"text": {"tokenizer": "tokenizer.json"}},
        output={"embedding": {}},
    )
    said = wire_value(model)
    assert said["input"]["tensors"] == {"ids": "input_ids", "mask": "attention_mask"}
    assert said["input"]["maxTokens"] == 512
    assert said["output"] == {
        "type": "Embedding",
        "tensor": "h",
        "pool": "mean",
        "mask": "attention_mask",
        "normalize": True,
    }
    assert said["files"] == [{"role": "tokenizer", "blob": OTHER_DIGEST, "size": 3}]
    assert OTHER_DIGEST in model.blobs()
    flat = served(TOKENS, (tensor("h", "FP32", 0, 384),), output={"embedding": {}})
    assert wire_value(flat)["output"]["pool"] == "none"


def test_names_are_listed_or_a_file() -> None:
    listed = served((PICTURE,), output={"labels": {"names": ["a", "b"]}})
    assert wire_value(listed)["output"]["names"] == ["a", "b"]
    assert listed.files is None
    filed = served((PICTURE,), output={"labels": {"names": FILE, "softmax": True}})
    assert wire_value(filed)["output"]["names"] == []
    assert [each.role for each in filed.files or ()] == ["names"]


HEAD = {"stride": 8, "scores": "s", "distances": "d"}


def test_boxes_are_rows_or_cells() -> None:
    both = (tensor("s", "FP32", 1, 0, 10), tensor("d", "FP32", 1, 0, 32))
    picture = {"image": {}}
    model = served((PICTURE,), both, input=picture, output={"boxes": {"grid": {"heads": [HEAD]}}})
    assert wire_value(model)["output"]["decode"]["heads"] == [HEAD]
    model = served((PICTURE,), input=picture, output={"boxes": {"rows": {"transposed": True}}})
    assert wire_value(model)["output"]["decode"]["tensor"] == "y"


@pytest.mark.parametrize(
    ("inputs", "spec", "said"),
    [
        ((PICTURE,), {"input": {}}, "write one of image, audio, text"),
        ((PICTURE,), {"input": {"image": {}, "text": {"tokenizer": "t"}}}, "write one of"),
        ((PICTURE,), {"input": {"image": {"tensor": "z"}}}, "the model has no 'z'; it has x"),
        ((PICTURE,), {"input": {"image": {"width": 99}}}, "[any, 3, 224, 200]"),
        ((PICTURE,), {"input": {"image": {"width": 0}}}, "width"),
        ((PICTURE,), {"input": {"image": {"width": 5000}}}, "4096"),
        ((PICTURE,), {"input": {"image": {"layout": "NHWC"}}}, "is to go in"),
        ((PICTURE,), {"input": {"image": {"colors": "GRAY"}}}, "[1, 1, 224, 200]"),
        ((PICTURE,), {"input": {"image": {"mean": [1, 2]}}}, "2 numbers for 3 channels"),
        ((PICTURE,), {"input": {"image": {"std": [0]}}}, "std"),
        ((PICTURE,), {"input": {"image": {"resize": "crop"}}}, "at least 224"),
        ((PICTURE,), {"input": {"image": {"shorterSide": 256}}}, "is for `crop`"),
        ((PICTURE, SCORES), {"input": {"image": {}}}, "say which of x, y"),
        ((PICTURE, SCORES), {"input": {"image": {"tensor": "x"}}}, "nothing is given for y"),
        ((SCORES,), {"input": {"image": {}}}, "2 dimensions, and a picture 4"),
        ((tensor("x", "FP32", 0, 3, 0, 0),), {"input": {"image": {}}}, "say `width`"),
        ((tensor("x", "INT64", 1, 3, 4, 4),), {"input": {"image": {}}}, "INT64"),
        ((PICTURE,), {"input": {"audio": {"sampleRate": 8000}}}, "a sound is [samples]"),
        ((PICTURE,), {"input": {"text": {"tokenizer": "tokenizer.json"}}}, "no input `input_ids`"),
        (
            (*TOKENS, tensor("z", "INT64", 0, 0)),
            {"input": {"text": {"tokenizer": "tokenizer.json"}}},
            "nothing is given for z",
        ),
        (
            (tensor("input_ids", "INT64", 1, 128),),
            {"input": {"text": {"tokenizer": "tokenizer.json", "maxTokens": 129}}},
            "takes 128 tokens",
        ),
        (
            (tensor("input_ids", "FP32", 1, 128),),
            {"input": {"text": {"tokenizer": "tokenizer.json"}}},
            "FP32",
        ),
        ((PICTURE,), {"output": {"labels": {"tensor": "z"}}}, "the model has no 'z'"),
        ((PICTURE,), {"output": {"embedding": {"pool": "mean"}}}, "is of 3 dimensions"),
        ((PICTURE,), {"output": {"boxes": {"rows": {}}}}, "needs `input.image`"),
        ((PICTURE,), {"output": {"boxes": {}}}, "write one of rows, grid"),
        ((PICTURE,), {"output": {"boxes": {"grid": {"heads": [HEAD]}}}}, "no output 's'"),
    ],
)
def test_what_does_not_fit_the_model_is_told(
    inputs: tuple[Tensor, ...], spec: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        served(inputs, **spec)
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"files": [{"role": "names", "blob": OTHER_DIGEST, "size": 3}]}, "nothing is called by"),
        ({"files": [{"role": "tokenizer", "blob": OTHER_DIGEST, "size": 3}]}, "nothing takes text"),
        ({"files": [{"role": "names", "blob": OTHER_DIGEST, "size": 3}] * 2}, "two have one role"),
        ({"files": [{"role": "names", "blob": OTHER_DIGEST, "size": 33 << 20}]}, "size"),
        (
            {
                "outputs": [{"name": "score", "datatype": "FP32", "shape": [1, 2]}],
                "output": {
                    "type": "Labels",
                    "tensor": "score",
                    "names": [],
                    "softmax": False,
                    "top": 1,
                },
            },
            "an output 'score' of its own",
        ),
    ],
)
def test_a_snapshot_that_contradicts_itself_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        served_model({**LEAST, **change})
    assert said in caught.value.message


def test_how_it_is_fed_and_read_is_part_of_what_names_its_worker() -> None:
    plain = served((PICTURE,))
    assert "input" not in wire_value(plain)
    fed = served((PICTURE,), input={"image": {}})
    assert (
        len({plain.worker, fed.worker, served((PICTURE,), input={"image": {"pad": 1}}).worker}) == 3
    )
