"""What a TLS client looks like: told in records and events, and a reason to let it in or not."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.conftest import StartNode
from tests.e2e.ja4 import first_message, ja4
from tests.e2e.node import Node, wait_until
from tests.e2e.spool import Spool
from tests.e2e.wire import HTTP_1, HTTP_2, Kept, connect, send, tls_context

FRIEND = "127.0.0.94"
ROUTE = """\
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: open}
spec:
  public: true
  rules: [{matches: [{path: {value: /open}}], static: {body: hello}}]
---
apiVersion: vedette.dev/v1alpha1
kind: AddressList
metadata: {name: friends}
spec: {action: Allow, networks: [127.0.0.94]}
"""


@pytest.fixture(scope="module")
def own(start_node: StartNode) -> Iterator[Node]:
    """A node whose rule for TLS clients each test sets."""
    node = start_node()
    node.apply(ROUTE)
    yield node
    node.stop()


def fingerprint(node: Node, protocol: str) -> str:
    """That of this Python's client of this protocol, by a second hand."""
    return ja4(first_message(tls_context(node.ca_file, protocol), "localhost"))


def rule(node: Node, folder: Path, text: str) -> None:
    file = folder / "node.yaml"
    head = "apiVersion: vedette.dev/v1alpha1\nkind: Node\nmetadata: {name: edge}\n"
    file.write_text(f"{head}spec: {text}\n", "utf-8")
    node.run("apply", str(file), "--yes")


def is_let_in(node: Node, protocol: str, source: str = "") -> bool:
    try:
        return send(node.endpoint, protocol, "/open", source=source).status == 200
    except (ConnectionError, ssl.SSLError):
        return False


def test_a_record_tells_what_the_tls_client_looks_like(own: Node, protocol: str) -> None:
    answer = send(own.endpoint, protocol, "/open")
    record = own.record(answer.request_id)
    assert record["ja4"] == fingerprint(own, protocol)
    assert record["ja4"][8:10] == ("h1" if protocol == HTTP_1 else "h2")


def test_a_security_event_tells_it_too(own: Node, protocol: str) -> None:
    answer = send(own.endpoint, protocol, "/open?q=1%27%20OR%20%271%27%3D%271")
    assert answer.status == 403
    events = Spool(own.path("spool", "requests"), "security")
    (event,) = events.wait_for(lambda line: line["requestId"] == answer.request_id, 5)
    assert event["ja4"] == fingerprint(own, protocol)


def test_a_hello_that_comes_byte_by_byte_is_the_same_client(own: Node) -> None:
    context = tls_context(own.ca_file, HTTP_1)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    address = (own.endpoint.host, own.endpoint.port)
    with socket.create_connection(address, timeout=60) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def send_out() -> None:
            for byte in outgoing.read():
                plain.sendall(bytes([byte]))

        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                send_out()
                incoming.write(plain.recv(65_536))
        client.write(f"GET /open HTTP/1.1\r\nhost: {own.endpoint.authority}\r\n\r\n".encode())
        send_out()
        text = b""
        while b"\r\n\r\n" not in text:
            try:
                text += client.read()
            except ssl.SSLWantReadError:
                incoming.write(plain.recv(65_536))
    head = text.decode().lower().partition("x-request-id: ")[2]
    record = own.record(head.split("\r\n")[0])
    assert (record["status"], record["ja4"]) == (200, fingerprint(own, HTTP_1))


def test_a_client_that_is_blocked_gets_no_handshake_and_leaves_a_record(
    own: Node, tmp_path: Path, protocol: str
) -> None:
    other = HTTP_2 if protocol == HTTP_1 else HTTP_1
    blocked = fingerprint(own, protocol)
    seen = len(own.requests.lines())
    rule(own, tmp_path, f"{{tlsClients: {{block: [{blocked}]}}}}")
    assert not is_let_in(own, protocol)
    assert is_let_in(own, other), "another client is"
    assert is_let_in(own, protocol, FRIEND), "an allow list of addresses wins"
    rule(own, tmp_path, "{}")
    assert is_let_in(own, protocol)
    (record,) = [
        line for line in own.requests.lines()[seen:] if line.get("cause") == "client_not_allowed"
    ]
    assert (record["protocol"], record["status"], record["ja4"]) == ("TLS", 0, blocked)
    with own.engine() as engine:
        counted = engine.get("/metrics").json()["connectionsTurnedAway"]
    assert counted["client_not_allowed"] >= 1


def test_a_node_can_let_in_only_the_clients_it_knows(
    own: Node, tmp_path: Path, protocol: str
) -> None:
    other = HTTP_2 if protocol == HTTP_1 else HTTP_1
    rule(own, tmp_path, f"{{tlsClients: {{allow: [{fingerprint(own, protocol)}]}}}}")
    assert is_let_in(own, protocol)
    assert not is_let_in(own, other)
    rule(own, tmp_path, "{}")


def test_a_connection_that_was_there_before_its_rule_ends_with_its_next_request(
    own: Node, tmp_path: Path, protocol: str
) -> None:
    with connect(own.endpoint, protocol) as secured:
        kept = Kept(secured, own.endpoint)
        assert kept.ask("/open").status == 200
        rule(own, tmp_path, f"{{tlsClients: {{block: [{fingerprint(own, protocol)}]}}}}")
        answer = kept.ask("/open")
        kept.require_closed()
    rule(own, tmp_path, "{}")
    wait_until("it is let in again", lambda: is_let_in(own, protocol))
    assert (answer.status, own.record(answer.request_id)["cause"]) == (403, "client_not_allowed")


def test_what_is_no_fingerprint_is_refused_with_its_line(own: Node, tmp_path: Path) -> None:
    file = tmp_path / "node.yaml"
    head = "apiVersion: vedette.dev/v1alpha1\nkind: Node\nmetadata: {name: edge}\nspec:\n"
    file.write_text(f"{head}  tlsClients: {{block: [t13d1516h2]}}\n", "utf-8")
    done = own.run("apply", str(file), "--yes", check=False)
    assert done.returncode != 0
    assert "node.yaml:5" in done.stderr
