"""An exchange ends when its caller may not go on: expired, revoked, or forbidden by now. Others go on."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from tests.e2e.certificates import Authority, context_with
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node
from tests.e2e.streaming import MANIFEST, WORKLOADS, end_of, stream_over, streaming
from tests.e2e.wire import HTTP_1, HTTP_2, connect, read_head, read_http_1
from tests.guests import Guests
from tests.simulators.service import Service

FORBID = """\
@id("not-mallory")
forbid(principal is Subject, action, resource) when { principal.subject == "mallory" };
"""


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    service = Service("service")
    yield service
    service.close()


@pytest.fixture(scope="module")
def node(
    start_node: StartNode,
    guests: Guests,
    service: Service,
) -> Iterator[Node]:
    node = start_node()
    node.deploy(guests.hello, "hello", "--public")
    node.apply(MANIFEST.format(port=service.port))
    yield node
    node.stop()


@pytest.mark.parametrize("protocol", [HTTP_1, HTTP_2])
def test_a_stream_ends_when_its_token_is_revoked_and_others_go_on(
    node: Node, protocol: str
) -> None:
    token = node.token("mallory")
    with ExitStack() as opened:
        ending = opened.enter_context(streaming(node, protocol, token))
        other = opened.enter_context(streaming(node, protocol, node.token("mallory")))
        node.run("token", "revoke", token)
        record = end_of(node, ending)
        assert all(other.goes_on() for _ in range(20))
    assert (record["cause"], record["stage"]) == ("token_revoked", "authenticate")
    assert (record["status"], record["outcome"]) == (200, "aborted")


@pytest.mark.parametrize("protocol", [HTTP_1, HTTP_2])
def test_a_stream_ends_when_policy_forbids_it_and_others_go_on(node: Node, protocol: str) -> None:
    with ExitStack() as opened:
        ending = opened.enter_context(streaming(node, protocol, node.token("mallory")))
        other = opened.enter_context(streaming(node, protocol, node.token("alice")))
        node.set_policy("not-mallory.cedar", FORBID)
        try:
            record = end_of(node, ending)
            assert all(other.goes_on() for _ in range(20))
        finally:
            node.run("policy", "remove", "not-mallory.cedar")
    assert (record["cause"], record["stage"], record["outcome"]) == (
        "policy_denied",
        "authorize",
        "aborted",
    )


def test_a_stream_ends_when_the_certificate_of_its_connection_is_revoked(
    node: Node, tmp_path: Path
) -> None:
    authority = Authority(tmp_path, "Mesh CA")
    node.run("authority", "add", "mesh", "--ca", str(authority.file))
    node.set_policy("workloads.cedar", WORKLOADS)
    credential, other = authority.issue("mallory"), authority.issue("alice")
    with ExitStack() as opened:
        streams = []
        for one in (credential, other):
            plain = socket.create_connection((node.endpoint.host, node.endpoint.port), timeout=60)
            opened.callback(plain.close)
            context = context_with(node.endpoint, HTTP_1, one)
            secured = context.wrap_socket(plain, server_hostname="localhost")
            streams.append(stream_over(opened.enter_context(secured), HTTP_1))
        node.run("authority", "revoke", "mesh", credential.serial)
        record = end_of(node, streams[0])
        assert all(streams[1].goes_on() for _ in range(20))
    assert (record["cause"], record["outcome"]) == ("certificate_revoked", "aborted")


@pytest.mark.parametrize("protocol", [HTTP_1, HTTP_2])
def test_a_stream_ends_when_its_token_expires(node: Node, protocol: str) -> None:
    with streaming(node, protocol, node.token("mallory", "--ttl", "2s")) as stream:
        record = end_of(node, stream)
    assert (record["cause"], record["outcome"]) == ("proof_expired", "aborted")


@pytest.mark.parametrize("protocol", [HTTP_1, HTTP_2])
def test_a_stream_goes_on_when_something_else_changes(
    node: Node, guests: Guests, protocol: str
) -> None:
    with streaming(node, protocol, node.token("alice")) as stream:
        node.deploy(guests.hello, "other", "--public")
        node.run("token", "revoke", node.token("alice"))
        assert all(stream.goes_on() for _ in range(50))


def test_a_request_that_waits_for_its_answer_is_refused(node: Node, service: Service) -> None:
    token = node.token("mallory")
    known = len(service.asked)
    with connect(node.endpoint, HTTP_1) as secured:
        secured.sendall(
            b"GET /live/stall HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer "
            + token.encode()
            + b"\r\n\r\n"
        )
        while len(service.asked) == known:
            node.run("status")
        node.run("token", "revoke", token)
        answer = read_http_1(secured, "GET")
    assert answer.status == 401
    record = node.record(answer.headers["x-request-id"])
    assert (record["cause"], record["outcome"]) == ("token_revoked", "refused")


def test_a_tunnel_ends_when_its_token_is_revoked(node: Node) -> None:
    token = node.token("mallory")
    with connect(node.endpoint, HTTP_1) as secured:
        secured.sendall(
            b"GET /live/tunnel HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: echo\r\n"
            b"authorization: Bearer " + token.encode() + b"\r\n\r\n"
        )
        head = read_head(secured)
        assert head.startswith("http/1.1 101 ")
        secured.sendall(b"still here")
        assert secured.recv(100) == b"still here"
        node.run("token", "revoke", token)
        with suppress(ConnectionError, ssl.SSLError):
            assert secured.recv(100) == b""
    record = node.record(head.split("x-request-id: ")[1].split("\r\n")[0])
    assert (record["cause"], record["status"]) == ("token_revoked", 101)
