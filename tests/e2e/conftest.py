"""One node for most end-to-end tests, and a caller for each protocol.

Owns: which functions the shared node has. A test that stops processes, fills disks or changes the node as a whole
starts a node of its own with `start_node`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.e2e.caller import Caller
from tests.e2e.node import PROGRAM, Node, new_home
from tests.e2e.wire import HTTP_1, HTTP_2
from tests.guests import Guests
from tests.simulators.origin import Origin, running_origin

# Every limit set, so that each is known to be settable, and low, so that the tests are quick.
TIGHT = """\
apiVersion: vedette.dev/v1alpha1
kind: Function
metadata:
  name: tight
spec:
  component: hostile.wasm
  env:
    GREETING: hello there
  config:
    color: amber
  limits:
    cpu: 200ms
    memory: 16MB
    timeout: 600ms
    requestSize: 64KB
    responseSize: 64KB
    concurrency: 2
"""

StartNode = Callable[..., Node]


@pytest.fixture(scope="module")
def start_node() -> Iterator[StartNode]:
    """Starts nodes of a module's or a test's own: `start_node(*flags)`. All are stopped and removed with the module."""
    with ExitStack() as started:
        yield lambda *flags: started.enter_context(_node(*flags))


@pytest.fixture(scope="session")
def node(guests: Guests, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """The shared node. Afterwards its spool must hold no request twice."""
    with _node("--name", "edge-test") as node:
        node.deploy(guests.hello, "hello")
        node.deploy(guests.hello, "open", "--public")
        node.deploy(guests.hostile, "hostile")
        node.deploy(guests.hostile, "mirror", "--public")
        node.deploy_project(tight_project(guests, tmp_path_factory.mktemp("tight")))
        yield node
        ids = [line["requestId"] for line in node.requests.lines()]
        assert len(ids) == len(set(ids)), "a request was recorded twice"


@contextmanager
def _node(*flags: str) -> Iterator[Node]:
    if not PROGRAM.exists():
        pytest.fail(f"{PROGRAM} does not exist: run the tests with `make test`", pytrace=False)
    node = Node(new_home(), flags)
    try:
        yield node.start()
    finally:
        node.discard()


def tight_project(guests: Guests, folder: Path) -> Path:
    """A project folder whose manifest sets every limit."""
    (folder / "vedette.yaml").write_text(TIGHT, "utf-8")
    shutil.copy(guests.hostile, folder / "hostile.wasm")
    return folder


@pytest.fixture(scope="module")
def lone(start_node: StartNode) -> Node:
    """A node of the module's own."""
    return start_node()


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    """A server for others to call."""
    with running_origin() as origin:
        yield origin


@pytest.fixture(params=[HTTP_1, HTTP_2])
def protocol(request: pytest.FixtureRequest) -> str:
    """Each end-to-end test runs over both."""
    return str(request.param)


@pytest.fixture
def caller(node: Node, protocol: str) -> Iterator[Caller]:
    """A client of the shared node."""
    caller = Caller(node, protocol)
    yield caller
    caller.close()
