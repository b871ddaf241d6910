"""Components of WASI 0.3: served like those of 0.2, with the same limits and the same ends."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.caller import Caller
from tests.e2e.conftest import TIGHT
from tests.e2e.node import Node, wait_until
from tests.guests import Guests


@pytest.fixture(scope="module", autouse=True)
def _deployed(node: Node, guests: Guests, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The guest with usual limits, and with low ones."""
    node.deploy(guests.service, "service")
    folder = tmp_path_factory.mktemp("tight3")
    (folder / "vedette.yaml").write_text(TIGHT.replace("name: tight", "name: tight3"), "utf-8")
    shutil.copy(guests.service, folder / "hostile.wasm")
    node.deploy_project(folder)


def test_it_answers(caller: Caller) -> None:
    answer = caller.ask("/service")
    assert answer.body == b"Hello from WASI 0.3\n"
    # Not said where the guest still runs when its head goes out; when it is, it is right.
    assert answer.headers.get("content-length", "20") == "20"
    assert caller.expect_recorded(answer, 200)["outcome"] == "served"


def test_it_is_told_who_calls(caller: Caller) -> None:
    lines = caller.ask("/service/headers", headers={"x-vedette-principal": "forged"}).body
    assert b"x-vedette-principal: " in lines
    assert b"forged" not in lines
    assert b"authorization" not in lines


@pytest.mark.parametrize("behaviour", ["echo", "copy"])
@pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
def test_bodies_stream_through(caller: Caller, behaviour: str, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    answer = caller.ask(f"/service/{behaviour}", method="POST", body=body)
    assert answer.body == body
    record = caller.expect_recorded(answer, 200)
    assert (record.get("bytesIn", 0), record["bytesOut"]) == (size, size)


def test_a_body_that_grows_too_large_is_refused(caller: Caller) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 4_096

    answer = caller.ask("/tight3/count", method="POST", body=pieces())
    caller.expect_refused(answer, 413, "execute", "request_too_large")


def test_an_answer_that_grows_too_large_is_cut_off(caller: Caller) -> None:
    assert len(caller.send("/tight3/big?65536").body) == 65_536
    answer = caller.send("/tight3/big?1000001")
    assert answer.status == 502 or not answer.complete
    assert len(answer.body) <= 65_536
    caller.expect_neighbour_served()


@pytest.mark.parametrize(
    ("behaviour", "status", "cause"),
    [
        ("loop", 504, "cpu_time_exceeded"),
        ("alloc", 500, "memory_exceeded"),
        ("never", 504, "wall_time_exceeded"),
        ("trap-before", 500, "function_trap"),
        ("error", 502, "response_invalid"),
    ],
)
def test_a_guest_that_gives_no_answer(
    caller: Caller, behaviour: str, status: int, cause: str
) -> None:
    answer = caller.ask(f"/tight3/{behaviour}")
    caller.expect_refused(answer, status, "execute", cause)


def test_a_guest_that_traps_mid_body_breaks_off_the_answer(caller: Caller) -> None:
    answer = caller.send("/service/trap-mid-body")
    assert (answer.status, answer.complete) == (200, False)
    record = caller.expect_recorded(answer, 200)
    assert (record["outcome"], record["cause"]) == ("failed", "function_trap")
    caller.expect_neighbour_served()


def test_a_guest_that_burns_on_after_its_answer_is_ended(caller: Caller) -> None:
    caller.send("/tight3/loop-after")
    caller.expect_neighbour_served()
    with caller.node.engine() as engine:
        wait_until("no request is in flight", lambda: engine.get("/status").json()["inFlight"] == 0)


@pytest.mark.parametrize("length", ["100", "5"])
def test_a_false_length_never_reaches_the_caller(caller: Caller, length: str) -> None:
    """GHSA-r8xh-cgf7-392j and its like: the next answer would be read as part of this one."""
    answer = caller.send(f"/service/false-length?{length}")
    if answer.complete:
        caller.expect_refused(answer, 502, "execute", "response_invalid")
    else:
        # The guest was made to wait between head and end, so that its head went out: the answer breaks off.
        assert answer.status in (0, 200), answer
        caller.expect_neighbour_served()


def test_trailers_pass_the_filter_of_header_fields(caller: Caller) -> None:
    """GHSA-jxcf-8qw5-5c33: trailers did not."""
    for behaviour in ("trailers", "bad-trailers"):
        answer = caller.send(f"/service/{behaviour}")
        assert (answer.status, answer.body) == (200, b"with trailers\n")
        assert caller.expect_recorded(answer, 200)["outcome"] == "served"
        assert "transfer-encoding" not in answer.headers or caller.protocol == "HTTP/1.1"


def test_a_client_that_leaves_stops_its_guest(node: Node, caller: Caller) -> None:
    def chunks() -> int:
        return len([line for line in node.log_lines("service") if line.startswith("chunk")])

    already = chunks()
    with caller.client.stream(
        "GET", "/service/slow-stream?200", headers=caller.authorization()
    ) as response:
        pieces = response.iter_raw()
        next(pieces)
        wait_until("two chunks are logged", lambda: chunks() >= already + 2)
    caller.close()
    logged = chunks()
    # Twenty chunks' time: a guest that still ran would have logged some of them.
    with pytest.raises(AssertionError):
        wait_until("more is logged", lambda: chunks() > logged + 1, timeout=1.0)


def test_the_engine_key_is_one_for_both(node: Node) -> None:
    """Compiled code of both lies in one folder, named by the settings of both engines."""
    folders = list(Path(node.path("engine", "compiled")).iterdir())
    assert len(folders) == 1
