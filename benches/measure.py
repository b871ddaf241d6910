"""Measures one endpoint once: the load, and what the server spent meanwhile.

Owns: the window around a load run, the figures of one round, medians and spreads over rounds.
Must not: start servers, choose rows or judge.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from load import Answered, LoadTools, run_h2load, run_paced, run_wrk
from processes import BenchError, cpu_seconds, machine_busy_seconds
from server import Endpoint, Mode, Server

Tool = Literal["wrk", "wrk-new", "h2load", "paced"]


@dataclass(frozen=True)
class Load:
    """How a row is asked; `rate` in requests a second is for the open loop."""

    tool: Tool
    seconds: float
    rate: float | None = None


@dataclass(frozen=True)
class Sample:
    """One round of one row. CPU in microseconds a request; latencies in microseconds."""

    requests_per_second: float
    cpu_us: float
    whole_cpu_us: float | None
    """CPU of all the product's processes (supervisor, engine, control), where there are more."""
    busy: float
    """Share of the window the server was on a core: near 1.0 it was the limit, not the load."""
    p50_us: float
    p99_us: float
    others: float
    """Cores' worth of CPU that neither server nor load used: the noise of the round."""


@dataclass(frozen=True)
class Spread:
    """Median, least and most of one figure over the rounds."""

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Median, least and most; values must not be empty."""
    return Spread(statistics.median(values), min(values), max(values))


def measure(
    tools: LoadTools,
    server: Server,
    endpoint: Endpoint,
    load: Load,
    mode: Mode,
    warm_up: float,
) -> Sample:
    """Warms up, then loads. Raises BenchError when the server was replaced."""

    def run(seconds: float) -> Answered:
        match load.tool:
            case "h2load":
                return run_h2load(tools, endpoint, seconds, mode.load_cores)
            case "paced":
                return run_paced(tools, endpoint, seconds, load.rate or 0.0, mode.load_cores)
            case _:
                again = load.tool == "wrk-new"
                return run_wrk(tools, endpoint, seconds, mode.load_cores, reconnect=again)

    run(warm_up)
    roots, whole = server.roots(), server.whole() if server.whole else None
    started, machine, cpu = time.monotonic(), machine_busy_seconds(), cpu_seconds(roots)
    whole_cpu = cpu_seconds(whole) if whole else 0.0
    answered = run(load.seconds)
    spent = cpu_seconds(roots) - cpu
    whole_spent = cpu_seconds(whole) - whole_cpu if whole else None
    window, busy = time.monotonic() - started, machine_busy_seconds() - machine
    if server.roots() != roots:
        raise BenchError(f"{server.name} was restarted while it was measured; see its logs")
    ours = (whole_spent if whole_spent is not None else spent) + answered.load_cpu_seconds
    return _sample(answered, spent, whole_spent, window, max(0.0, busy - ours))


def _sample(
    answered: Answered, spent: float, whole: float | None, window: float, others: float
) -> Sample:
    return Sample(
        requests_per_second=answered.requests / answered.seconds,
        cpu_us=spent / answered.requests * 1e6,
        whole_cpu_us=None if whole is None else whole / answered.requests * 1e6,
        busy=spent / window,
        p50_us=answered.p50_us,
        p99_us=answered.p99_us,
        others=others / window,
    )


def paired_ratio(
    upper: Sequence[Sample], lower: Sequence[Sample], figure: Callable[[Sample], float]
) -> Spread:
    """figure(upper) / figure(lower), round by round: rounds are interleaved, so noise cancels."""
    pairs = zip(upper, lower, strict=False)
    return spread([figure(over) / figure(under) for over, under in pairs])
