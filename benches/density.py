"""Fills one node with many functions and measures what they cost: memory, first requests, p99.

Owns: the order of events on that node (see README.md): idle, one function, many deployed, engine
restarted, each asked once, one of them loaded again.
Must not: time single requests itself (`cold`) or judge.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import node as nodes
from cold import Cold, KeepAlive, ask_twice, figures
from load import LoadTools
from measure import Load, Sample, measure
from node import Node
from processes import (
    BenchError,
    Memory,
    cpu_seconds,
    machine_busy_seconds,
    memory,
    uninterrupted,
)
from server import Endpoint, Mode, Place, Server

COLD_FUNCTIONS = 200
_FIRST_REQUESTS = 200
"""Of `hello`, on the same connection: connection, token and engine are warm, the functions cold."""
_SETTLE_SECONDS = 1.0
"""After an engine's start control has some work to do, on the same core."""


@dataclass(frozen=True)
class Idle:
    """The engine of a bare node, no request yet. KiB; `whole` is all three processes' PSS."""

    engine: Memory
    whole_pss: int
    engine_cpu_percent: float


@dataclass(frozen=True)
class Density:
    """Memory in KiB of one engine through the events, and the loaded function's p99."""

    functions: int
    one: Memory
    """One function deployed and loaded with traffic."""
    deployed: Memory
    """All deployed, engine restarted, only the one loaded with traffic."""
    resident: Memory
    """Every function asked."""
    deploy_seconds: float
    engine_restart_seconds: float
    before: tuple[Sample, ...]
    after: tuple[Sample, ...]

    def rss_each(self) -> float:
        """KiB of RSS a resident function adds, its share of the snapshot included."""
        return (self.resident.rss - self.one.rss) / self.functions

    def pss_each(self) -> float:
        """The same as PSS."""
        return (self.resident.pss - self.one.pss) / self.functions


@dataclass
class Parts:
    """Filled while the events go on; None or nothing for what was not asked or failed."""

    idle: Idle | None = None
    cold: tuple[Cold, ...] = ()
    """One for each round: the engine was restarted before it."""
    density: Density | None = None


@dataclass(frozen=True)
class Wanted:
    """Which parts, how many functions, and how the loads on the one function are made."""

    cold: bool
    density: bool
    functions: int
    rounds: int
    seconds: float

    @property
    def deployed(self) -> int:
        """How many functions must be deployed for the parts asked."""
        return self.functions if self.density else COLD_FUNCTIONS if self.cold else 0


def measure_parts(
    place: Place, tools: LoadTools, wanted: Wanted, parts: Parts, say: Callable[[str], None]
) -> str:
    """Runs the events on a node of its own into parts; returns the node's command line."""
    node: Node | None = None
    try:
        with uninterrupted():
            node = nodes.up(place, "https")
        parts.idle = _idle(node)
        if wanted.deployed:
            _fill(node, place, tools, wanted, parts, say)
        return node.command
    finally:
        if node:
            with uninterrupted():
                node.down()


def _idle(node: Node) -> Idle:
    """Memory after two seconds of quiet, and the CPU those seconds took."""
    engine, control = node.pid("engine"), node.pid("control")
    supervisor = node.pid("supervisor")
    before = cpu_seconds([engine])
    time.sleep(2)
    spent = cpu_seconds([engine]) - before
    pss = sum(memory(pid).pss for pid in (engine, control, supervisor))
    return Idle(memory(engine), pss, spent / 2 * 100)


def _fill(
    node: Node,
    place: Place,
    tools: LoadTools,
    wanted: Wanted,
    parts: Parts,
    say: Callable[[str], None],
) -> None:
    component = place.component.read_bytes()
    node.deploy("hello", component)
    (token,) = node.tokens(1)
    hello = Endpoint(f"{node.url}/hello", (token,))
    crowd = _Crowd(node, nodes.served("vedette-density", node, {"hello": hello}), token, tools, say)
    if not wanted.density:
        crowd.deploy(component, wanted.deployed)
        parts.cold = crowd.cold(wanted)
        return
    say("density: p99 of one function before")
    before = crowd.load(wanted)
    one = memory(node.pid("engine"))
    deploy_seconds = crowd.deploy(component, wanted.deployed)
    if wanted.cold:
        parts.cold = crowd.cold(wanted)
    restart_seconds = node.restart_engine()
    say("density: p99 of one function, the others never asked")
    crowd.load(wanted)
    deployed = memory(node.pid("engine"))
    crowd.ask(wanted.deployed)
    resident = memory(node.pid("engine"))
    say("density: p99 of one function after")
    after = crowd.load(wanted)
    parts.density = Density(
        functions=wanted.deployed,
        one=one,
        deployed=deployed,
        resident=resident,
        deploy_seconds=deploy_seconds,
        engine_restart_seconds=restart_seconds,
        before=before,
        after=after,
    )


