"""What manifests of kind Model and routes to models make of a snapshot."""

from __future__ import annotations

import pytest
from tests.config.samples import DIGEST, OTHER_DIGEST, snapshot
from tests.control.manifest_texts import OUR, SHOP, resolved
from tests.control.test_desired_models import served
from tests.control.test_resolve import of

from vedette.config.manifests import Attachment
from vedette.config.served import Tensor, worker_of
from vedette.config.snapshot import ModelBackend, StaticFile
from vedette.control.resolve import Kept, Resolved
from vedette.control.resolve_models import KnownModels, ModelFile
from vedette.errors import ConfigError
from vedette.models.registry import Registered

FOUND = ModelFile(
    format="onnx",
    size=7,
    inputs=(Tensor(name="x", datatype="FP32", shape=(0, 3)),),
    outputs=(Tensor(name="y", datatype="INT64", shape=(0,)),),
    load_millis=1.0,
    runtime="r",
)
FILE = StaticFile(path="m.onnx", blob=DIGEST, size=7, content_type="x")
KNOWN = KnownModels({"m": Registered({3: OTHER_DIGEST}, 4, serving=3)}, {DIGEST: FOUND})
ALONE = "backendRefs: [{kind: Model, name: m}]"
MIRROR = "{type: RequestMirror, requestMirror: {backendRef: {kind: Model, name: m}}}"
LEADS = "{matches: [{path: {value: /x}}], backendRefs: [{kind: Model, name: m}]}"


def made(text: str, **more: object) -> Resolved:
    attachments = {"m.onnx": Attachment(files=(FILE,))}
    return resolved(text, attachments=attachments, kept=Kept(models=KNOWN), **more)  # type: ignore[arg-type]


def refused(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        made(text)
    return caught.value


def route(rule: str, name: str = "one") -> str:
    return f"{OUR}kind: Route\nmetadata: {{name: {name}}}\nspec:\n  rules:\n    - {rule}\n---\n"


def test_a_model_is_the_next_version_with_what_was_found_in_its_file() -> None:
    after = made(of("Model", "{file: m.onnx, task: text, threads: 2}", "m")).snapshot
    (model,) = after.models or ()
    assert (model.name, model.version, model.blob, model.size) == ("m", 5, DIGEST, 7)
    assert (model.task, model.threads, model.inputs) == ("text", 2, FOUND.inputs)
    assert model.outputs == FOUND.outputs
    assert model.worker == worker_of(model)
    own = after.route("model-m")
    assert own is not None
    assert own.backend == ModelBackend(model="m")


def test_a_route_that_leads_to_it_stands_for_its_own() -> None:
    text = of("Model", "{file: m.onnx}", "m") + route(LEADS)
    after = made(text).snapshot
    leading = [each.name for each in after.routes if isinstance(each.backend, ModelBackend)]
    assert leading == ["one"]
    text = of("Model", "{file: m.onnx}", "m") + route(LEADS, "model-m")
    assert [each.name for each in made(text).snapshot.routes if each.name == "model-m"] == [
        "model-m"
    ]


def test_a_limit_means_the_own_route_of_a_model_by_its_name() -> None:
    text = of("Model", "{file: m.onnx}", "m") + route("{static: {}}", "m")
    after = made(text + of("Limit", "{rate: 1/s, routes: [m, model-m]}")).snapshot
    assert after.limits[0].routes == ("m", "model-m")
    after = made(text + of("Limit", "{rate: 1/s, routes: [m]}")).snapshot
    assert after.limits[0].routes == ("m",), "a Model and a Route of one name are two things"


def test_a_model_goes_with_its_manifest() -> None:
    first = made(of("Model", "{file: m.onnx}", "m"))
    assert [(each.kind, each.owner) for each in first.applied] == [
        ("Model", "Model/m"),
        ("Route", "Model/m"),
    ]
    node = of("Node", "{}")
    kept = made(node, base=first.snapshot, applied=first.applied)
    assert kept.snapshot.models == first.snapshot.models
    gone = made(node, base=first.snapshot, applied=first.applied, prune=True)
    assert (gone.snapshot.models, gone.snapshot.route("model-m")) == (None, None)


def test_what_is_wrong_is_told_with_its_line() -> None:
    for text, line, sentence in (
        (of("Model", "{file: m.onnx}", "m" * 58), 3, "is not a valid model name"),
        (of("Model", "{file: m.onnx, version: 4}", "m"), 4, "not higher than 4"),
        (of("Model", "{file: m.onnx, version: 3}", "m"), 4, "not higher than 4"),
        (of("Model", "{file: n.onnx}", "m"), 4, "the file was not sent"),
        (of("Model", f"{{file: '{OTHER_DIGEST}'}}", "m"), 4, "the node has no model"),
    ):
        error = refused(text)
        assert sentence in error.message
        assert error.line == line


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ("backendRefs: [{kind: Model, name: mm}]", "there is no Model 'mm'; did you mean 'm'?"),
        ("backendRefs: [{name: m}]", "but a Model: write kind: Model, group: vedette.dev"),
        ("backendRefs: [{kind: Model, name: shop}]", "but a Upstream: write kind: Upstream"),
        ("backendRefs: [{kind: Model, group: apps, name: m}]", "no Model in the group 'apps'"),
        (
            "backendRefs: [{kind: Model, name: m}, {name: shop}]",
            "a model answers alone: weights over models are not there yet",
        ),
        ("backendRefs: [{kind: Model, name: m, weight: 0}]", "its weight is 0"),
        ("backendRefs: [{kind: Model, name: m, filters: [x]}]", "filters of its own"),
        ("backendRefs: [{kind: Model, name: m}]\n      retry: {}", "cannot have retry"),
        (
            "backendRefs: [{kind: Model, name: m}]\n      sessionPersistence: {}",
            "cannot have sessionPersistence",
        ),
        (
            "backendRefs: [{kind: Model, name: m}]\n      hedge: {after: 50ms}",
            "a hedge needs an Upstream",
        ),
        (
            f"{ALONE}\n      filters: [{{type: URLRewrite, urlRewrite: {{hostname: a}}}}]",
            "cannot have a filter URLRewrite",
        ),
        (
            f"backendRefs: [{{name: shop}}]\n      filters: [{MIRROR}]",
            "mirrored to a model",
        ),
    ],
)
def test_a_route_to_a_model_is_nothing_but_that(rule: str, sentence: str) -> None:
    base = snapshot().with_(models=(served(),))
    with pytest.raises(ConfigError) as caught:
        resolved(SHOP + route(rule), base=base)
    assert sentence in caught.value.message
