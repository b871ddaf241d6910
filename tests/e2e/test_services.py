"""Services behind the node: what they are asked, what comes back, and what becomes of those that misbehave."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.caller import Caller
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node
from tests.e2e.wire import HTTP_1, connect
from tests.simulators.service import Service

MANIFEST = """\
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: one}}
spec:
  url: http://127.0.0.1:{one}
  timeouts: {{response: 1s}}
---
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: two}}
spec: {{url: "http://localhost:{two}"}} # a name: looked up by an engine that cannot read /etc
---
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: gone}}
spec: {{url: "http://127.0.0.1:1", outlier: {{ejection: 1h}}}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: services}}
spec:
  public: true
  rules:
    - matches: [{{path: {{value: /api}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: one}}]
    - matches: [{{path: {{value: /moved}}}}]
      filters:
        - type: URLRewrite
          urlRewrite:
            hostname: inside.example
            path: {{type: ReplacePrefixMatch, replacePrefixMatch: /v2}}
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: one}}]
    - matches: [{{path: {{value: /gone}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: gone}}]
    - matches: [{{path: {{value: /retried}}}}]
      retry: {{attempts: 2, codes: [503]}}
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: two}}]
    - matches: [{{path: {{value: /mirrored}}}}]
      filters:
        - type: RequestMirror
          requestMirror: {{backendRef: {{kind: Upstream, group: vedette.dev, name: two}}}}
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: one}}]
    - matches: [{{path: {{value: /split}}}}]
      backendRefs:
        - {{kind: Upstream, group: vedette.dev, name: one, weight: 1}}
        - {{kind: Upstream, group: vedette.dev, name: two, weight: 1}}
