"""One worker: what it is given, how it fails, how it is started again, how it leaves."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest
from tests.models.conftest import (
    COMMAND,
    LIBRARY,
    Kept,
    answered,
    asked,
    begun,
    call,
    eventually,
    is_ready,
    refused,
    served,
    state_of,
    want,
    worker_of,
)

from vedette.errors import ConfigError
from vedette.ids import digest_of
from vedette.models import keeper, keeper_pulse, keeper_worker
from vedette.models.keeper_state import read_states
from vedette.processes import restart_delay as delay_of
from vedette.store.home import Home


def restart_delay(failures: int) -> float:
    return delay_of(failures, 10.0)


def is_alive(pid: int | None) -> bool:
    return pid is not None and Path(f"/proc/{pid}").exists()


def test_a_wanted_model_is_served_on_a_socket_for_the_owner_only(kept: Kept) -> None:
    want(kept.home, served("a", 3))
    state = kept.until_ready("a", 3)
    path = kept.home.model_socket(worker_of("a", 3))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert call(kept.home, "a", version=3)["pid"] == state["pid"]
    assert (state["name"], state["version"], state["restarts"]) == ("a", 3, 0)
    assert (state["error"], state["loadMillis"]) == (None, 12.5)
    assert state["memoryBytes"] is not None
    assert state["memoryBytes"] > 1 << 20


def test_a_worker_is_given_its_model_two_descriptors_and_nothing_else(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VEDETTE_SECRET", "hush")
    monkeypatch.setenv("LANG", "C.UTF-8")
    model = {**served("a"), "somethingNew": "passed on"}
    want(kept.home, model, served("b"))
    for name in ("a", "b"):
        kept.until_ready(name)
    given = call(kept.home, "a")
    assert given["config"] == {
        "model": model,
        "file": str(kept.home.blobs / digest_of(b"a").removeprefix("sha256:")),
        "files": {},
        "library": str(LIBRARY),
        "listenFd": given["config"]["listenFd"],
        "readyFd": given["config"]["readyFd"],
    }
    inherited = {given["config"]["listenFd"], given["config"]["readyFd"]}
    assert set(given["descriptors"]) == {0, 1, 2} | inherited
    allowed = {"PATH", "LANG", "LC_CTYPE", "TZ", "HOME", "TMPDIR", "RUST_BACKTRACE"}
    assert set(given["names"]) - allowed == {"ORT_DISABLE_TELEMETRY", "VEDETTE_MODEL"}
    marks = ["--model", "a@1", "--role", "model", "--home", str(kept.home.root)]
    assert given["arguments"] == marks


def test_calls_are_told_to_come_again_while_a_killed_worker_is_started_again(kept: Kept) -> None:
    go = kept.home.root / "go"
    go.touch()
    want(kept.home, served("held"))
    before = kept.until_ready("held")
    assert before["pid"] is not None
    go.unlink()
    os.kill(before["pid"], signal.SIGKILL)
    eventually(lambda: Path(f"/proc/{before['pid']}/stat").read_text().rpartition(")")[2][1] == "Z")
    waiting = asked(kept.home, "held")  # nobody is there to accept it
    kept.until(lambda: state_of(kept.home, "held")["state"] == "failed")
    assert "SIGKILL" in (state_of(kept.home, "held")["error"] or {})["message"]
    assert refused(waiting) == "the process of the model has failed, and is started again"
    kept.clock.ahead += restart_delay(1)
    kept.until(lambda: state_of(kept.home, "held")["state"] == "starting")
    loading = asked(kept.home, "held")
    kept.step()
    assert refused(loading) == "the model is being loaded"
    go.touch()
    after = kept.until_ready("held")
    assert call(kept.home, "held")["pid"] == after["pid"] != before["pid"]
    assert (after["restarts"], after["error"]) == (1, None)


def test_a_model_that_loads_for_the_first_time_hangs_no_caller(kept: Kept) -> None:
    want(kept.home, served("held"))
    kept.until(lambda: worker_of("held") in read_states(kept.home.models_state))
    first, second = asked(kept.home, "held"), asked(kept.home, "held")
    kept.step()
    assert refused(first) == refused(second) == "the model is being loaded"
    (kept.home.root / "go").touch()
    kept.until_ready("held")
    late = asked(kept.home, "held")
    kept.step()
    kept.step()
    with pytest.raises(EOFError):  # the worker has it, which speaks no HTTP
        refused(late)


def test_a_worker_whose_run_hung_says_so_and_is_started_again(kept: Kept) -> None:
    want(kept.home, served("a"))
    kept.until_ready("a")
    with pytest.raises(EOFError):
        call(kept.home, "a", -1.0)
    kept.until(lambda: not is_ready(kept.home, "a"))
    assert "took too long" in (state_of(kept.home, "a")["error"] or {})["message"]
    kept.until_ready("a")


def pass_time(kept: Kept, looks: int) -> None:
    """As long as the keeper waits before the first question, and so often before it looks for the answer."""
    kept.step()
    kept.clock.ahead += keeper_pulse.INTERVAL
    kept.step()
    for _ in range(looks):
        kept.clock.ahead += keeper_pulse.PATIENCE
        kept.step()


def test_a_worker_that_answers_nobody_is_started_again(kept: Kept) -> None:
    want(kept.home, served("a"))
    before = kept.until_ready("a")
    assert before["pid"] is not None
    os.kill(before["pid"], signal.SIGSTOP)
    pass_time(kept, keeper_pulse.LOOKS - 1)
    assert is_alive(before["pid"]), "it has time"
    kept.clock.ahead += keeper_pulse.PATIENCE
    kept.until(lambda: not is_ready(kept.home, "a"))
    assert "answered nobody for 30 s" in (state_of(kept.home, "a")["error"] or {})["message"]
    kept.clock.ahead += restart_delay(1)
    after = kept.until_ready("a")
    assert call(kept.home, "a")["pid"] == after["pid"] != before["pid"]


def test_a_worker_that_answers_is_left_alone_however_late(kept: Kept) -> None:
    want(kept.home, served("a"))
    before = kept.until_ready("a")
    assert before["pid"] is not None
    for _ in range(3):
        os.kill(before["pid"], signal.SIGSTOP)
        pass_time(kept, keeper_pulse.LOOKS - 1)
        os.kill(before["pid"], signal.SIGCONT)
        kept.until(lambda: kept.keeper._workers[worker_of("a")].pulse.descriptors() == [])
    assert call(kept.home, "a")["pid"] == before["pid"]
    assert state_of(kept.home, "a")["restarts"] == 0


@pytest.mark.parametrize(
    ("kind", "code", "message"),
    [
        ("exits", "worker_failed", "it ended with exit code 3"),
        ("garbled", "worker_failed", "it said ' [31mhello'"),
        ("not-a-number", "worker_failed", "it said "),
        ("floods", "worker_failed", "it said more than 65536 bytes"),
        ("invalid", "model_invalid", "there is no graph [31m in it"),
    ],
)
def test_a_worker_that_is_never_ready_says_why(
    kept: Kept, kind: str, code: str, message: str
) -> None:
    want(kept.home, served(kind), served("a"))
    pids = set()

    def has_failed() -> bool:
        state = read_states(kept.home.models_state).get(worker_of(kind))
        pids.add(state["pid"] if state else None)
        return state is not None and state["state"] == "failed"

    kept.until(has_failed)
    error = state_of(kept.home, kind)["error"]
    assert error is not None
    assert error["code"] == code
    assert error["message"].startswith(message)
    assert state_of(kept.home, kind)["pid"] is None
    assert not any(is_alive(pid) for pid in pids)
    kept.until_ready("a")  # of which the other takes nothing


def test_a_worker_that_says_nothing_fails_after_two_minutes(kept: Kept) -> None:
    want(kept.home, served("mute"))
    kept.until(lambda: worker_of("mute") in read_states(kept.home.models_state))
    state = state_of(kept.home, "mute")
    kept.clock.ahead += keeper_worker.READY_PATIENCE - 20.0
    kept.step()
    assert state_of(kept.home, "mute")["state"] == "starting"
    kept.clock.ahead += 20.0
    kept.until(lambda: state_of(kept.home, "mute")["state"] == "failed")
    assert state_of(kept.home, "mute")["error"] == {
        "code": "worker_failed",
        "message": "it was not ready within 120 s",
    }
    assert not is_alive(state["pid"])


def test_the_delay_doubles_up_to_ten_seconds() -> None:
    delays = [restart_delay(failures) for failures in range(1, 11)]
    assert delays[:4] == [0.1, 0.2, 0.4, 0.8]
    assert delays[-3:] == [10.0, 10.0, 10.0]
    assert restart_delay(10**6) == 10.0


def test_a_worker_that_exits_ten_times_is_still_tried_and_callers_are_turned_away_meanwhile(
    kept: Kept,
) -> None:
    want(kept.home, served("exits"))
    for count in range(10):
        kept.until(lambda: state_of(kept.home, "exits")["state"] == "failed")
        assert state_of(kept.home, "exits")["restarts"] == count
        early = asked(kept.home, "exits")
        kept.step()
        assert "has failed" in refused(early)
        kept.clock.ahead += restart_delay(count + 1)
        kept.step()
        assert state_of(kept.home, "exits")["state"] == "starting"
        assert state_of(kept.home, "exits")["restarts"] == count + 1


def test_a_worker_that_was_well_for_a_while_starts_anew_with_the_shortest_delay(
    kept: Kept,
) -> None:
    want(kept.home, served("a"))
    for count in range(4):
        pid = kept.until_ready("a")["pid"]
        assert pid is not None
        kept.clock.ahead += keeper_worker.HEALTHY_AFTER
        os.kill(pid, signal.SIGKILL)
        kept.until(lambda: not is_ready(kept.home, "a"))
        [worker] = kept.keeper._workers.values()
        assert worker.failures == 1
        assert worker.restarts == count
        kept.clock.ahead += restart_delay(1)


def test_a_model_that_is_wanted_no_more_is_left_ten_seconds_and_finishes_its_calls(
    kept: Kept,
) -> None:
    want(kept.home, served("a", 1), served("a", 2))
    pid = kept.until_ready("a", 1)["pid"]
    kept.until_ready("a", 2)
    want(kept.home, served("a", 2))
    kept.until(lambda: state_of(kept.home, "a", 1)["state"] == "leaving")
    slow = begun(kept.home, "a", 1.0, version=1)
    assert call(kept.home, "a", version=1)["pid"] == pid, "who has it as the way still may ask"
    kept.clock.ahead += keeper_worker.GRACE
    kept.step()
    assert not kept.home.model_socket(worker_of("a", 1)).exists()
    assert state_of(kept.home, "a", 1)["state"] == "leaving"
    assert answered(slow)["pid"] == pid
    kept.until(lambda: worker_of("a", 1) not in read_states(kept.home.models_state))
    assert not is_alive(pid)
    assert is_ready(kept.home, "a", 2)


def test_a_worker_that_does_not_leave_is_killed_after_its_longest_run(kept: Kept) -> None:
    want(kept.home, served("deaf", run_millis=5_000))
    pid = kept.until_ready("deaf")["pid"]
    want(kept.home)
    kept.step()
    kept.clock.ahead += keeper_worker.GRACE
    kept.step()
    kept.clock.ahead += 5.0
    kept.step()
    assert is_alive(pid)
    kept.clock.ahead += keeper_worker.DRAIN_MARGIN
    kept.until(lambda: read_states(kept.home.models_state) == {})
    assert not is_alive(pid)


def test_a_model_that_is_wanted_again_in_time_keeps_its_process(kept: Kept) -> None:
    want(kept.home, served("a"))
    pid = kept.until_ready("a")["pid"]
    want(kept.home)
    kept.until(lambda: state_of(kept.home, "a")["state"] == "leaving")
    kept.clock.ahead += keeper_worker.GRACE - 2.0
    want(kept.home, served("a"))
    kept.step()
    kept.clock.ahead += keeper_worker.GRACE
    kept.step()
    assert state_of(kept.home, "a")["state"] == "ready"
    assert call(kept.home, "a")["pid"] == pid


def test_a_model_that_is_wanted_again_too_late_gets_a_new_process(kept: Kept) -> None:
    want(kept.home, served("a"))
    pid = kept.until_ready("a")["pid"]
    slow = begun(kept.home, "a", 1.0)
    call(kept.home, "a")  # accepted after it
    want(kept.home)
    kept.step()
    kept.clock.ahead += keeper_worker.GRACE
    kept.step()
    want(kept.home, served("a"))
    after = kept.until_ready("a")
    assert call(kept.home, "a")["pid"] == after["pid"] != pid
    assert answered(slow)["pid"] == pid


def test_a_worker_that_was_never_ready_leaves_at_once(kept: Kept) -> None:
    want(kept.home, served("mute"))
    kept.until(lambda: worker_of("mute") in read_states(kept.home.models_state))
    pid = state_of(kept.home, "mute")["pid"]
    want(kept.home)
    kept.step()
    assert kept.keeper._workers == {}, "no call can be under way"
    kept.until(lambda: read_states(kept.home.models_state) == {})
    assert not is_alive(pid)


def test_without_the_runtime_the_state_says_so_and_no_process_is_started(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(format_: str) -> Path:
        raise ConfigError("runtime_missing", "the package onnxruntime is not installed")

    monkeypatch.setattr(keeper, "library_of", missing)
    kept = Kept(home)
    kept.keeper = keeper.Keeper(keeper.Options(home, COMMAND), kept.clock)
    want(home, served("a"))
    kept.step()
    state = state_of(home, "a")
    assert (state["state"], state["pid"]) == ("failed", None)
    assert state["error"] == {
        "code": "runtime_missing",
        "message": "the package onnxruntime is not installed",
    }
    monkeypatch.setattr(keeper, "library_of", lambda format_: LIBRARY)
    kept.until_ready("a")
    kept.keeper.stop()


def test_a_model_that_is_described_too_long_for_a_process_fails_alone(kept: Kept) -> None:
    want(kept.home, {**served("long"), "inputs": "x" * 200_000}, served("a"))
    kept.until_ready("a")
    assert state_of(kept.home, "long")["state"] == "failed"
    assert "too long" in (state_of(kept.home, "long")["error"] or {})["message"]


def test_a_socket_that_cannot_be_made_is_a_failure_of_its_model_alone(kept: Kept) -> None:
    kept.home.model_socket(worker_of("b")).mkdir()
    want(kept.home, served("b"), served("a"))
    kept.until_ready("a")
    assert state_of(kept.home, "b")["state"] == "failed"
    kept.home.model_socket(worker_of("b")).rmdir()
    kept.until_ready("b")


IDLE = {"idleMillis": 60_000}


def until_idle(kept: Kept, name: str) -> None:
    """Has the worker end as one that nobody asks, and waits for that."""
    pid = state_of(kept.home, name)["pid"]
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    kept.until(lambda: state_of(kept.home, name)["state"] == "idle")


def test_a_model_that_nobody_asks_has_no_process_and_who_asks_starts_it(kept: Kept) -> None:
    kept.step()  # what is wanted from then on is new
    want(kept.home, served("a", **IDLE), served("b"))
    kept.until_ready("b")
    before = kept.until_ready("a")["pid"]
    until_idle(kept, "a")
    state = state_of(kept.home, "a")
    assert (state["pid"], state["restarts"], state["error"]) == (None, 0, None)
    assert not is_alive(before)
    kept.clock.ahead += 3_600.0
    kept.step()
    assert state_of(kept.home, "a")["state"] == "idle"
    with begun(kept.home, "a", 0.0) as waiting:
        kept.until(lambda: is_ready(kept.home, "a"))
        assert answered(waiting)["pid"] == state_of(kept.home, "a")["pid"] != before
    assert state_of(kept.home, "a")["restarts"] == 0


def test_one_that_is_always_to_be_there_is_started_again_though_it_ended_in_order(
    kept: Kept,
) -> None:
    want(kept.home, served("a"))
    pid = kept.until_ready("a")["pid"]
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    kept.until(lambda: state_of(kept.home, "a")["state"] == "failed")
    kept.until_ready("a")


def test_callers_wait_for_a_cold_start_as_long_as_is_said_and_no_longer(kept: Kept) -> None:
    go = kept.home.root / "go"
    go.touch()
    kept.step()
    want(kept.home, served("held", **IDLE))
    kept.until_ready("held")
    until_idle(kept, "held")
    go.unlink()
    waiting = asked(kept.home, "held")
    kept.step()
    assert state_of(kept.home, "held")["state"] == "starting"
    kept.step()
    [worker] = kept.keeper._workers.values()
    assert worker.visitors.descriptors() == [], "it waits in the kernel, for whoever takes it"
    due = worker.due()
    assert due is not None
    assert due <= kept.clock() + keeper_worker.COLD_START
    kept.clock.ahead += keeper_worker.COLD_START
    kept.step()
    assert refused(waiting) == "the model is being loaded"
    go.touch()
    kept.until_ready("held")


def test_an_idle_model_that_does_not_start_is_tried_again_as_any_other(kept: Kept) -> None:
    kept.step()
    want(kept.home, served("a", **IDLE))
    kept.until_ready("a")
    until_idle(kept, "a")
    kept.keeper._options = keeper.Options(kept.home, ["/nowhere"], LIBRARY)
    with asked(kept.home, "a"):
        kept.until(lambda: state_of(kept.home, "a")["state"] == "failed")
    kept.keeper._options = keeper.Options(kept.home, COMMAND, LIBRARY)
    kept.clock.ahead += 60.0
    kept.until_ready("a")


def test_an_idle_model_that_is_wanted_no_more_may_be_asked_for_ten_seconds(kept: Kept) -> None:
    kept.step()
    want(kept.home, served("a", **IDLE))
    kept.until_ready("a")
    until_idle(kept, "a")
    want(kept.home)
    kept.step()
    with begun(kept.home, "a", 0.0) as waiting:
        kept.until(lambda: state_of(kept.home, "a")["pid"] is not None)
        kept.until(lambda: kept.keeper._workers[worker_of("a")].serving() is not None)
        assert answered(waiting)["pid"]
    kept.clock.ahead += keeper_worker.GRACE
    kept.until(lambda: read_states(kept.home.models_state) == {})
    assert not kept.home.model_socket(worker_of("a")).exists()
