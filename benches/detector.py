"""Measures a detector of anomalies: events over one stream, as many as it takes and one at a time.

Owns: the stream's client, which writes while it reads, and the count of what came back.
Must not: judge, or count a run in which an event has no score.
"""

from __future__ import annotations

import json
import random
import select
import socket
import ssl
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import node
from processes import BenchError, cpu_seconds, on_cores
from server import Mode
from task import Task

DETECTOR = Path(__file__).resolve().parent.parent / "examples" / "07-anomaly" / "pump.json"
"""Three features, 25 trees of depth 8, ADWIN over each feature."""
BLOCK = 500
"""Events in a chunk where as many are sent as are taken."""
_BLOCKS = 20
"""Other events each, in turn."""
_WARM_UP = 2_000
"""Events: the window of 250 is full by then, so that what follows has scores."""
_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Scored:
    """One round: many events after each other, and one at a time; all of the node on one core."""

    events: int
    per_second: float
    cpu_us: float
    """Of all the node's processes, for an event of many."""
    one_p50_us: float
    """From an event to its score, where nobody else sends any, on the client's clock."""
    one_p99_us: float


def measure_detector(task: Task) -> list[Scored]:
    """So many rounds, streams of its own each. Raises BenchError."""
    task.node.vedette("model", "add", str(DETECTOR), "--name", "pump")
    [token] = task.node.tokens(1)
    found = []
    for number in range(1, task.rounds + 1):
        task.say(f"model-stream: round {number} of {task.rounds}")
        with on_cores(Mode.PINNED.load_cores):
            found.append(_round(task.node, token, task.seconds))
    return found


def _round(running: node.Node, token: str, seconds: float) -> Scored:
    with _Stream(running, token) as stream:
        took = sorted(_alone(stream, seconds))
    first = running.first()
    with _Stream(running, token) as stream:
        before, began = cpu_seconds([first]), time.monotonic()
        sent = stream.pour(_blocks(), seconds)
        window = time.monotonic() - began
        spent = cpu_seconds([first]) - before
    return Scored(
        events=sent,
        per_second=sent / window,
        cpu_us=spent / sent * 1e6,
        one_p50_us=statistics.median(took),
        one_p99_us=took[min(len(took) - 1, int(0.99 * len(took)))],
    )


def _alone(stream: _Stream, seconds: float) -> list[float]:
    """Microseconds from each event to its score."""
    events = [_chunk(line) for block in _lines() for line in block]
    for event in (events * (1 + _WARM_UP // len(events)))[:_WARM_UP]:
        stream.ask(event)
    took, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        for event in events[:100]:
            began = time.perf_counter_ns()
            stream.ask(event)
            took.append((time.perf_counter_ns() - began) / 1e3)
    return took


def _lines() -> list[list[bytes]]:
    drawn = random.Random(7)
    return [[_event(drawn) for _ in range(BLOCK)] for _ in range(_BLOCKS)]


def _event(drawn: random.Random) -> bytes:
    """A pump that runs, as examples/07-anomaly has it."""
    said = {
        "temperature": round(drawn.gauss(71.0, 1.5), 2),
        "pressure": round(drawn.gauss(4.2, 0.15), 3),
        "vibration": round(abs(drawn.gauss(0.8, 0.1)), 3),
    }
    return json.dumps(said).encode() + b"\n"


def _blocks() -> list[bytes]:
    return [_chunk(b"".join(block)) for block in _lines()]


def _chunk(data: bytes) -> bytes:
    """RFC 9112, section 7.1."""
    return b"%x\r\n%s\r\n" % (len(data), data)


class _Stream:
    """One POST over HTTP/1.1 that goes on, by hand: TLS 1.3, both directions at once."""

    def __init__(self, running: node.Node, token: str) -> None:
        port = urlsplit(running.url).port
        # As the load generators: that TLS 1.3 is spoken is what counts.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        plain = socket.create_connection(("127.0.0.1", port), _TIMEOUT_SECONDS)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = context.wrap_socket(plain, server_hostname="localhost")
        self._socket.sendall(
            f"POST /v2/models/pump/stream HTTP/1.1\r\nhost: localhost:{port}\r\n"
            f"authorization: Bearer {token}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
        )
        head, end, self._rest = b"", b"", b""
        while not end:
            head, end, self._rest = (head + end + self._rest + self._receive()).partition(
                b"\r\n\r\n"
            )
        if not head.startswith(b"HTTP/1.1 200 ") or b"chunked" not in head.lower():
            raise BenchError(f"the stream was not opened: {head[:600]!r}")

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, event: bytes) -> None:
        """Sends one event and waits for its score, which comes as a chunk of its own."""
        self._socket.sendall(event)
        said = self._receive()
        while not said.endswith(b"\n\r\n"):
            said += self._receive()
        if b'"score":' not in said:
            raise BenchError(f"an event has no score: {said[:300]!r}")

    def pour(self, blocks: list[bytes], seconds: float) -> int:
        """Sends blocks in turn for so long, reads meanwhile and to the end; events that were sent and scored."""
        self._socket.setblocking(False)
        end, sent, said = time.monotonic() + seconds, 0, [self._rest]
        tail, wanted = b"", memoryview(b"")
        ending = False
        while not tail.endswith(b"\r\n0\r\n\r\n"):
            if not wanted and not ending:
                ending = time.monotonic() >= end
                wanted = memoryview(b"0\r\n\r\n" if ending else blocks[sent % len(blocks)])
                sent += not ending
            wanted = self._written(wanted)
            more = self._read(wanted)
            if more:
                said.append(more)
                tail = (tail + more)[-16:]
        scores = _unchunked(b"".join(said)).splitlines()
        if len(scores) != sent * BLOCK or not all(b'"score":' in line for line in scores):
            raise BenchError(f"{sent * BLOCK} events were sent, and {len(scores)} lines came back")
        return sent * BLOCK

    def _written(self, wanted: memoryview) -> memoryview:
        if not wanted:
            return wanted
        try:
            return wanted[self._socket.send(wanted[:65_536]) :]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return wanted

    def _read(self, wanted: memoryview) -> bytes:
        """What is there; else it waits until there is something, or room for what is to be written."""
        try:
            more = self._socket.recv(262_144)
        except ssl.SSLWantReadError:
            writers = [self._socket] if wanted else []
            select.select([self._socket], writers, [], _TIMEOUT_SECONDS)
            return b""
        if not more:
            raise BenchError("the node ended the stream before its events")
        return more

    def _receive(self) -> bytes:
        more = self._socket.recv(65_536)
        if not more:
            raise BenchError("the node closed the stream")
        return more


def _unchunked(said: bytes) -> bytes:
    """The body of RFC 9112, section 7.1, without extensions and trailers."""
    at, parts = 0, list[bytes]()
    while True:
        line = said.index(b"\r\n", at)
        size = int(said[at:line], 16)
        if not size:
            return b"".join(parts)
        parts.append(said[line + 2 : line + 2 + size])
        at = line + 2 + size + 2
