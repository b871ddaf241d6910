"""What is checked before it is served, and where."""

from __future__ import annotations

import json

import pytest
from tests.control.conftest import Running
from tests.simulators.native import NativeSimulator

from vedette.config.snapshot import Function, Snapshot, StaticBackend
from vedette.config.waf import WafOverride
from vedette.control.desired import function_route
from vedette.errors import ConfigError
from vedette.identity.signer import verify_envelope


class Watched(NativeSimulator):
    """Keeps the snapshots that it is asked about; refuses them when it is told to."""

    def __init__(self) -> None:
        self.asked: list[Snapshot] = []
        self.refuses = False

    def check_snapshot(self, envelope: bytes, public_key_pem: bytes, engine_dir: str) -> bytes:
        self.asked.append(Snapshot.parse(verify_envelope(envelope, public_key_pem)))
        if self.refuses:
            raise ValueError(json.dumps({"code": "waf_invalid", "message": "rule 1"}))
        return super().check_snapshot(envelope, public_key_pem, engine_dir)


@pytest.fixture
def here(running: Running) -> Watched:
    """The engine's code in this process."""
    running.activator._native = Watched()
    return running.activator._native


@pytest.fixture
def apart(running: Running) -> Watched:
    """The engine's code in a process of its own."""
    running.activator._apart = Watched()
    return running.activator._apart


def with_route(snapshot: Snapshot, name: str, waf: WafOverride | None = None) -> Snapshot:
    route = function_route(name, [], f"/{name}", waf)
    route = route.model_copy(update={"backend": StaticBackend(body="ok")})
    kept = [each for each in snapshot.routes if each.name != name]
    return snapshot.with_(routes=tuple(sorted([*kept, route], key=lambda each: each.name)))


def serve(running: Running, name: str, waf: WafOverride | None = None) -> Snapshot:
    outcome = running.activator.change(lambda active: with_route(active, name, waf), "test", "test")
    return outcome.snapshot


def test_a_firewall_that_is_served_already_is_not_compiled_again(
    running: Running, here: Watched, apart: Watched
) -> None:
    served = serve(running, "a")
    assert served.waf is not None
    assert apart.asked == []
    (checked,) = here.asked
    assert (checked.waf, checked.route("a")) == (None, served.route("a"))


def test_another_firewall_is_checked_whole_in_a_process_that_ends(
    running: Running, here: Watched, apart: Watched
) -> None:
    detect = WafOverride(mode="detect")
    served = [serve(running, "a", detect), serve(running, "a")]
    off = running.activator.change(lambda active: active.with_(waf=None), "test", "test")
    assert apart.asked == [*served, off.snapshot]
    assert here.asked == []


def test_a_route_with_a_firewall_of_its_own_is_no_reason_to_compile_it_twice(
    running: Running, here: Watched, apart: Watched
) -> None:
    serve(running, "a", WafOverride(mode="detect"))
    serve(running, "b")
    assert (len(apart.asked), len(here.asked)) == (1, 1)
    assert all(each.waf is None for each in here.asked[0].routes)


def test_neither_check_is_passed_over(running: Running, here: Watched, apart: Watched) -> None:
    before = running.activator.active()[0]
    here.refuses = apart.refuses = True
    for waf in (None, WafOverride(mode="off")):
        with pytest.raises(ConfigError, match="rule 1"):
            serve(running, "a", waf)
    assert running.activator.active()[0] == before


def test_the_engine_is_told_that_control_is_there_by_whoever_keeps_it_so(running: Running) -> None:
    running.engine.looks = 0
    running.activator.engine.status()
    assert running.engine.looks == 0, "anybody may ask for the status"
    running.activator.reconcile()
    assert running.engine.looks == 1


def deploy(running: Running, content: bytes) -> tuple[str, int]:
    """A function whose component is `content`; its digest, and the generation."""
    digest = running.activator.blobs.put(content)
    function = Function(name="f", component=digest, size=len(content))
    change = lambda active: active.with_(functions=(function,))  # noqa: E731
    return digest, running.activator.change(change, "test", "test").entry.generation


def test_the_version_of_a_function_is_the_generation_that_brought_its_component(
    running: Running,
) -> None:
    activator = running.activator
    first, brought = deploy(running, b"component one")
    serve(running, "another")
    assert activator.version_of("f", first) == brought
    second, brought = deploy(running, b"component two")
    assert activator.version_of("f", second) == brought
    assert activator.roll_back(None, "test").entry.generation == brought + 1
    assert activator.version_of("f", first) == brought + 1


def test_a_component_that_the_engine_does_not_take_leaves_the_version_of_the_one_before(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    activator = running.activator
    first, brought = deploy(running, b"component one")
    answers = iter([ConfigError("engine_refused", "no"), None, None])

    def apply(digest: str, generation: int) -> None:
        if (answer := next(answers)) is not None:
            raise answer

    monkeypatch.setattr(activator.engine, "apply", apply)
    with pytest.raises(ConfigError, match="no"):
        deploy(running, b"component two")
    now = activator.active()[0].generation
    assert now == brought + 2
    serve(running, "another")
    assert activator.version_of("f", first) == now


def test_a_component_from_before_versions_were_kept_has_that_of_now(running: Running) -> None:
    activator = running.activator
    digest, _ = deploy(running, b"component one")
    serve(running, "another")
    activator.history.note_components(0, {})
    now = activator.active()[0].generation
    assert activator.version_of("f", digest) == now
    serve(running, "more")
    assert activator.version_of("f", digest) == now
