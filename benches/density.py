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
from measure import Sample, measure
from node import Node
from processes import BenchError, Memory, cpu_seconds, memory
from server import Endpoint, Mode, Place, Server

COLD_FUNCTIONS = 200


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


@dataclass(frozen=True)
class Parts:
    """What was measured on the node; None for what was not asked."""

    idle: Idle
    cold: Cold | None
    density: Density | None


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
    place: Place, tools: LoadTools, wanted: Wanted, say: Callable[[str], None]
) -> tuple[Parts, str]:
    """Runs the events on a node of its own; returns the figures and the node's command line."""
    node = nodes.up(place, "https")
    try:
        idle = _idle(node)
        if not wanted.deployed:
            return Parts(idle, None, None), node.command
        return _fill(node, place, tools, wanted, idle, say), node.command
    finally:
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
    idle: Idle,
    say: Callable[[str], None],
) -> Parts:
    component = place.component.read_bytes()
    node.deploy("hello", component)
    (token,) = node.tokens(1)
    server = nodes.served(
        "vedette-density", node, {"hello": Endpoint(f"{node.url}/hello", (token,))}
    )
    rounds = wanted.rounds if wanted.density else 0
    say("density: p99 of one function before")
    before = _rounds(server, tools, rounds, wanted.seconds)
    one = memory(node.pid("engine"))
    names = [f"copy-{number:04}" for number in range(wanted.deployed)]
    started = time.monotonic()
    node.deploy_all(_copies(component, names, say))
    deploy_seconds = time.monotonic() - started
    restart_seconds = node.restart_engine()
    say("density: p99 of one function, the others never asked")
    _rounds(server, tools, rounds, wanted.seconds)
    deployed = memory(node.pid("engine"))
    cold = _ask(node, token, names, say)
    resident = memory(node.pid("engine"))
    say("density: p99 of one function after")
    after = _rounds(server, tools, rounds, wanted.seconds)
    if not wanted.density:
        return Parts(idle, cold, None)
    density = Density(
        functions=len(names),
        one=one,
        deployed=deployed,
        resident=resident,
        deploy_seconds=deploy_seconds,
        engine_restart_seconds=restart_seconds,
        before=before,
        after=after,
    )
    return Parts(idle, cold if wanted.cold else None, density)


def _rounds(server: Server, tools: LoadTools, rounds: int, seconds: float) -> tuple[Sample, ...]:
    endpoint = server.endpoints["hello"]
    return tuple(
        measure(tools, server, endpoint, "wrk", Mode.PINNED, seconds, 1.0) for _ in range(rounds)
    )


def _ask(node: Node, token: str, names: Sequence[str], say: Callable[[str], None]) -> Cold:
    """Every function twice from the load's core; the first COLD_FUNCTIONS make the figures."""
    certificate = Path(node.home, "bench-ca.pem")
    node.vedette("ca", "--out", str(certificate))
    port = urlsplit(node.url).port
    if port is None:
        raise BenchError(f"no port in {node.url}")
    say(f"cold: first and second request of {len(names)} functions")
    affinity = os.sched_getaffinity(0)
    os.sched_setaffinity(0, Mode.PINNED.load_cores)
    try:
        with KeepAlive(port, certificate.read_text(), token) as connection:
            for _ in range(200):
                connection.get("/hello")
            pairs = ask_twice(connection, names)
    finally:
        os.sched_setaffinity(0, affinity)
    return figures(pairs[:COLD_FUNCTIONS])


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
