"""One address that sends as much as it can, beside honest clients: what the honest ones notice.

Owns: the two loads and their addresses. Both are on the load's core: the flood runs when nobody else does and the
honest clients sleep between requests and, for root, run before all others: else their latency is the time that the
kernel leaves the flood on the core, milliseconds. The flood asks many times in one breath: asked one by one, its own
system calls let it ask no more than some thousand times a second.
Must not: judge.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from processes import BenchError, pinned
from server import Endpoint, Mode, Server

_HONEST_RANK = ["chrt", "--fifo", "1"] if os.geteuid() == 0 else []
FLOOD_RATE = 50_000
FLOOD_CONNECTIONS = 16
FLOOD_BURST = 50
FLOOD_FROM = "127.0.0.2+1"
HONEST_RATE = 100
HONEST_CLIENTS = 100
HONEST_FROM = "127.0.1.1+100"
ROUNDS = 3
_SECONDS = 8
_SETTLED = 2.0
_GRACE_SECONDS = 30


@dataclass(frozen=True)
class Flood:
    """Medians over rounds, microseconds, and what became of the flood in the last."""

    quiet_p50: float
    quiet_p99: float
    p50: float
    p99: float
    answered_per_second: float
    statuses: dict[str, int]
    closed: int


def measure_flood(
    paced: Path, server: Server, endpoint: Endpoint, say: Callable[[str], None]
) -> Flood:
    """Honest clients alone and beside the flood, in turn. Raises BenchError when one of them is not served."""
    quiet, beside = [], []
    told: dict[str, Any] = {}
    for number in range(1, ROUNDS + 1):
        say(f"flood: round {number} of {ROUNDS}: quiet")
        quiet.append(_honest(paced, endpoint))
        say(f"flood: round {number} of {ROUNDS}: {FLOOD_RATE:,} requests/s from one address")
        with _flood(paced, endpoint) as ends:
            time.sleep(_SETTLED)
            beside.append(_honest(paced, endpoint))
            told = ends()
    if server.roots() == ():
        raise BenchError(f"{server.name} is gone")
    return Flood(
        quiet_p50=_median(each["p50"] for each in quiet),
        quiet_p99=_median(each["p99"] for each in quiet),
        p50=_median(each["p50"] for each in beside),
        p99=_median(each["p99"] for each in beside),
        answered_per_second=told["requests"] / told["seconds"],
        statuses=told["statuses"],
        closed=told["closed"],
    )


def _median(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 2]


def _honest(paced: Path, endpoint: Endpoint) -> dict[str, float]:
    told: dict[str, float] = json.loads(_finish(_start(paced, endpoint, _SECONDS, honest=True)))
    return told


@contextlib.contextmanager
def _flood(paced: Path, endpoint: Endpoint) -> Iterator[Callable[[], dict[str, Any]]]:
    """The flood, and what to call for its end."""
    child = _start(paced, endpoint, _SECONDS + 2 * _SETTLED, honest=False)
    try:
        yield lambda: json.loads(_finish(child))
    finally:
        child.kill()
        child.wait()


def _start(
    paced: Path, endpoint: Endpoint, seconds: float, *, honest: bool
) -> subprocess.Popen[str]:
    url = urlsplit(endpoint.url)
    rate = HONEST_RATE if honest else FLOOD_RATE
    connections = HONEST_CLIENTS if honest else FLOOD_CONNECTIONS
    manner = (
        [f"--from={HONEST_FROM}", "--rest"]
        if honest
        else [
            f"--from={FLOOD_FROM}",
            "--any",
            f"--burst={FLOOD_BURST}",
        ]
    )
    words = [f"127.0.0.1:{url.port}", url.scheme, url.path, str(rate), str(seconds)]
    rank = _HONEST_RANK if honest else ["chrt", "--idle", "0"]
    command = [*rank, str(paced), *words, str(connections), *manner]
    child = subprocess.Popen(
        pinned(command, Mode.PINNED.load_cores),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ,
    )
    if child.stdin:
        child.stdin.write(_fields(endpoint, url.netloc))
        child.stdin.close()
        child.stdin = None
    return child


def _fields(endpoint: Endpoint, host: str) -> str:
    told = [("host", host), *endpoint.fields.items()]
    told += [("authorization", f"Bearer {token}") for token in endpoint.tokens[:1]]
    return "".join(f"{name}: {value}\n" for name, value in told)


def _finish(child: subprocess.Popen[str]) -> str:
    try:
        said, errors = child.communicate(timeout=_SECONDS + _GRACE_SECONDS)
    except subprocess.TimeoutExpired as error:
        child.kill()
        raise BenchError("the open loop did not end: the server stopped answering") from error
    if child.returncode:
        raise BenchError(f"the open loop ended with {child.returncode}: {errors[-500:]}")
    return said