"""


@pytest.fixture(scope="module")
def services() -> Iterator[tuple[Service, Service]]:
    """Two services."""
    pair = Service("one"), Service("two")
    yield pair
    for each in pair:
        each.close()


@pytest.fixture(scope="module")
def gateway(
    start_node: StartNode,
    services: tuple[Service, Service],
    tmp_path_factory: pytest.TempPathFactory,
) -> Node:
    """A node in front of them."""
    node = start_node()
    manifest = tmp_path_factory.mktemp("services") / "services.yaml"
    manifest.write_text(MANIFEST.format(one=services[0].port, two=services[1].port), "utf-8")
    node.run("apply", "--yes", "-f", str(manifest))
    return node


@pytest.fixture
def caller(gateway: Node, protocol: str) -> Iterator[Caller]:
    """Asks the gateway over each protocol."""
    caller = Caller(gateway, protocol)
    yield caller
    caller.close()


def test_a_request_goes_on_as_it_came_and_says_who_asked(
    caller: Caller, services: tuple[Service, Service]
) -> None:
    answer = caller.ask(
        "/api/a%20b?q=1&q=2",
        method="PUT",
        body=b"payload",
        headers={
            "x-kept": "k",
            "x-forwarded-for": "6.6.6.6",
            "x-vedette-principal": "forged",
            "connection": "x-drop",
            "x-drop": "hop",
        }
        if caller.protocol == HTTP_1
        else {"x-kept": "k", "x-forwarded-for": "6.6.6.6"},
    )
    asked = services[0].asked[-1]
    assert answer.status == 200
    assert (asked.method, asked.target, asked.body) == ("PUT", "/api/a%20b?q=1&q=2", b"payload")
    assert asked.headers["x-kept"] == "k"
    assert asked.headers["host"] == caller.node.endpoint.authority
    assert asked.headers["x-forwarded-for"] == "127.0.0.1"
    assert asked.headers["x-forwarded-proto"] == "https"
    assert asked.headers["x-vedette-principal"].endswith("#tester")
    assert "authorization" not in asked.headers
    assert "x-drop" not in asked.headers
    assert answer.headers["x-service"] == "one"
    assert "x-hop" not in answer.headers
    assert answer.request_id != "forged"
    record = caller.node.record(answer.request_id)
    assert (record["upstream"], record["outcome"]) == ("one", "served")
    assert (record["bytesIn"], record["bytesOut"]) == (7, len(answer.body))


def test_connections_to_a_service_are_kept(
    gateway: Node, services: tuple[Service, Service]
) -> None:
    caller = Caller(gateway, HTTP_1)
    for _ in range(3):
        caller.ask("/api/x", anonymous=True)
    before = services[0].connections
    for _ in range(50):
        assert caller.ask("/api/x", anonymous=True).status == 200
    # One per worker at most; the client's one connection is on one worker.
    assert services[0].connections - before <= 1
    caller.close()


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "OPTIONS"])
def test_every_method_goes_through(caller: Caller, method: str) -> None:
    answer = caller.ask("/api/x", method=method, anonymous=True)
    assert answer.status == 200
    assert bool(answer.body) == (method != "HEAD")
    assert int(answer.headers["content-length"]) > 0


def test_bodies_stream_both_ways(caller: Caller) -> None:
    sent = b"0123456789abcdef" * (1 << 18)
    answer = caller.ask("/api/echo", method="POST", anonymous=True, body=sent)
    assert (answer.status, answer.body == sent) == (200, True)
    chunked = caller.ask(
        "/api/echo", method="POST", anonymous=True, body=(sent[:100_000] for _ in range(10))
    )
    assert chunked.body == sent[:100_000] * 10
    large = caller.ask("/api/large", anonymous=True)
    assert len(large.body) == 64 << 20


def test_a_large_answer_leaves_memory_flat(gateway: Node) -> None:
    def peak() -> int:
        status = Path(f"/proc/{gateway.pid('engine')}/status").read_text("ascii")
        return int(status.split("VmHWM:")[1].split()[0])

    caller = Caller(gateway, HTTP_1)
    caller.ask("/api/large", anonymous=True)
    before = peak()
    for _ in range(3):
        assert len(caller.ask("/api/large", anonymous=True).body) == 64 << 20
    assert peak() - before < 32 * 1024, "kilobytes; the answer has 65536"
    caller.close()


def test_host_and_path_are_rewritten(caller: Caller, services: tuple[Service, Service]) -> None:
    assert caller.ask("/moved/x?y=1", anonymous=True).status == 200
    asked = services[0].asked[-1]
    assert (asked.target, asked.headers["host"]) == ("/v2/x?y=1", "inside.example")
    assert asked.headers["x-forwarded-host"] == caller.node.endpoint.authority


@pytest.mark.parametrize(
    ("path", "status", "cause"),
    [
        ("/gone", 502, "upstream_unreachable"),
        ("/api/reset", 502, "upstream_reset"),
        ("/api/stall", 504, "upstream_timeout"),
        ("/api/garbage", 502, "upstream_invalid"),
        ("/api/big-head", 502, "upstream_invalid"),
    ],
)
def test_a_service_that_misbehaves_is_answered_for(
    caller: Caller, path: str, status: int, cause: str
) -> None:
    answer = caller.ask(path, anonymous=True)
    assert answer.status == status, answer
    told = json.loads(answer.body)
    assert told["requestId"] == answer.request_id
    record = caller.node.record(answer.request_id)
    assert (record["stage"], record["cause"], record["outcome"]) == ("execute", cause, "failed")
    assert "127.0.0.1" not in answer.body.decode()


def test_an_answer_that_breaks_off_does_not_look_whole(caller: Caller) -> None:
    answer = caller.ask("/api/half", anonymous=True)
    assert not answer.complete
    record = caller.node.record(answer.request_id)
    assert (record["outcome"], record["cause"]) == ("failed", "upstream_reset")


def test_safe_requests_are_tried_again_and_others_are_not(
    gateway: Node, services: tuple[Service, Service]
) -> None:
    caller = Caller(gateway, HTTP_1)
    if len(services[1].asked) % 2:
        caller.ask("/retried/align", anonymous=True)
    before = len(services[1].asked)
    assert caller.ask("/retried/flaky", anonymous=True).status == 200
    assert len(services[1].asked) == before + 2
    assert caller.ask("/retried/flaky", method="POST", anonymous=True, body=b"x").status == 503
    assert len(services[1].asked) == before + 3
    caller.close()


def test_a_service_that_is_gone_is_shown_in_upstreams_status_and_metrics(gateway: Node) -> None:
    caller = Caller(gateway, HTTP_1)
    for _ in range(6):  # five in a row leave an endpoint out
        assert caller.ask("/gone", anonymous=True).status == 502
    # Whatever it was asked before: one good answer ends what is held against it.
    assert caller.ask("/retried/x", anonymous=True).status == 200
    caller.close()
    [gone] = json.loads(gateway.run("upstreams", "gone", "--json").stdout)
    assert (gone["ready"], gone["check"], gone["routes"]) == (False, "passive", ["services-3"])
    [endpoint] = gone["endpoints"]
    assert (endpoint["host"], endpoint["port"], endpoint["state"]) == ("127.0.0.1", 1, "ejected")
    assert endpoint["failures"] >= 6
    assert endpoint["failingSince"] <= endpoint["lastError"]["time"] < endpoint["ejectedUntil"]
    assert endpoint["lastError"]["message"].startswith("connect_failed: ")
    [two] = json.loads(gateway.run("upstreams", "two", "--json").stdout)
    assert (two["ready"], two["endpoints"][0]["state"]) == (True, "healthy")
    shown = gateway.run("upstreams", "--failing").stdout
    assert "gone\t127.0.0.1:1\tejected until " in shown
    assert "services\tno healthy endpoint: gone" in gateway.run("status").stdout
    [route] = json.loads(gateway.run("routes", "--to", "gone", "--json").stdout)
    assert (route["name"], route["backends"][0]["ready"]) == ("services-3", False)
    with gateway.admin() as admin:
        metrics = admin.get("/metrics").text
    at = 'endpoint="127.0.0.1:1",upstream="gone"'
    assert f"edge_upstream_endpoint_ready{{{at}}} 0.0" in metrics
    assert 'edge_upstream_failures_total{upstream="gone"}' in metrics


def test_a_mirror_gets_a_copy(caller: Caller, services: tuple[Service, Service]) -> None:
    before = len(services[1].asked)
    answer = caller.ask("/mirrored/x", method="POST", anonymous=True, body=b"copied")
    assert json.loads(answer.body)["service"] == "one"
    from tests.e2e.node import wait_until

    wait_until("the copy has come", lambda: len(services[1].asked) > before)
    assert (services[1].asked[-1].body, services[1].asked[-1].method) == (b"copied", "POST")


def test_weights_share_requests(gateway: Node) -> None:
    caller = Caller(gateway, HTTP_1)
    told = [json.loads(caller.ask("/split/x", anonymous=True).body)["service"] for _ in range(100)]
    # A fair coin is outside of this less than once in 10^8 runs.
    assert 22 <= told.count("one") <= 78
    caller.close()


def test_a_changed_protocol_becomes_a_tunnel(gateway: Node) -> None:
    with connect(gateway.endpoint, HTTP_1) as secured:
        secured.sendall(
            b"GET /api/tunnel HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n"
        )
        head = _head(secured)
        assert head.startswith(b"HTTP/1.1 101")
        for message in (b"first", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"x" * 100_000):
            secured.sendall(message)
            assert _exactly(secured, len(message)) == message
        secured.unwrap().close()
    request_id = head.decode().lower().split("x-request-id: ")[1].split("\r\n")[0]
    record = gateway.record(request_id)
    assert (record["status"], record["outcome"]) == (101, "served")
    assert record["bytesIn"] == record["bytesOut"] >= 100_005


def _head(secured: ssl.SSLSocket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += _exactly(secured, 1)
    return head


def _exactly(secured: ssl.SSLSocket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = secured.recv(size - len(data))
        assert piece, "the tunnel closed"
        data += piece
    return data
