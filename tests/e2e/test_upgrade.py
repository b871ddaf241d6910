"""The engine is replaced under load: no request fails, none is left without a record, and nothing counted is lost."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.e2e import tokens
from tests.e2e.caller import Caller
from tests.e2e.conftest import StartNode
from tests.e2e.load import Load
from tests.e2e.node import Node, wait_until
from tests.e2e.wire import HTTP_1, HTTP_2, Answer, Http2, connect, read_head, send, tls_context
from tests.guests import Guests
from tests.simulators.service import Service

from vedette.control.activate import Activator
from vedette.control.bootstrap import open_keys, read_facts
from vedette.engine.client import EngineClient
from vedette.engine.native import load_native
from vedette.store.history import History
from vedette.store.home import Home

UPGRADES = 3
BODY = bytes(range(256)) * 40

LIMITED = """\
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: counted}
spec:
  public: true
  rules:
    - matches: [{path: {value: /counted}}]
      static: {body: ok}
---
apiVersion: vedette.dev/v1alpha1
kind: Limit
metadata: {name: month}
spec: {routes: [counted], quota: 40/month}
"""

OPEN = """\
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: open}
spec:
  public: true
  rules: [{static: {body: hello}}]
"""

TALKING = """\
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: talk}}
spec: {{url: "http://127.0.0.1:{port}"}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: talk}}
spec:
  public: true
  rules:
    - matches: [{{path: {{value: /talk}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: talk}}]
"""


@pytest.fixture(scope="module")
def own(start_node: StartNode, guests: Guests) -> Iterator[Node]:
    """A node whose engine may be replaced."""
    node = start_node()
    node.deploy(guests.hello, "hello")
    node.deploy(guests.hostile, "hostile")
    yield node
    node.stop()


class Client:
    """A client in a thread of its own that asks again as soon as it has its answer; keeps ids and failures."""

    def __init__(self, ask: Callable[[], Iterator[Answer]]) -> None:
        self.ids: list[str] = []
        self.failures: list[str] = []
        self.connections = 0
        self._ask = ask
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self.connections += 1
            try:
                for answer in self._ask():
                    self._take(answer)
                    if self._stopped.is_set():
                        return
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.failures.append(repr(error))

    def _take(self, answer: Answer) -> None:
        if answer.status == 200 and answer.complete and answer.body == BODY:
            self.ids.append(answer.request_id)
        else:
            self.failures.append(repr(answer)[:300])

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()


def kept_http_1(node: Node, pause: float = 0.0) -> Iterator[Answer]:
    """One HTTP/1.1 connection with requests one after the other, until an answer says that it is the last."""
    context = tls_context(node.ca_file, HTTP_1)
    endpoint = node.endpoint
    connection = http.client.HTTPSConnection(
        "localhost", endpoint.port, context=context, timeout=20
    )
    connection.connect()
    try:
        while True:
            headers = {
                "authorization": f"Bearer {node.usual_token}",
                "content-type": "application/octet-stream",
            }
            connection.request("POST", "/hostile/echo", BODY, headers)
            response = connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            yield Answer(response.status, fields, response.read())
            if fields.get("connection") == "close":
                return
            time.sleep(pause)
    finally:
        connection.close()


def kept_http_2(node: Node) -> Iterator[Answer]:
    """One HTTP/2 connection with requests one after the other, until the node says that it takes no more."""
    with connect(node.endpoint, HTTP_2) as secured:
        connection = Http2(secured)
        while not connection.leaving:
            number = connection.request(
                [
                    (":method", "POST"),
                    (":scheme", "https"),
                    (":authority", node.endpoint.authority),
                    (":path", "/hostile/echo"),
                    ("authorization", f"Bearer {node.usual_token}"),
                    ("content-type", "application/octet-stream"),
                ],
                BODY,
            )
            yield connection.answer(number)


def upgrade(node: Node) -> dict[str, object]:
    told: dict[str, object] = json.loads(node.run("upgrade", "--json").stdout)
    return told


def test_no_request_fails_while_the_engine_is_replaced(own: Node) -> None:
    assert own.usual_token
    assert own.endpoint
    clients = [
        Client(lambda: kept_http_1(own)),
        Client(lambda: kept_http_1(own)),
        Client(lambda: kept_http_1(own, pause=0.8)),
        Client(lambda: kept_http_2(own)),
        Client(lambda: kept_http_2(own)),
    ]
    engines = [own.pid("engine")]
    with clients[0], clients[1], clients[2], clients[3], clients[4], Load(own, HTTP_1, 1) as load:
        wait_until("the load runs", lambda: all(client.ids for client in clients))
        for _ in range(UPGRADES):
            told = upgrade(own)
            assert told["engineBefore"] == engines[-1]
            engines.append(own.pid("engine"))
            assert told["engine"] == engines[-1]
            time.sleep(0.5)
    assert len(set(engines)) == UPGRADES + 1
    assert [failure for client in clients for failure in client.failures] == []
    assert [outcome for outcome in load.outcomes if outcome.status != 200] == []
    for client in clients:
        assert client.connections == UPGRADES + 1, "a connection ended that need not have"
    ids = [name for client in clients for name in client.ids]
    ids += [outcome.request_id for outcome in load.outcomes]
    print(f"{len(ids)} requests over {UPGRADES} upgrades")
    recorded = [line["requestId"] for line in own.requests.lines()]
    assert len(recorded) == len(set(recorded)), "a request was recorded twice"
    assert set(ids) - set(recorded) == set()


def test_a_request_under_way_is_finished_by_the_engine_that_leaves(
    own: Node, protocol: str
) -> None:
    caller = Caller(own, protocol)
    before = own.log_lines("hostile").count("chunk 1")
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(caller.send, "/hostile/slow-stream?20")
        wait_until("the guest runs", lambda: own.log_lines("hostile").count("chunk 1") > before)
        upgrade(own)
        answer = slow.result()
    assert (answer.status, answer.complete) == (200, True)
    assert answer.body.endswith(b"chunk 19\n")
    assert own.record(answer.request_id)["outcome"] == "served"
    caller.close()


def test_what_is_revoked_meanwhile_is_refused_by_the_engine_that_leaves(own: Node) -> None:
    token = own.token("mallory")
    headers = {"authorization": f"Bearer {token}"}
    old = own.pid("engine")
    context = tls_context(own.ca_file, HTTP_1)
    kept = http.client.HTTPSConnection("localhost", own.endpoint.port, context=context, timeout=20)
    kept.request("GET", "/hello", headers=headers)
    assert kept.getresponse().read()
    with ThreadPoolExecutor(1) as pool:
        replaced = pool.submit(upgrade, own)
        wait_until("another engine is in charge", lambda: _engine_in_charge(own) not in (None, old))
        own.run("token", "revoke", tokens.parts_of(token)[1]["jti"])
        time.sleep(0.2)
        assert os.path.exists(f"/proc/{old}"), "the old engine waits for a last request"
        kept.request("GET", "/hello", headers=headers)
        response = kept.getresponse()
        assert (response.status, response.getheader("connection")) == (401, "close")
        response.read()
        replaced.result()
    kept.close()


def _engine_in_charge(node: Node) -> int | None:
    with node.engine() as engine:
        status = engine.get("/status").json()
    return None if status["draining"] else int(status["pid"])


def test_a_tunnel_goes_on_until_the_old_engine_has_waited_for_it(own: Node, tmp_path: Path) -> None:
    service, manifest = Service("talk"), tmp_path / "talk.yaml"
    manifest.write_text(TALKING.format(port=service.port), "utf-8")
    own.run("apply", "--yes", "-f", str(manifest))
    old = own.pid("engine")
    with connect(own.endpoint, HTTP_1) as tunnel, ThreadPoolExecutor(1) as pool:
        tunnel.sendall(
            b"GET /talk HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n"
        )
        head = read_head(tunnel)
        assert head.startswith("http/1.1 101 ")
        replaced = pool.submit(upgrade, own)
        wait_until("another engine is in charge", lambda: _engine_in_charge(own) not in (None, old))
        tunnel.sendall(b"still here")
        assert tunnel.recv(100) == b"still here"
        replaced.result()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            assert tunnel.recv(100) == b""
    record = own.record(head.split("x-request-id: ")[1].split("\r\n")[0])
    assert (record["status"], record["outcome"], record["bytesIn"]) == (101, "aborted", 10)
    service.close()


def test_a_quota_is_counted_across_engines(own: Node, tmp_path: Path) -> None:
    (tmp_path / "limited.yaml").write_text(LIMITED, "utf-8")
    own.run("apply", str(tmp_path), "--yes")
    caller = Caller(own, HTTP_1)
    statuses = [caller.ask("/counted", anonymous=True).status for _ in range(20)]
    upgrade(own)
    statuses += [caller.ask("/counted", anonymous=True).status for _ in range(30)]
    assert statuses == [200] * 40 + [429] * 10
    caller.close()


def test_control_alone_is_replaced_and_the_engine_does_not_notice(own: Node) -> None:
    before = own.status()["processes"]
    own.run("upgrade", "--control-only")
    after = own.status()["processes"]
    assert after["engine"] == before["engine"]
    assert after["control"]["pid"] != before["control"]["pid"]


def test_an_engine_that_would_serve_nothing_does_not_take_over(own: Node, protocol: str) -> None:
    key = own.path("engine", "signing.pub")
    aside = key.with_name("aside.pub")
    old = own.pid("engine")
    shutil.move(key, aside)
    try:
        done = own.run("upgrade", check=False)
    finally:
        shutil.move(aside, key)
    assert done.returncode == 4
    assert "signing.pub" in done.stderr
    assert own.pid("engine") == old
    caller = Caller(own, protocol)
    assert caller.ask("/hello").status == 200
    caller.close()


def test_a_new_engine_that_is_killed_as_soon_as_it_serves_is_started_again(own: Node) -> None:
    old = own.pid("engine")
    idle = Caller(own, HTTP_1)  # keeps the old engine, and so the upgrade, for some seconds
    assert idle.ask("/hello").status == 200
    with ThreadPoolExecutor(1) as pool:
        replaced = pool.submit(own.run, "upgrade", check=False)
        wait_until("another engine is in charge", lambda: _engine_in_charge(own) not in (None, old))
        new = _engine_in_charge(own)
        assert new is not None
        os.kill(new, signal.SIGKILL)
        done = replaced.result()
    assert done.returncode == 4
    assert "was started again" in done.stderr
    wait_until("an engine serves", lambda: _engine_in_charge(own) not in (None, old, new))
    caller = Caller(own, HTTP_1)
    assert caller.ask("/hello").status == 200
    caller.close()
    idle.close()


def test_a_node_from_before_the_firewall_has_it_after_an_upgrade(start_node: StartNode) -> None:
    node = start_node()
    home = Home(node.home)
    facts = read_facts(home)
    assert facts is not None
    activator = Activator(
        home,
        History(home.database),
        open_keys(home, facts),
        EngineClient(home.engine_socket),
        load_native(),
    )
    activator.change(lambda active: active.with_(waf=None, addresses=None), "from before", "test")
    attack = "/?q=<script>alert(1)</script>".replace("<", "%3C").replace(">", "%3E")
    manifest = home.root / "open.yaml"
    manifest.write_text(OPEN, "utf-8")
    node.run("apply", "--yes", "-f", str(manifest))
    assert send(node.endpoint, HTTP_1, attack).status == 200
    told = node.run("upgrade").stdout
    assert "new      requests are inspected now: Core Rule Set" in told
    assert "new      addresses have the countries" in told
    assert send(node.endpoint, HTTP_1, attack).status == 403
    assert node.status()["countries"]["networks"] > 200_000
    assert "new " not in node.run("upgrade").stdout
    node.run("rollback")
    assert send(node.endpoint, HTTP_1, attack).status == 200
