"""Instances are used again only where a manifest says so, within its count and age, and never after a failure."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.e2e.caller import Caller
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node
from tests.guests import Guests

MANIFEST = """\
apiVersion: vedette.dev/v1alpha1
kind: Function
metadata:
  name: {name}
spec:
  component: guest.wasm
  limits:
    cpu: 300ms
    memory: 32MB
    timeout: 1s
    concurrency: 64
  reuse:
    maxRequests: {count}
    maxAge: {age}
"""


@pytest.fixture(scope="module")
def node(start_node: StartNode, guests: Guests) -> Node:
    """A node with one worker: each worker keeps instances of its own."""
    node = start_node("--workers", "1")
    node.deploy(guests.hello, "hello")
    return node


class Reused:
    """Deploys guests with a manifest that asks for reuse."""

    def __init__(self, node: Node, folder: Path) -> None:
        self._node = node
        self._folder = folder

    def deploy(self, guest: Path, name: str, count: int = 1_000, age: str = "1h") -> str:
        project = self._folder / name
        project.mkdir(exist_ok=True)
        text = MANIFEST.format(name=name, count=count, age=age)
        (project / "vedette.yaml").write_text(text, "utf-8")
        shutil.copy(guest, project / "guest.wasm")
        self._node.deploy_project(project)
        return name


@pytest.fixture
def reused(node: Node, tmp_path: Path) -> Reused:
    """See `Reused`."""
    return Reused(node, tmp_path)


@pytest.fixture(params=["hostile", "service"])
def guest(request: pytest.FixtureRequest, guests: Guests) -> Path:
    """A guest of WASI 0.2 and one of WASI 0.3; both count."""
    return Path(getattr(guests, request.param))


def _name(caller: Caller, guest: Path, what: str) -> str:
    return f"{what}-{guest.stem}-{'h2' if caller.protocol != 'HTTP/1.1' else 'h1'}"


def _count(caller: Caller, name: str, behaviour: str = "counter") -> int:
    answer = caller.ask(f"/{name}/{behaviour}")
    assert answer.status == 200, answer
    return int(answer.body)


def test_instances_are_fresh_by_default(caller: Caller, node: Node, guest: Path) -> None:
    name = _name(caller, guest, "fresh")
    node.deploy(guest, name)
    assert [_count(caller, name) for _ in range(5)] == [1] * 5


def test_instances_are_used_again_where_asked_for(
    caller: Caller, reused: Reused, guest: Path
) -> None:
    name = reused.deploy(guest, _name(caller, guest, "again"))
    assert [_count(caller, name) for _ in range(5)] == [1, 2, 3, 4, 5]


def test_the_count_holds(caller: Caller, reused: Reused, guest: Path) -> None:
    name = reused.deploy(guest, _name(caller, guest, "three"), count=3)
    assert [_count(caller, name) for _ in range(7)] == [1, 2, 3, 1, 2, 3, 1]


def test_the_age_holds(caller: Caller, reused: Reused, guest: Path) -> None:
    name = reused.deploy(guest, _name(caller, guest, "young"), age="300ms")
    assert _count(caller, name) == 1
    time.sleep(0.4)
    assert _count(caller, name) == 1


def test_a_new_plan_drops_kept_instances(caller: Caller, reused: Reused, guest: Path) -> None:
    name = _name(caller, guest, "replaced")
    reused.deploy(guest, name)
    assert [_count(caller, name) for _ in range(2)] == [1, 2]
    reused.deploy(guest, name, count=999)
    assert _count(caller, name) == 1


@pytest.mark.parametrize("fault", ["trap-before", "trap-mid-body", "loop", "never", "alloc"])
def test_an_instance_that_failed_is_not_used_again(
    caller: Caller, reused: Reused, guest: Path, fault: str
) -> None:
    name = reused.deploy(guest, _name(caller, guest, fault))
    assert [_count(caller, name) for _ in range(2)] == [1, 2]
    failed = caller.send(f"/{name}/{fault}")
    assert failed.status >= 500 or not failed.complete
    assert _count(caller, name) == 1
    caller.expect_neighbour_served()


def test_a_guest_that_was_refused_memory_is_not_used_again(
    caller: Caller, reused: Reused, guests: Guests
) -> None:
    name = reused.deploy(guests.hostile, _name(caller, guests.hostile, "greedy"))
    assert _count(caller, name) == 1
    assert caller.ask(f"/{name}/alloc-politely").status == 200
    assert _count(caller, name) == 1


def test_a_guest_that_keeps_its_request_is_not_used_again(
    caller: Caller, reused: Reused, guests: Guests
) -> None:
    name = reused.deploy(guests.hostile, _name(caller, guests.hostile, "keeper"))
    assert [_count(caller, name, "keep-request") for _ in range(3)] == [1, 1, 1]


def test_the_memory_of_kept_instances_is_bounded(
    caller: Caller, reused: Reused, guests: Guests
) -> None:
    name = reused.deploy(guests.hostile, _name(caller, guests.hostile, "growing"))
    statuses = [caller.ask(f"/{name}/grow?8").status for _ in range(8)]
    assert 500 in statuses, "32 MiB hold no 64"
    assert statuses[:2] == [200, 200]
    assert _count(caller, name) <= 8


def test_a_log_line_belongs_to_the_request_that_wrote_it(
    caller: Caller, node: Node, reused: Reused, guests: Guests
) -> None:
    """The stream outlives the request; a line without its end must not become part of the next caller's."""
    name = reused.deploy(guests.hostile, _name(caller, guests.hostile, "half"))
    asked = [caller.ask(f"/{name}/half-line?{word}") for word in ("one", "two")]
    assert [int(each.body) for each in asked] == [1, 2]
    for answer, word in zip(asked, ("one", "two"), strict=True):
        [line] = node.logs.wait_for(lambda line, it=answer: line["requestId"] == it.request_id)
        assert line["message"] == word


def test_an_instance_serves_one_request_at_a_time(
    caller: Caller, reused: Reused, guest: Path
) -> None:
    name = reused.deploy(guest, _name(caller, guest, "busy"))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: caller.send(f"/{name}/slow-stream?4"), range(8)))
    assert all(each.body.count(b"chunk") == 4 for each in answers)
    served = [_count(caller, name) for _ in range(4)]
    assert served == list(range(served[0], served[0] + 4))
