"""Models of a node: taken in, promoted, rolled back, removed; what is kept, and what a crash or a refusal leaves."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from tests.control.conftest import Running
from tests.control.manifest_texts import OUR, objects
from tests.simulators import inspection
from tests.simulators.inspection import onnx_like

from vedette.clock import now
from vedette.config.manifests import Attachment
from vedette.config.model import wire_value
from vedette.config.model_manifest import ModelLimitsSpec
from vedette.config.served import served_model, worker_of
from vedette.config.snapshot import ModelBackend, StaticBackend, StaticFile
from vedette.control.messages import ManifestSetWish, PlanAnswer, PlanWish, StaticRouteWish
from vedette.control.model_messages import ModelAdded, ModelStatus, ModelWish
from vedette.control.models import Models
from vedette.errors import ConfigError, TrustError, UnavailableError, VedetteError
from vedette.ids import digest_of

MODEL = f"{OUR}kind: Model\nmetadata: {{name: m}}\nspec: {{file: m.onnx}}\n"


@pytest.fixture(autouse=True)
def _inspector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Models.__init__, "__defaults__", (inspection.inspect,))


def upload(running: Running, content: bytes) -> str:
    data = onnx_like(content)
    file = running.home.run / "uploaded"
    file.write_bytes(data)
    running.node.models.store_file(digest_of(data), file)
    return digest_of(data)


def add(running: Running, content: bytes = b"one", name: str = "m", **wish: object) -> ModelAdded:
    wanted = ModelWish.model_validate({"file": upload(running, content), **wish})
    return running.node.models.add(name, wanted, "uid:1")[0]


def shown(running: Running, name: str = "m") -> ModelStatus:
    return running.node.models.show(name)


def states(running: Running, name: str = "m") -> dict[int, str]:
    return {each.version: each.state for each in shown(running, name).versions}


def refused(running: Running, content: bytes = b"one", **wish: object) -> VedetteError:
    before = running.activator.active()[0]
    with pytest.raises(VedetteError) as caught:
        add(running, content, **wish)
    assert running.activator.active()[0] == before
    return caught.value


def test_a_model_is_served_at_once_under_its_own_route(running: Running) -> None:
    added = add(running)
    assert (added.version, added.promoted, added.applied) == (1, True, True)
    assert added.url == "https://localhost:8443/v2/models/m"
    assert [each.name for each in added.inputs] == ["x"]
    assert (added.runtime, added.load_millis) == ("simulator 1", 1.5)
    assert running.engine.digest == added.digest
    snapshot = running.activator.active()[1]
    served, route = snapshot.model("m"), snapshot.route("model-m")
    assert served is not None
    assert route is not None
    assert served.worker == worker_of(served)
    assert (served.blob, served.size) == (added.file, len(onnx_like(b"one")))
    assert (route.hosts, route.path.value) == ((), "/v2/models/m")
    assert route.backend == ModelBackend(model="m")
    status = shown(running)
    assert (status.version, status.routes, status.task) == (1, ("model-m",), "tensors")
    assert (status.versions[0].state, status.versions[0].actor) == ("serving", "uid:1")
    assert status.worker is not None
    assert (status.worker.state, status.worker.load_millis) == ("ready", 1.5)
    (summary,) = running.node.status().models
    assert (summary.name, summary.version, summary.state) == ("m", 1, "ready")


def test_what_the_keeper_says_of_a_worker_is_told(running: Running) -> None:
    add(running)
    served = running.activator.active()[1].model("m")
    assert served is not None
    told = {
        "name": "m",
        "version": 1,
        "state": "failed",
        "pid": None,
        "restarts": 3,
        "since": "2026-01-01T00:00:00Z",
        "error": {"code": "worker_failed", "message": "it crashed"},
        "loadMillis": None,
        "memoryBytes": None,
    }
    running.keeper.stop()
    running.home.models_state.write_text(json.dumps({"models": {served.worker: told}}))
    worker = shown(running).worker
    assert worker is not None
    assert (worker.state, worker.restarts, worker.error) == ("failed", 3, "it crashed")
    assert running.node.status().models[0].state == "failed"


def test_versions_go_up_and_only_up(running: Running) -> None:
    assert [add(running, each).version for each in (b"one", b"two", b"two")] == [1, 2, 3]
    assert add(running, b"three", version=7).version == 7
    for version in (7, 6, 1):
        assert refused(running, b"four", version=version).code == "model_downgrade"
    assert add(running, b"four").version == 8


def test_a_number_is_not_given_again_though_its_version_was_removed(running: Running) -> None:
    add(running, version=3)
    running.node.models.remove("m", None, "uid:1")
    assert running.node.models.list() == []
    assert running.activator.active()[1].models is None
    assert running.activator.active()[1].route("model-m") is None
    assert refused(running, version=3).code == "model_downgrade"
    assert add(running).version == 4


def test_one_that_is_not_promoted_is_kept_and_nothing_else_changes(running: Running) -> None:
    add(running)
    before = running.activator.active()[0]
    added = add(running, b"two", promote=False)
    assert (added.version, added.promoted, added.url) == (2, False, None)
    assert (added.digest, added.generation) == (before.digest, before.generation)
    assert running.activator.active()[0] == before
    assert states(running) == {2: "kept", 1: "serving"}
    running.node.models.promote("m", 2, "uid:2")
    assert states(running) == {2: "serving", 1: "previous"}
    entry = running.node.history(1)[0]
    assert (entry.action, entry.actor) == ("promote m 2", "uid:2")


def test_a_first_version_can_wait_too(running: Running) -> None:
    add(running, promote=False)
    status = shown(running)
    assert (status.version, status.url, status.routes) == (None, None, ())
    assert running.node.status().models == ()


def test_a_rollback_goes_to_the_version_that_served_before_and_back(running: Running) -> None:
    add(running, threads=2)
    add(running, b"two", threads=4)
    add(running, b"three", promote=False)
    running.node.models.roll_back("m", "uid:1")
    assert (shown(running).version, shown(running).threads) == (1, 2), "as it ran then"
    assert states(running) == {3: "kept", 2: "previous", 1: "serving"}
    running.node.models.roll_back("m", "uid:1")
    assert shown(running).version == 2
    running.node.models.remove("m", 1, "uid:1")
    with pytest.raises(ConfigError) as caught:
        running.node.models.roll_back("m", "uid:1")
    assert caught.value.code == "model_version_unknown"


def test_the_version_that_serves_is_not_removed_alone(running: Running) -> None:
    add(running)
    for version, code in ((1, "model_serving"), (2, "model_version_unknown")):
        with pytest.raises(ConfigError) as caught:
            running.node.models.remove("m", version, "uid:1")
        assert caught.value.code == code
    for name in ("n", "m' OR 1"):
        with pytest.raises(ConfigError) as caught:
            running.node.models.remove(name, None, "uid:1")
        assert caught.value.code == "model_unknown"


def test_settings_stay_as_they_were_unless_said_otherwise(running: Running) -> None:
    limits = ModelLimitsSpec(memory="1GB", run="2s")
    said = limits.model_dump(by_alias=True)
    add(running, task="image-classification", sessions=2, limits=said, idle="10m")
    add(running, b"two", threads=3)
    status = shown(running)
    assert (status.task, status.sessions, status.threads) == ("image-classification", 2, 3)
    assert (status.limits.memory_bytes, status.limits.run_millis) == (1 << 30, 2_000)
    model = running.activator.active()[1].model("m")
    assert model is not None
    assert model.idle_millis == 600_000
    assert refused(running, idle="1ms").code == "request_invalid"


def test_what_reaches_outside_or_was_never_uploaded_is_not_taken_in(running: Running) -> None:
    assert refused(running, b"outside").code == "model_reaches_outside"
    wish = ModelWish(file=digest_of(b"nothing"))
    with pytest.raises(ConfigError) as caught:
        running.node.models.add("m", wish, "uid:1")
    assert caught.value.code == "blob_missing"
    assert running.node.models.list() == []


def test_what_is_no_model_is_not_even_stored(running: Running, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"<html>")
    with pytest.raises(ConfigError) as caught:
        running.node.models.store_file(digest_of(b"<html>"), file)
    assert caught.value.code == "model_invalid"
    assert not running.activator.blobs.has(digest_of(b"<html>"))


def test_a_model_that_the_engine_refuses_leaves_nothing_behind(running: Running) -> None:
    add(running)
    refuse = running.home.engine / "refuse"
    refuse.touch()
    with pytest.raises(ConfigError) as caught:
        add(running, b"two")
    assert caught.value.code == "engine_refused"
    refuse.unlink()
    assert states(running) == {1: "serving"}
    assert add(running, b"two").version == 2, "its number is still free"


def test_a_model_whose_worker_fails_leaves_nothing_behind(running: Running) -> None:
    add(running)
    running.keeper.fails["m"] = {"code": "model_invalid", "message": "no memory for it"}
    error = refused(running, b"two")
    assert (error.code, "no memory for it" in error.message) == ("model_not_ready", True)
    running.keeper.fails.clear()
    assert states(running) == {1: "serving"}
    assert add(running, b"two").version == 2


def test_nobody_who_asks_waits_for_a_model_that_is_loading(running: Running) -> None:
    add(running)
    asked: list[object] = []

    def ask() -> None:
        asked.append(running.node.status().snapshot)
        asked.append(running.node.metric_facts().generation)
        asked.append(running.node.models.show("m").version)
        asked.append(running.node.models.stored(shown(running).versions[0].file))

    with running.activator.lock:
        asking = threading.Thread(target=ask)
        asking.start()
        asking.join(30)
        assert not asking.is_alive()
    assert asked[2:] == [1, len(onnx_like(b"one"))]


def test_a_full_disk_of_the_registry_does_not_undo_what_is_active(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = UnavailableError("disk_full", "no room")
    add(running)
    with monkeypatch.context() as patched:
        patched.setattr(running.node.models.store, "note_serving", _raising(full))
        assert add(running, b"two").applied
        assert shown(running).version == 2
    assert states(running) == {2: "serving", 1: "previous"}


def _raising(error: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_a_file_is_looked_at_once(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []

    def look(path: Path, format_: object) -> object:
        looked.append(path)
        return inspection.inspect(path, "onnx")

    monkeypatch.setattr(running.node.models, "_inspect", look)
    add(running)
    add(running)
    add(running, name="n")
    assert len(looked) == 1


def test_old_versions_go_but_not_the_one_before(running: Running) -> None:
    add(running, b"first")
    pruned: list[tuple[int, ...]] = []
    for number in range(2, 9):
        pruned.append(add(running, b"%d" % number, promote=number == 2).pruned)
    assert states(running) == {
        **dict.fromkeys((8, 7, 6, 5, 4), "kept"),
        2: "serving",
        1: "previous",
    }
    assert pruned == [(), (), (), (), (), (), (3,)]


def test_files_of_kept_versions_outlive_what_no_generation_needs(running: Running) -> None:
    kept = add(running, b"one", promote=False).file
    gone = upload(running, b"two")
    running.node.models.file(gone)
    aged = (now() - timedelta(days=1)).timestamp()
    for digest in (kept, gone):
        os.utime(running.activator.blobs.path(digest), (aged, aged))
    running.activator.collect_garbage()
    assert running.activator.blobs.has(kept)
    assert not running.activator.blobs.has(gone)
    running.activator.collect_garbage()
    assert running.node.models.store.inspection(kept) is not None
    assert running.node.models.store.inspection(gone) is None


def test_a_rollback_of_the_node_serves_a_version_that_was_forgotten(running: Running) -> None:
    first = add(running)
    add(running, b"two")
    running.node.models.remove("m", 1, "uid:1")
    assert states(running) == {2: "serving"}
    running.node.roll_back(first.digest, "uid:1")
    assert states(running) == {2: "previous", 1: "serving"}
    assert add(running, b"three").version == 3


def test_the_registry_catches_up_with_a_snapshot_it_missed(running: Running) -> None:
    running.activator.noted = None  # as a control that was killed between the two
    add(running, version=4)
    again = Models(
        running.home,
        running.activator,
        frozenset,
        lambda: "https://h",
        lambda: running.node.rotation._keys.authority,
    )
    assert [(each.name, each.version) for each in again.list()] == [("m", 4)]
    assert again.show("m").versions[0].state == "serving"


def test_a_route_that_is_there_leads_to_the_model_and_no_other_is_made(running: Running) -> None:
    add(running)
    answer = plan(running, MODEL, ROUTE)
    apply(running, answer)
    assert names(running) == ["classify"]
    add(running, b"two")
    assert names(running) == ["classify"]
    assert shown(running).url == "https://localhost:8443/classify"


def test_the_place_of_the_route_can_be_taken(running: Running) -> None:
    wish = StaticRouteWish(path="/v2/models/m", backend=StaticBackend())
    running.node.put_static_route("other", wish, "t")
    assert refused(running).code == "route_conflict"
    assert running.node.models.list() == []


def test_a_name_too_long_for_a_route_is_refused(running: Running) -> None:
    assert refused(running, name="m" * 58).code == "invalid_name"
    assert add(running, name="m" * 57).version == 1


# --- manifests

ROUTE = f"""\
{OUR}kind: Route
metadata: {{name: classify}}
spec:
  rules:
    - matches: [{{path: {{value: /classify}}}}]
      backendRefs: [{{kind: Model, name: m}}]
