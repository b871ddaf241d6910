"""Times the first request of functions the engine has never loaded, against their second.

Owns: a keep-alive client of its own, good to microseconds, and the figures of the difference.
Must not: deploy or restart anything (`density` does).
"""

from __future__ import annotations

import re
import socket
import ssl
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from processes import BenchError

_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Timed:
    """One answer: microseconds on the client's clock, and what the node said it took."""

    client_us: float
    node_us: float


@dataclass(frozen=True)
class Cold:
    """Microseconds over all functions asked; the difference is taken function by function."""

    functions: int
    first_p50: float
    first_p99: float
    warm_p50: float
    warm_p99: float
    difference_p50: float
    difference_p99: float
    node_difference_p50: float
    node_difference_p99: float
    others: float
    """Cores' worth of CPU that neither node nor client used: what the 99th percentiles suffer."""


class KeepAlive:
    """One HTTP/1.1 connection that sends prepared bytes and waits for the whole answer."""

    def __init__(self, port: int, certificate: str | None, token: str | None) -> None:
        """certificate is the CA in PEM, or None for a plain listener."""
        plain = socket.create_connection(("127.0.0.1", port), _TIMEOUT_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket: socket.socket = plain
        if certificate is not None:
            context = ssl.create_default_context(cadata=certificate)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            self._socket = context.wrap_socket(plain, server_hostname="localhost")
        bearer = f"authorization: Bearer {token}\r\n" if token else ""
        self._rest = f" HTTP/1.1\r\nhost: localhost:{port}\r\n{bearer}\r\n"

    def __enter__(self) -> KeepAlive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def get(self, path: str) -> Timed:
        """GET path; raises BenchError unless the answer is 200."""
        request = f"GET {path}{self._rest}".encode()
        started = time.perf_counter_ns()
        self._socket.sendall(request)
        answer = self._receive()
        took = (time.perf_counter_ns() - started) / 1000
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise BenchError(f"GET {path} was not served: {answer[:600]!r}")
        node = re.search(rb"x-edge-processing-time-us: *(\d+)", answer, re.IGNORECASE)
        return Timed(took, float(node[1]) if node else float("nan"))

    def _receive(self) -> bytes:
        buffer = b""
        while not _complete(buffer):
            more = self._socket.recv(65_536)
            if not more:
                raise BenchError(f"the node closed the connection after {buffer[:200]!r}")
            buffer += more
        return buffer


def _complete(answer: bytes) -> bool:
    """Whether head and body are all there (RFC 9112 section 6)."""
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    if length:
        return len(body) >= int(length[1])
    return body.endswith(b"0\r\n\r\n")


def ask_twice(connection: KeepAlive, names: Sequence[str]) -> list[tuple[Timed, Timed]]:
    """First and second request of each function, one function after the other."""
    return [(connection.get(f"/{name}"), connection.get(f"/{name}")) for name in names]


def figures(pairs: Sequence[tuple[Timed, Timed]], others: float) -> Cold:
    """Medians and 99th percentiles; the warm figure is the same function asked again."""
    first = [cold.client_us for cold, _ in pairs]
    warm = [again.client_us for _, again in pairs]
    difference = [cold.client_us - again.client_us for cold, again in pairs]
    node = [cold.node_us - again.node_us for cold, again in pairs]
    return Cold(
        functions=len(pairs),
        first_p50=statistics.median(first),
        first_p99=_p99(first),
        warm_p50=statistics.median(warm),
        warm_p99=_p99(warm),
        difference_p50=statistics.median(difference),
        difference_p99=_p99(difference),
        node_difference_p50=statistics.median(node),
        node_difference_p99=_p99(node),
        others=others,
    )


def _p99(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