@dataclass(frozen=True)
class _Crowd:
    """The node with `hello` and its copies, and what is done to them."""

    node: Node
    server: Server
    token: str
    tools: LoadTools
    say: Callable[[str], None]

    def deploy(self, component: bytes, count: int) -> float:
        """Deploys copies up to count; seconds it took."""
        started = time.monotonic()
        self.node.deploy_all(_copies(component, _names(count), self.say))
        return time.monotonic() - started

    def load(self, wanted: Wanted) -> tuple[Sample, ...]:
        """Rounds of load on `hello`."""
        endpoint, load = self.server.endpoints["hello"], Load("wrk", wanted.seconds)
        return tuple(
            measure(self.tools, self.server, endpoint, load, Mode.PINNED, 1.0)
            for _ in range(wanted.rounds)
        )

    def cold(self, wanted: Wanted) -> tuple[Cold, ...]:
        """Restarts the engine and asks, round after round."""
        rounds, count = wanted.rounds, min(COLD_FUNCTIONS, wanted.deployed)
        figures_ = []
        for number in range(1, rounds + 1):
            self.say(f"cold: round {number} of {rounds}")
            self.node.restart_engine()
            time.sleep(_SETTLE_SECONDS)
            figures_.append(self.ask(count))
        return tuple(figures_)

    def ask(self, count: int) -> Cold:
        """First and second request of count functions, from the load's core."""
        certificate = Path(self.node.home, "bench-ca.pem")
        self.node.vedette("ca", "--out", str(certificate))
        port = urlsplit(self.node.url).port
        if port is None:
            raise BenchError(f"no port in {self.node.url}")
        affinity = os.sched_getaffinity(0)
        os.sched_setaffinity(0, Mode.PINNED.load_cores)
        try:
            with KeepAlive(port, certificate.read_text(), self.token) as connection:
                for _ in range(_FIRST_REQUESTS):
                    connection.get("/hello")
                return self._ask(connection, count)
        finally:
            os.sched_setaffinity(0, affinity)

    def _ask(self, connection: KeepAlive, count: int) -> Cold:
        whole = [self.node.pid("supervisor"), os.getpid()]
        started, machine, ours = time.monotonic(), machine_busy_seconds(), cpu_seconds(whole)
        pairs = ask_twice(connection, _names(count))
        window = time.monotonic() - started
        others = machine_busy_seconds() - machine - (cpu_seconds(whole) - ours)
        return figures(pairs, max(0.0, others) / window)


def _names(count: int) -> list[str]:
    return [f"copy-{number:04}" for number in range(count)]


def _copies(
    component: bytes, names: Sequence[str], say: Callable[[str], None]
) -> Iterator[tuple[str, bytes]]:
    for number, name in enumerate(names):
        if number % 50 == 0:
            say(f"deploying {number} of {len(names)} functions")
        yield name, distinct(component, name)


def distinct(component: bytes, name: str) -> bytes:
    """The component with a custom section that names the copy: another digest, the same code.

    A custom section is id 0, its size, a name, and bytes nobody reads (component model binary
    format); it may follow any other section.
    """
    label = b"copy"
    content = _leb128(len(label)) + label + name.encode()
    return component + b"\x00" + _leb128(len(content)) + content


def _leb128(number: int) -> bytes:
    """Unsigned LEB128 (WebAssembly core specification 5.2.2)."""
    encoded = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        encoded.append(low | (0x80 if number else 0))
        if not number:
            return bytes(encoded)
