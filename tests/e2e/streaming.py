"""Answers that do not end by themselves, and who reads them: for tests of what ends them.

Owns: a route to a service that goes on answering, and a client of such an answer over each protocol. Must not: know why
one ends.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tests.e2e.certificates import Credential, context_with
from tests.e2e.node import Node
from tests.e2e.spool import Line
from tests.e2e.wire import HTTP_1, Http2, connect, read_head

MANIFEST = """\
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: service}}
spec: {{url: "http://127.0.0.1:{port}"}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: live}}
spec:
  rules:
    - matches: [{{path: {{value: /live}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: service}}]
"""
WORKLOADS = """\
@id("workloads")
permit(principal is Workload, action, resource == Route::"live");
"""


class Stream(Protocol):
    """A client of an answer that does not end by itself."""

    request_id: str

    def goes_on(self) -> bool:
        """Whether more of it has come; False once it has ended."""


class _Http1:
    def __init__(self, secured: ssl.SSLSocket, token: str) -> None:
        self._secured = secured
        proof = f"authorization: Bearer {token}\r\n" if token else ""
        secured.sendall(f"GET /live/ticks HTTP/1.1\r\nhost: localhost\r\n{proof}\r\n".encode())
        head = read_head(secured)
        assert head.startswith("http/1.1 200 ")
        self.request_id = head.split("x-request-id: ")[1].split("\r\n")[0]

    def goes_on(self) -> bool:
        try:
            read = self._secured.recv(4_096)
        except (ConnectionError, ssl.SSLError):
            return False
        assert b"0\r\n\r\n" not in read, "a stream that was cut off must not look whole"
        return bool(read)


class _Http2:
    def __init__(self, secured: ssl.SSLSocket, token: str) -> None:
        self._client = Http2(secured)
        proof = [("authorization", f"Bearer {token}")] if token else []
        self._number = self._client.request(
            [
                (":method", "GET"),
                (":scheme", "https"),
                (":authority", "localhost"),
                (":path", "/live/ticks"),
                *proof,
            ]
        )
        while not self._client.status(self._number):
            self._client.pump()
        self.request_id = self._client.head(self._number)["x-request-id"]

    def goes_on(self) -> bool:
        before = len(self._client.body_so_far(self._number))
        while self._number not in self._client.resets and not self._client.closed:
            self._client.pump()
            if len(self._client.body_so_far(self._number)) > before:
                return True
        return False


def stream_over(secured: ssl.SSLSocket, protocol: str, token: str = "") -> Stream:
    """Asks for the answer, with a token if there is one."""
    return (_Http1 if protocol == HTTP_1 else _Http2)(secured, token)


@contextmanager
def streaming(node: Node, protocol: str, token: str) -> Iterator[Stream]:
    """A client that has some of the answer, on a connection of its own."""
    with connect(node.endpoint, protocol) as secured:
        stream = stream_over(secured, protocol, token)
        assert stream.goes_on()
        yield stream


@contextmanager
def streaming_as(node: Node, protocol: str, credential: Credential) -> Iterator[Stream]:
    """The same with a certificate."""
    context = context_with(node.endpoint, protocol, credential)
    address = (node.endpoint.host, node.endpoint.port)
    with (
        socket.create_connection(address, timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        stream = stream_over(secured, protocol, "")
        assert stream.goes_on()
        yield stream


def end_of(node: Node, stream: Stream) -> Line:
    """The record of a stream that ends."""
    while stream.goes_on():
        pass
    return node.record(stream.request_id)
