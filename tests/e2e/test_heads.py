"""The largest request heads that can be allowed are read, over both protocols."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node
from tests.e2e.wire import HTTP_1, HTTP_2, send

EDGE = """\
apiVersion: vedette.dev/v1alpha1
kind: Node
metadata: {name: edge}
spec: {limits: {headers: 1000, headerSize: 1MB, uriSize: 64KB}, waf: {mode: "off"}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: open}
spec:
  public: true
  rules: [{matches: [{path: {value: /open}}], static: {body: hello}}]
"""


@pytest.fixture(scope="module")
def roomy(start_node: StartNode) -> Iterator[Node]:
    node = start_node()
    node.apply(EDGE)
    yield node
    node.stop()


@pytest.mark.parametrize("protocol", [HTTP_1, HTTP_2])
@pytest.mark.parametrize(
    ("fields", "value", "status"),
    [(900, "x", 200), (1_100, "x", 431), (60, "x" * 16_000, 200), (70, "x" * 16_000, 431)],
    ids=["many", "too many", "large", "too large"],
)
def test_a_head_may_be_as_large_as_the_node_says(
    roomy: Node, protocol: str, fields: int, value: str, status: int
) -> None:
    head = [(f"x-filler-{number}", value) for number in range(fields)]
    answer = send(roomy.endpoint, protocol, "/open?" + "q" * 60_000, headers=head)
    assert answer.status == status
