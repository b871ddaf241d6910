"""HTTP/2 as RFC 9113 and RFC 7541 have it: h2spec, against a node whose route has a service that reads bodies.

`make h2spec` builds the program.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node
from tests.simulators.recorder import Recorder

PROGRAM = (
    Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vedette/h2spec/h2spec"
)
CASES = 145


@pytest.fixture(scope="module")
def reader() -> Iterator[Recorder]:
    """A service that reads every body to its end before it answers."""
    recorder = Recorder()
    yield recorder
    recorder.close()


@pytest.fixture(scope="module")
def edge(start_node: StartNode, reader: Recorder, tmp_path_factory: pytest.TempPathFactory) -> Node:
    """A node in front of it."""
    node = start_node()
    node.send_all_to(reader.port, tmp_path_factory.mktemp("h2spec"))
    return node


def test_http_2_is_as_the_rfcs_have_it(edge: Node, reader: Recorder, tmp_path: Path) -> None:
    if not PROGRAM.exists():
        pytest.fail(f"{PROGRAM} does not exist: run `make h2spec`", pytrace=False)
    report = tmp_path / "h2spec.xml"
    done = subprocess.run(
        # The certificate is checked by every other test; h2spec knows no other authority than the machine's.
        [
            *(PROGRAM, "-t", "-k", "-h", "localhost", "-p", str(edge.endpoint.port)),
            *("--timeout", "5", "--junit-report", report),
        ],
        capture_output=True,
        text=True,
        timeout=480,
        check=False,
    )
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = [
        f"{case.get('package')}: {case.get('classname')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    assert len(cases) == CASES, done.stdout[-2_000:]
    assert failed == []
    assert reader.messages, "no request reached the service"
    assert reader.complaints == []
