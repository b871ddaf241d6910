"""The kind Model: what people may write."""

from __future__ import annotations

from typing import Any

import pytest

from vedette.config.model import build, wire_value
from vedette.config.model_manifest import ModelManifest
from vedette.config.served import ModelLimits
from vedette.errors import ConfigError


def model(**spec: Any) -> ModelManifest:
    head = {"apiVersion": "vedette.dev/v1alpha1", "kind": "Model", "metadata": {"name": "digits"}}
    return build(ModelManifest, {**head, "spec": {"file": "m.onnx", **spec}})


def test_a_file_is_all_that_must_be_said_and_the_defaults_are_the_snapshots() -> None:
    settings = model().spec.settings()
    assert settings.pop("limits") == ModelLimits().model_dump(by_alias=True)
    assert settings == {
        "task": "tensors",
        "sessions": 1,
        "threads": 1,
        "idleMillis": None,
        "samples": None,
    }
    assert model().spec.version is None


def test_people_write_units() -> None:
    limits = {"memory": "512MB", "run": "250ms", "queue": 0, "requestSize": "1MB"}
    assert model(limits=limits).spec.limits.resolve() == ModelLimits(
        memory_bytes=512 << 20, run_millis=250, queue=0, request_bytes=1 << 20
    )


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"file": "/etc/m.onnx"}, "relative"),
        ({"version": 0}, "version"),
        ({"version": True}, "version"),
        ({"task": "Image Classification"}, "task"),
        ({"sessions": 0}, "sessions"),
        ({"threads": 257}, "threads"),
        ({"limits": {"memory": "1MB"}}, "memoryBytes"),
        ({"limits": {"run": "0s"}}, "runMillis"),
        ({"limits": {"ram": "1GB"}}, "unknown field 'ram'"),
    ],
)
def test_what_cannot_be_is_told(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        model(**spec)
    assert said in caught.value.message


def test_how_long_a_model_may_be_idle_is_a_duration_within_bounds() -> None:
    assert model(idle="10m").spec.settings()["idleMillis"] == 600_000
    for idle in ("999ms", "31d", "soon"):
        with pytest.raises(ConfigError, match=r"idle|duration"):
            model(idle=idle)


TENSORS: dict[str, Any] = {
    "file": None,
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
    "outputs": [{"name": "y", "datatype": "BYTES", "shape": []}],
}


def test_without_a_file_it_says_what_goes_in_and_comes_out() -> None:
    remote = model(**TENSORS, task="text", limits={"requestSize": "1MB"}).spec.remote("far")
    assert wire_value(remote) == {
        "name": "far",
        "task": "text",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [0, 3]}],
        "outputs": [{"name": "y", "datatype": "BYTES", "shape": []}],
        "requestBytes": 1 << 20,
    }
    assert model(**TENSORS).spec.remote("far").request_bytes == 16 << 20


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"file": None}, "file is missing; a model that only tiers have says `inputs`"),
        ({**TENSORS, "outputs": None}, "file is missing"),
        ({**TENSORS, "file": "m.onnx"}, "inputs and outputs are for a model without `file`"),
        ({**TENSORS, "sessions": 2}, "sessions is for a model with a file"),
        ({**TENSORS, "version": 3}, "version is for a model with a file"),
        ({**TENSORS, "idle": "10m"}, "idle is for a model with a file"),
        ({**TENSORS, "limits": {"run": "1s"}}, "limits.run is for a model with a file"),
        ({**TENSORS, "limits": {"requestSize": "17MB"}}, "at most 16MB"),
        ({**TENSORS, "inputs": []}, "inputs"),
        ({**TENSORS, "inputs": [{**TENSORS["inputs"][0], "shape": [0]}]}, "or -1: any"),
        ({**TENSORS, "inputs": [{**TENSORS["inputs"][0], "shape": [-2]}]}, "shape"),
        ({**TENSORS, "inputs": [{**TENSORS["inputs"][0], "datatype": "FLOAT"}]}, "datatype"),
    ],
)
def test_what_a_model_without_a_file_cannot_say_is_told(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        model(**spec)
    assert said in caught.value.message


def test_two_tensors_of_one_name_are_refused() -> None:
    twice = model(**{**TENSORS, "inputs": TENSORS["inputs"] * 2})
    with pytest.raises(ConfigError, match="x is there more than once"):
        twice.spec.remote("far")
