"""Holds ten thousand idle TLS connections open to each server and reads what they cost it.

Owns: opening them (one request each, then quiet), memory before and after.
Must not: start servers or judge.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from processes import BenchError, memory, tree
from server import Endpoint, Server

COUNT = 10_000
_SPARE = 512
_SETTLE_SECONDS = 2.0
_SECONDS = 30.0


@dataclass(frozen=True)
class Connections:
    """KiB of RSS of one server's processes, with none and with `count` connections open."""

    count: int
    before: int
    after: int

    def each(self) -> float:
        """Kilobytes (1,000 bytes) a connection."""
        return (self.after - self.before) * 1.024 / self.count


def measure_connections(
    servers: Sequence[tuple[Server, Endpoint]], say: Callable[[str], None]
) -> dict[str, Connections]:
    """What `COUNT` connections cost each server, by its name. Raises BenchError when they cannot be opened."""
    _require_descriptors()
    return {server.name: _measure(server, endpoint, say) for server, endpoint in servers}


def _measure(server: Server, endpoint: Endpoint, say: Callable[[str], None]) -> Connections:
    with contextlib.ExitStack() as stack:
        for number in range(32):  # what the first ones cost is not the connections'
            _open(endpoint, number).close()
        time.sleep(_SETTLE_SECONDS)
        before = _rss(server)
        for number in range(COUNT):
            if number % 1_000 == 0:
                say(f"connections: {number:,} of {COUNT:,} to {server.name}")
            stack.enter_context(_open(endpoint, number))
        time.sleep(_SETTLE_SECONDS)
        return Connections(COUNT, before, _rss(server))


def _open(endpoint: Endpoint, number: int) -> ssl.SSLSocket:
    """One connection that has been answered. A source address for each 10,000 would be needed beyond 28,000."""
    url = urlsplit(endpoint.url)
    plain = socket.create_connection(("127.0.0.1", url.port or 443), _SECONDS)
    # Else the request waits for the answer to the end of the handshake, which some give after 40 ms.
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        connection = _CONTEXT.wrap_socket(plain, server_hostname="localhost")
    except BaseException:
        plain.close()
        raise
    connection.sendall(f"GET {url.path} HTTP/1.1\r\nhost: {url.netloc}\r\n\r\n".encode())
    answer = connection.recv(16_384)
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise BenchError(f"connection {number} to {endpoint.url} got {answer[:300]!r}")
    return connection


def _rss(server: Server) -> int:
    return sum(memory(pid).rss for pid in tree(server.roots()))


def _require_descriptors() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < COUNT + _SPARE:
        raise BenchError(f"{COUNT:,} connections need as many descriptors; `ulimit -Hn` is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


_CONTEXT = _context()
