"""Models are ready before the engine is told of them, and end after it has let go of them."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.control.conftest import Running
from tests.models.conftest import eventually

from vedette.config.served import ServedModel, Tensor
from vedette.config.snapshot import Snapshot, StaticBackend
from vedette.control.activate import Outcome
from vedette.control.messages import FactWish, GrantWish, RevokeWish, StaticRouteWish
from vedette.control.model_workers import ModelWorkers, wanted_bytes
from vedette.errors import ConfigError, UnavailableError
from vedette.ids import digest_of
from vedette.models.keeper_wanted import parse
from vedette.store.home import Home


def model(name: str, version: int = 1) -> ServedModel:
    tensor = Tensor(name="x", datatype="FP32", shape=(0, 3))
    return ServedModel(
        name=name,
        version=version,
        blob=digest_of(name.encode()),
        size=len(name),
        format="onnx",
        inputs=(tensor,),
        outputs=(tensor,),
        worker=digest_of(f"{name} {version}".encode()).removeprefix("sha256:")[:16],
    )


def serve(running: Running, *models: ServedModel) -> Outcome:
    """Makes exactly these the models of the node."""
    for each in models:
        running.activator.blobs.put(each.name.encode())

    def change(active: Snapshot) -> Snapshot:
        return active.with_(models=tuple(sorted(models, key=lambda each: each.name)) or None)

    return running.activator.change(change, "test", "test")


def wanted(home: Home) -> set[str]:
    return {f"{one.name}@{one.version}" for one in parse(home.models_wanted.read_bytes()).values()}


def told(running: Running, monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """What is wanted, and ready, each time the engine is told of a snapshot."""
    moments: list[set[str]] = []
    engine = running.activator.engine
    apply = engine.apply

    def watched(digest: str, generation: int) -> None:
        states = json.loads(running.home.models_state.read_bytes())["models"]
        ready = {f"{one['name']}@{one['version']}" for one in states.values()}
        assert wanted(running.home) == ready
        moments.append(ready)
        apply(digest, generation)

    monkeypatch.setattr(engine, "apply", watched)
    return moments


def test_the_keeper_reads_what_control_writes() -> None:
    models = [model("a", 3), model("b")]
    found = parse(wanted_bytes(models))
    assert [one.name for one in found.values()] == ["a", "b"]
    [first, _] = found.values()
    assert (first.worker, first.run_millis) == (models[0].worker, 10_000)
    assert first.served["limits"]["memoryBytes"] == 2_147_483_648
    assert first.served["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [0, 3]}]


def test_both_versions_run_while_the_engine_is_told_and_one_after(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = told(running, monkeypatch)
    serve(running, model("a"))
    assert wanted(running.home) == {"a@1"}
    serve(running, model("a", 2))
    assert moments == [{"a@1"}, {"a@1", "a@2"}]
    assert wanted(running.home) == {"a@2"}


def test_a_rollback_waits_for_the_models_of_before(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(running, model("a"))
    serve(running, model("a", 2), model("b"))
    moments = told(running, monkeypatch)
    running.activator.roll_back(None, "test")
    assert moments == [{"a@1", "a@2", "b@1"}]
    assert wanted(running.home) == {"a@1"}


def test_a_model_that_fails_is_refused_with_its_own_words_and_nothing_changes(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = serve(running, model("a")).entry
    moments = told(running, monkeypatch)
    running.keeper.fails["b"] = {"code": "runtime_missing", "message": "there is no onnxruntime"}
    with pytest.raises(UnavailableError, match="b version 2: there is no onnxruntime") as caught:
        serve(running, model("a", 2), model("b", 2))
    assert caught.value.code == "model_not_ready"
    assert "pip install 'vedette[models]'" in caught.value.hint
    assert running.activator.active()[0] == before
    assert moments == []
    assert wanted(running.home) == {"a@1"}


def test_a_model_that_fails_later_is_no_reason_to_refuse_another_change(running: Running) -> None:
    serve(running, model("a"))
    running.keeper.fails["a"] = {"code": "worker_failed", "message": "killed"}
    serve(running, model("a"), model("b"))
    assert wanted(running.home) == {"a@1", "b@1"}


def test_an_engine_that_refuses_has_the_models_of_before_run_on(running: Running) -> None:
    serve(running, model("a"))
    (running.home.engine / "refuse").write_text("")
    with pytest.raises(ConfigError):
        serve(running, model("a", 2))
    assert wanted(running.home) == {"a@1"}


def test_a_model_that_loads_for_too_long_is_refused(home: Home, running: Running) -> None:
    running.keeper.hangs.add("b")
    moments = iter([0.0, 1.0, 2.0, 3.0])
    workers = ModelWorkers(home, clock=lambda: next(moments), sleep=lambda _: None)
    with (
        workers.wish() as wish,
        pytest.raises(UnavailableError, match=r"b version 1 .* after 2 s"),
    ):
        wish.load([model("b")], 2.0)
    assert list(moments) == [3.0]


def test_a_keeper_that_is_away_is_told_as_such(home: Home) -> None:
    home.create()
    moments = iter([0.0, 1.0])
    workers = ModelWorkers(home, clock=lambda: next(moments), sleep=lambda _: None)
    with (
        workers.wish() as wish,
        pytest.raises(UnavailableError, match="was not taken up by the keeper after 1 s"),
    ):
        wish.load([model("a")], 1.0)


def test_other_changes_go_on_while_a_model_loads_and_none_of_them_is_lost(
    running: Running,
) -> None:
    node, keeper = running.node, running.keeper
    serve(running, model("a"))
    keeper.hangs.add("slow")
    with ThreadPoolExecutor(1) as others:
        begun = others.submit(serve, running, model("a"), model("slow"))
        try:
            eventually(lambda: keeper.seen[-1] == {"a@1", "slow@1"})
            node.put_static_route("page", StaticRouteWish(path="/p", backend=StaticBackend()), "t")
            node.put_policy("during.cedar", "forbid(principal, action, resource);", "t")
            node.revoke_token(RevokeWish(jti="stolen"), "t")
            node.grant(GrantWish(principal="alice", target="page", seconds=60, name="g"), "t")
            node.set_fact(FactWish(subject="alice", fact="risky", seconds=60), "t")
            running.activator.reconcile()
            assert not begun.done()
            assert wanted(running.home) == {"a@1", "slow@1"}, "it goes on loading"
            assert [each.name for each in running.activator.active()[1].models or ()] == ["a"]
        finally:
            keeper.hangs.clear()
            running.home.models_wanted.write_bytes(running.home.models_wanted.read_bytes())
        outcome = begun.result(120)
    active = running.activator.active()[1]
    assert outcome.snapshot == active
    assert [each.name for each in active.models or ()] == ["a", "slow"]
    assert {"during.cedar", "grant-g.cedar"} <= {each.name for each in active.policy.policies}
    assert active.route("page") is not None
    assert [each.jti for each in node.revoked_tokens()] == ["stolen"]
    assert wanted(running.home) == {"a@1", "slow@1"}


def test_what_is_waited_for_is_let_go_when_it_is_refused(running: Running) -> None:
    serve(running, model("a"))
    running.keeper.fails["b"] = {"code": "model_invalid", "message": "no"}
    with pytest.raises(UnavailableError):
        serve(running, model("a"), model("b"))
    assert wanted(running.home) == {"a@1"}
    while running.keeper.seen[-1] != {"a@1"}:  # until then it still says how the last attempt ended
        time.sleep(0.01)
    running.keeper.fails.clear()
    serve(running, model("a"), model("b"))
    assert wanted(running.home) == {"a@1", "b@1"}


def test_what_somebody_changed_is_put_right_with_the_next_look(running: Running) -> None:
    serve(running, model("a"))
    for change in (
        lambda path: path.write_text("oops"),
        Path.unlink,
        lambda path: path.write_bytes(wanted_bytes([model("b")])),
    ):
        change(running.home.models_wanted)
        running.activator.reconcile()
        assert wanted(running.home) == {"a@1"}


def test_a_look_writes_nothing_that_is_there_already(running: Running) -> None:
    running.activator.reconcile()
    assert not running.home.models_wanted.exists(), "a node without models has no such file"
    serve(running, model("a"))
    before = running.home.models_wanted.stat().st_ino
    running.activator.reconcile()
    assert running.home.models_wanted.stat().st_ino == before
    serve(running)
    assert wanted(running.home) == set()


def test_models_are_wanted_though_the_engine_is_away(running: Running) -> None:
    serve(running, model("a"))
    running.home.models_wanted.unlink()
    running.engine_listener.close()
    running.home.engine_socket.unlink()
    with pytest.raises(UnavailableError):
        running.activator.reconcile()
    assert wanted(running.home) == {"a@1"}


def test_a_home_too_long_for_a_models_socket_is_told_before_anything_is_wanted(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path / ("a" * 80))
    home.create()
    with ModelWorkers(home).wish() as wish, pytest.raises(ConfigError) as caught:
        wish.load([model("a")])
    assert caught.value.code == "socket_path_too_long"
    assert not home.models_wanted.exists()
