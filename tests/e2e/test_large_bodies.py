"""A gibibyte sent and the same gibibyte back, by curl, through a function and a service: whole, and in flat memory.

Where each protocol has passed a gibibyte once, the other two ways pass a sixteenth of it.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import threading
from collections.abc import Iterator
from typing import IO

import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node
from tests.guests import Guests
from tests.simulators.service import Service

BLOCK = b"".join(hashlib.sha256(bytes([each])).digest() for each in range(256)) * 128
GIBIBYTE = 1024
MEMORY = 32 << 20
"""How much the engine may grow by while it passes."""

MANIFEST = """\
apiVersion: vedette.dev/v1alpha1
kind: Function
metadata: {{name: mirror}}
spec:
  component: mirror.wasm
  public: true
  limits: {{cpu: 60s, timeout: 90s, requestSize: 1GB, responseSize: 1GB}}
---
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: service}}
spec: {{url: "http://127.0.0.1:{port}"}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: service}}
spec:
  public: true
  rules:
    - matches: [{{path: {{value: /service}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: service}}]
"""


@pytest.fixture(scope="module")
def edge(
    start_node: StartNode, guests: Guests, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    """A node of its own: its memory is looked at."""
    service = Service("service")
    node = start_node()
    manifest = tmp_path_factory.mktemp("large") / "edge.yaml"
    shutil.copy(guests.hostile, manifest.with_name("mirror.wasm"))
    manifest.write_text(MANIFEST.format(port=service.port), "utf-8")
    node.run("apply", "--yes", "-f", str(manifest))
    yield node
    service.close()


@pytest.mark.parametrize(
    ("path", "version", "blocks"),
    [
        ("/mirror/echo", "--http1.1", GIBIBYTE),
        ("/service/pipe", "--http2", GIBIBYTE),
        ("/mirror/echo", "--http2", GIBIBYTE // 16),
        ("/service/pipe", "--http1.1", GIBIBYTE // 16),
    ],
)
def test_a_large_body_comes_back_whole_in_flat_memory(
    edge: Node, path: str, version: str, blocks: int
) -> None:
    before = edge.resident()
    with subprocess.Popen(
        [
            *("curl", "--silent", "--show-error", "--fail", "--max-time", "150", version),
            *(
                "--cacert",
                str(edge.ca_file),
                "--resolve",
                f"localhost:{edge.endpoint.port}:127.0.0.1",
            ),
            *("--header", "content-type: application/octet-stream", "--no-buffer"),
            *("--request", "POST", "--upload-file", "-", f"{edge.url}{path}"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as curl:
        assert curl.stdin
        assert curl.stdout
        assert curl.stderr
        writing = threading.Thread(target=_write, args=(curl.stdin, blocks))
        writing.start()
        most = before
        for number in range(blocks):
            assert curl.stdout.read(len(BLOCK)) == BLOCK, f"block {number} is another"
            if number % 16 == 0:
                most = max(most, edge.resident())
        assert curl.stdout.read() == b""
        writing.join()
        assert curl.wait(20) == 0, curl.stderr.read()
    assert most - before < MEMORY


def _write(pipe: IO[bytes], blocks: int) -> None:
    with pipe:
        for _ in range(blocks):
            pipe.write(BLOCK)
