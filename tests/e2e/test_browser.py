"""A browser at the node: a page from a tree of files that calls a function and a service, and talks over a WebSocket.

The page tells the service what it has seen. Skipped with a message where there is no Chromium.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.e2e.conftest import StartNode
from tests.e2e.node import GREETING, Node, wait_until
from tests.e2e.wire import HTTP_2, tls_context
from tests.guests import Guests
from tests.simulators.service import Service
from tests.simulators.websocket_service import WebSocketService

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here (apt-get install chromium)"
)

MANIFEST = """\
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: talk}}
spec: {{url: "http://127.0.0.1:{talk}"}}
---
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: plain}}
spec: {{url: "http://127.0.0.1:{plain}"}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: site}}
spec:
  public: true
  rules:
    - matches: [{{path: {{value: /talk}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: talk}}]
    - matches: [{{path: {{value: /api}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: plain}}]
    - matches: [{{path: {{value: /}}}}]
      files: {{folder: site}}
---
apiVersion: vedette.dev/v1alpha1
kind: Node
metadata: {{name: edge}}
spec: {{challenge: {{wait: 2s}}}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: guarded}}
spec:
  public: true
  challenge: always
  rules:
    - matches: [{{path: {{value: /guarded}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: plain}}]
"""

PAGE = """\
<!doctype html><title>at work</title><body>
<script src="steps.js"></script>
"""

STEPS = """\
const seen = {};
async function ask(url, options) {
  const answer = await fetch(url, options);
  return [answer.status, await answer.text()];
}
async function talk() {
  const socket = new WebSocket(`wss://${location.host}/talk`, ["chat"]);
  return new Promise((done, fail) => {
    socket.onopen = () => socket.send("words");
    socket.onmessage = (message) => { socket.close(); done(message.data); };
    socket.onerror = () => fail("the socket failed");
  });
}
(async () => {
  try {
    seen.function = await ask("/hello", {headers: {authorization: "Bearer TOKEN"}});
    seen.refused = (await ask("/hello"))[0];
    const file = new Blob(["x".repeat(300000)], {type: "application/octet-stream"});
    seen.posted = (await ask("/api/echo", {method: "POST", body: file}))[0];
    seen.talk = await talk();
    seen.protocol = performance.getEntriesByType("navigation")[0].nextHopProtocol;
  } catch (error) { seen.error = String(error); }
  await fetch("/api/seen", {method: "POST", body: JSON.stringify(seen)});
})();
"""


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """What the page calls."""
    service = Service("plain")
    yield service
    service.close()


@pytest.fixture(scope="module")
def site(
    start_node: StartNode,
    guests: Guests,
    service: Service,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Node]:
    """A node with a page, a function that wants a token, and two services."""
    talk = WebSocketService()
    node = start_node()
    node.deploy(guests.hello, "hello")
    folder = tmp_path_factory.mktemp("browser")
    (folder / "site").mkdir()
    (folder / "site" / "index.html").write_text(PAGE, "utf-8")
    (folder / "site" / "steps.js").write_text(STEPS.replace("TOKEN", node.usual_token), "utf-8")
    manifest = MANIFEST.format(talk=talk.port, plain=service.port)
    (folder / "site.yaml").write_text(manifest, "utf-8")
    node.run("apply", "--yes", "-f", str(folder / "site.yaml"))
    yield node
    talk.close()


def _key_of(node: Node) -> str:
    """The hash by which Chromium is told to trust this one key (RFC 7469 §2.4)."""
    context = tls_context(node.ca_file, HTTP_2)
    address = (node.endpoint.host, node.endpoint.port)
    with (
        socket.create_connection(address, timeout=20) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        der = secured.getpeercert(binary_form=True)
    assert der is not None
    key = x509.load_der_x509_certificate(der).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(spki).digest()).decode()


@contextlib.contextmanager
def _browser(node: Node, profile: Path, path: str = "/", *more: str) -> Iterator[None]:
    """Chromium at a page of the node, for as long as the block runs."""
    assert CHROMIUM is not None
    flags = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        f"--user-data-dir={profile}",
        f"--ignore-certificate-errors-spki-list={_key_of(node)}",
        *more,
    ]
    url = f"https://localhost:{node.endpoint.port}{path}"
    process = subprocess.Popen(
        [CHROMIUM, *flags, url],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _told(service: Service) -> Any:
    """What the page told the service."""
    until = time.monotonic() + 150
    while time.monotonic() < until:
        for asked in service.asked:
            if asked.target == "/api/seen":
                return json.loads(asked.body)
        time.sleep(0.1)
    pytest.fail(f"the page told nothing; it asked {[each.target for each in service.asked]}")


def test_a_page_calls_a_function_and_a_service_and_talks(
    site: Node, service: Service, tmp_path: Path
) -> None:
    with _browser(site, tmp_path / "profile"):
        seen = _told(service)
    assert seen == {
        "function": [200, GREETING.decode()],
        "refused": 401,
        "posted": 200,
        "talk": "words",
        "protocol": "h2",
    }


@pytest.mark.parametrize("script", ["with", "without"])
def test_a_browser_passes_the_challenge_with_a_script_and_without_one(
    site: Node, service: Service, tmp_path: Path, script: str
) -> None:
    more = [] if script == "with" else ["--blink-settings=scriptEnabled=false"]
    target = f"/guarded/{script}?a=1&b=%20"
    with _browser(site, tmp_path / "profile", target, *more):
        asked = wait_until(
            "the page behind it is asked for",
            lambda: [each for each in service.asked if each.target == target],
            150,
        )
    assert "vedette-pass-" not in asked[0].headers.get("cookie", "")
    records = [line for line in site.requests.lines() if line["path"] == f"/guarded/{script}"]
    assert [line.get("cause") for line in records] == ["challenge_required", None]