"""


def attached(running: Running, content: bytes) -> dict[str, Attachment]:
    digest = upload(running, content)
    size = running.node.models.stored(digest)
    file = StaticFile(path="m.onnx", blob=digest, size=size, content_type="x")
    return {"m.onnx": Attachment(files=(file,))}


def plan(running: Running, *texts: str, content: bytes = b"one", prune: bool = False) -> PlanAnswer:
    found = objects("---\n".join(texts), attachments=attached(running, content))
    return running.node.plan(ManifestSetWish(objects=tuple(found), prune=prune))


def apply(running: Running, answer: PlanAnswer, **changes: object) -> None:
    data = {name: getattr(answer, name) for name in ("base", "payload", "texts", "applied")}
    running.node.apply(PlanWish.model_validate({**data, **changes}), "uid:1")


def names(running: Running) -> list[str]:
    return [each.name for each in running.activator.active()[1].routes]


def test_a_manifest_is_planned_applied_and_then_there_is_nothing_to_do(running: Running) -> None:
    answer = plan(running, MODEL)
    assert [(each.action, each.kind, each.name) for each in answer.changes] == [
        ("create", "Model", "m"),
        ("create", "Route", "model-m"),
    ]
    assert (answer.changes[0].file, answer.changes[0].line) == ("edge.yaml", 3)
    assert running.node.models.list() == [], "a plan changes nothing"
    apply(running, answer)
    assert (states(running), shown(running).manifest) == ({1: "serving"}, "edge.yaml")
    assert plan(running, MODEL).changes == ()
    apply(running, plan(running, MODEL, content=b"two"))
    assert states(running) == {2: "serving", 1: "previous"}
    apply(running, plan(running, MODEL))
    assert states(running) == {2: "previous", 1: "serving"}, "the older file is the older version"
    other = f"{OUR}kind: Node\nmetadata: {{name: n}}\n"
    apply(running, plan(running, other, prune=True))
    assert (running.activator.active()[1].models, names(running)) == (None, [])
    assert states(running) == {2: "kept", 1: "previous"}, "pruned is not served; it is kept"


def test_a_manifest_is_told_at_its_line_what_is_wrong(running: Running) -> None:
    with pytest.raises(VedetteError) as caught:
        plan(running, MODEL, content=b"outside")
    assert (caught.value.code, caught.value.file) == ("model_reaches_outside", "edge.yaml")
    assert caught.value.line == 4
    add(running, version=5)
    with pytest.raises(ConfigError) as caught:
        plan(running, MODEL.replace("m.onnx}", "m.onnx, version: 5}"), content=b"two")
    assert "version 5 of 'm' is not higher than 5" in caught.value.message
    assert (caught.value.file, caught.value.line) == ("edge.yaml", 4)
    absent = MODEL.replace("m.onnx", f"'{digest_of(b'nothing')}'")
    with pytest.raises(ConfigError) as caught:
        plan(running, absent)
    assert (caught.value.code, caught.value.line) == ("blob_missing", 4)


def test_a_manifest_can_name_a_file_that_the_node_has(running: Running) -> None:
    digest = upload(running, b"one")
    apply(running, plan(running, MODEL.replace("m.onnx", f"'{digest}'")))
    assert shown(running).versions[0].file == digest


def test_settings_change_without_another_version(running: Running) -> None:
    apply(running, plan(running, MODEL))
    first = running.activator.active()[1].model("m")
    answer = plan(running, MODEL.replace("m.onnx}", "m.onnx, sessions: 2, limits: {run: 1s}}"))
    assert [each.path for each in answer.changes[0].fields] == [
        "limits.runMillis",
        "sessions",
        "worker",
    ]
    apply(running, answer)
    second = running.activator.active()[1].model("m")
    assert first is not None
    assert second is not None
    assert (second.version, second.sessions) == (1, 2)
    assert second.worker != first.worker, "it runs in a process of its own beside the one before"


def test_a_route_leads_to_a_model_in_place_of_its_own(running: Running) -> None:
    apply(running, plan(running, MODEL))
    apply(running, plan(running, ROUTE))
    assert names(running) == ["classify"], "also when the model's manifest is not among these"
    apply(running, plan(running, MODEL))
    assert names(running) == ["classify"]
    apply(running, plan(running, MODEL, prune=True))
    assert names(running) == ["model-m"]


def test_a_plan_that_says_otherwise_of_a_model_is_not_applied(running: Running) -> None:
    answer = plan(running, MODEL)
    payload = json.loads(answer.payload or "")

    def altered(**changes: object) -> dict[str, object]:
        model = {**payload["models"][0], **changes}
        if "worker" not in changes:
            model = dict(wire_value(served_model(model)))
        text = json.dumps({**payload, "models": [model]}, sort_keys=True, separators=(",", ":"))
        return {"payload": text}

    tensor = {"name": "x", "datatype": "INT64", "shape": [1]}
    for change in (altered(inputs=[tensor]), altered(size=9), altered(worker="0" * 16)):
        with pytest.raises(TrustError) as caught:
            apply(running, answer, **change)
        assert caught.value.code == "plan_altered"
    add(running, b"two", promote=False)
    with pytest.raises(ConfigError) as stale:
        apply(running, answer)
    assert stale.value.code == "plan_stale", "version 1 is another file by now"
