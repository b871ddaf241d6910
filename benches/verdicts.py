"""Holds the targets and says, figure by figure, whether a run met them.

Owns: the targets' limits and goals (issue 3, "How fast"; issue 4, "Figures"; design section 9).
Must not: measure, or soften a limit; a limit changes here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from cold import Cold
from density import Parts
from measure import Sample, Spread, paired_ratio, spread
from results import Results
from server import Mode

P99_UNMOVED = 1.10
"""A p99 within a tenth of what it was counts as unmoved: rounds of one server differ by more."""
WORKERD_US, WASMTIME_US, NGINX_US = 31.0, 33.0, 5.8
"""CPU a request of three peers on the machine the targets in microseconds were set on (design 9)."""

Figure = Callable[[Results], Spread | None]


@dataclass(frozen=True)
class Target:
    """`at_most` says on which side of limit and goal the figure must be."""

    name: str
    text: str
    unit: str
    at_most: bool
    limit: float
    goal: float | None
    figure: Figure


@dataclass(frozen=True)
class Verdict:
    """`ratio` is figure / limit; `said` is goal met, met, missed or not measured."""

    name: str
    text: str
    unit: str
    at_most: bool
    limit: float
    goal: float | None
    figure: Spread | None
    ratio: float | None
    said: str

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def judge(results: Results) -> list[Verdict]:
    """One verdict for each target, in the order of the issue."""
    return [_judge(target, results) for target in TARGETS]


def _judge(target: Target, results: Results) -> Verdict:
    figure = target.figure(results)
    fields = {k: getattr(target, k) for k in ("name", "text", "unit", "at_most", "limit", "goal")}
    if figure is None:
        return Verdict(**fields, figure=None, ratio=None, said="not measured")
    said = "missed"
    if _within(figure.median, target.limit, target.at_most):
        said = "met"
        if target.goal is not None and _within(figure.median, target.goal, target.at_most):
            said = "goal met"
    return Verdict(**fields, figure=figure, ratio=figure.median / target.limit, said=said)


def _within(value: float, bound: float, at_most: bool) -> bool:
    return value <= bound if at_most else value >= bound


def _rps(sample: Sample) -> float:
    return sample.requests_per_second


def _p99(sample: Sample) -> float:
    return sample.p99_us


def _cpu(sample: Sample) -> float:
    return sample.cpu_us


def _against(mode: Mode, row: str, peer: str, figure: Callable[[Sample], float]) -> Figure:
    def ratio(results: Results) -> Spread | None:
        ours, theirs = results.of(mode, row), results.of(mode, peer)
        return paired_ratio(ours, theirs, figure) if ours and theirs else None

    return ratio


def _cost(row: str) -> Figure:
    def cost(results: Results) -> Spread | None:
        rounds = results.of(Mode.PINNED, row)
        return spread([sample.cpu_us for sample in rounds]) if rounds else None

    return cost


def _part(pick: Callable[[Parts], float | None]) -> Figure:
    def single(results: Results) -> Spread | None:
        value = pick(results.parts) if results.parts else None
        return None if value is None else Spread(value, value, value)

    return single


def _cold(pick: Callable[[Cold], float]) -> Figure:
    def over_rounds(results: Results) -> Spread | None:
        rounds = results.parts.cold if results.parts else ()
        return spread([pick(cold) for cold in rounds]) if rounds else None

    return over_rounds


def _added(row: str, base: str, figure: Callable[[Sample], float]) -> Figure:
    """What a row takes longer than its base, round by round."""

    def difference(results: Results) -> Spread | None:
        ours, theirs = results.of(Mode.PINNED, row), results.of(Mode.PINNED, base)
        pairs = zip(ours, theirs, strict=False)
        rounds = [figure(over) - figure(under) for over, under in pairs]
        return spread(rounds) if rounds else None

    return difference


def _p50(sample: Sample) -> float:
    return sample.p50_us


def _micro(step: str) -> Figure:
    def single(results: Results) -> Spread | None:
        nanos = results.micro.get(step)
        return None if nanos is None else Spread(nanos / 1e3, nanos / 1e3, nanos / 1e3)

    return single


def _connection(results: Results) -> Spread | None:
    ours = results.connections.get("vedette")
    return None if ours is None else Spread(ours.each(), ours.each(), ours.each())


def _mb(kib: float) -> float:
    return kib * 1024 / 1e6


def _density_p99(results: Results) -> Spread | None:
    density = results.parts.density if results.parts else None
    if density is None or not density.before:
        return None
    return paired_ratio(density.after, density.before, _p99)


def _at_most(
    name: str, text: str, unit: str, limit: float, goal: float | None, figure: Figure
) -> Target:
    return Target(name, text, unit, at_most=True, limit=limit, goal=goal, figure=figure)


def _at_least(
    name: str, text: str, unit: str, limit: float, goal: float | None, figure: Figure
) -> Target:
    return Target(name, text, unit, at_most=False, limit=limit, goal=goal, figure=figure)


TARGETS = (
    _at_least(
        "requests",
        "all stages / workerd, requests/s, cores shared as in the field notes",
        "x",
        1.5,
        2.0,
        _against(Mode.SHARED, "vedette", "workerd", _rps),
    ),
    _at_most(
        "p99",
        "all stages / workerd, p99, cores shared",
        "x",
        1.0,
        None,
        _against(Mode.SHARED, "vedette", "workerd", _p99),
    ),
    _at_least(
        "requests-pinned",
        "all stages / workerd, requests/s, server on one core",
        "x",
        1.5,
        2.0,
        _against(Mode.PINNED, "vedette", "workerd", _rps),
    ),
    _at_most(
        "p99-pinned",
        "all stages / workerd, p99, server on one core",
        "x",
        1.0,
        None,
        _against(Mode.PINNED, "vedette", "workerd", _p99),
    ),
    _at_most(
        "cpu",
        "all stages, server CPU a request",
        "µs",
        32.0,
        25.0,
        _cost("vedette"),
    ),
    _at_most(
        "cpu-scaled",
        "the same against workerd's in this run (the targets were set where it took 31 µs)",
        "x",
        32.0 / WORKERD_US,
        25.0 / WORKERD_US,
        _against(Mode.PINNED, "vedette", "workerd", _cpu),
    ),
    _at_least(
        "open",
        "security off / wasmtime serve tuned, requests/s, cores shared",
        "x",
        1.4,
        None,
        _against(Mode.SHARED, "vedette-open", "wasmtime", _rps),
    ),
    _at_least(
        "open-pinned",
        "security off / wasmtime serve tuned, requests/s, server on one core",
        "x",
        1.4,
        None,
        _against(Mode.PINNED, "vedette-open", "wasmtime", _rps),
    ),
    _at_most(
        "open-cpu",
        "security off, server CPU a request",
        "µs",
        24.0,
        18.0,
        _cost("vedette-open"),
    ),
    _at_most(
        "open-cpu-scaled",
        "the same against wasmtime's in this run (the targets were set where it took 33 µs)",
        "x",
        24.0 / WASMTIME_US,
        18.0 / WASMTIME_US,
        _against(Mode.PINNED, "vedette-open", "wasmtime", _cpu),
    ),
    _at_least(
        "reuse",
        "component of WASI 0.3, instance reused / fresh, requests/s, server on one core",
        "x",
        1.5,
        None,
        _against(Mode.PINNED, "vedette-p3-reuse", "vedette-p3", _rps),
    ),
    _at_most(
        "security-path",
        "static answer / Envoy TLS + cached JWT + RBAC + limit, server CPU",
        "x",
        1.25,
        1.0,
        _against(Mode.PINNED, "vedette-static", "envoy-full", _cpu),
    ),
    _at_most(
        "cold",
        "first request of a function never loaded, over a warm one, median",
        "µs",
        500.0,
        200.0,
        _cold(lambda cold: cold.difference_p50),
    ),
    _at_most(
        "cold-p99",
        "the same, 99th percentile",
        "µs",
        500.0,
        200.0,
        _cold(lambda cold: cold.difference_p99),
    ),
    _at_most(
        "idle",
        "engine memory, idle (RSS)",
        "MB",
        40.0,
        None,
        _part(lambda parts: _mb(parts.idle.engine.rss) if parts.idle else None),
    ),
    _at_most(
        "density",
        "RSS a deployed and asked function adds",
        "MB",
        0.3,
        None,
        _part(lambda parts: _mb(parts.density.rss_each()) if parts.density else None),
    ),
    _at_least(
        "proxy",
        "a proxied 1 kB answer over TLS / Envoy's, requests/s",
        "x",
        1.0,
        None,
        _against(Mode.PINNED, "vedette-proxy", "envoy-proxy", _rps),
    ),
    _at_least(
        "proxy-nginx",
        "the same / nginx's",
        "x",
        0.8,
        None,
        _against(Mode.PINNED, "vedette-proxy", "nginx-proxy", _rps),
    ),
    _at_most(
        "added-p50",
        "latency of the whole path without a function over a plain answer, half load, median",
        "µs",
        60.0,
        None,
        _added("vedette-static-half", "nginx-half", _p50),
    ),
    _at_most(
        "added-p99",
        "the same, 99th percentile",
        "µs",
        300.0,
        None,
        _added("vedette-static-half", "nginx-half", _p99),
    ),
    _at_most("limit", "a rate limit's check", "µs", 0.5, None, _micro("limit")),
    _at_most("cedar", "a decision of 20 Cedar policies", "µs", 5.0, None, _micro("decision")),
    _at_most("cedar-again", "the same, remembered", "µs", 5.0, None, _micro("remembered")),
    _at_most("token", "a known token", "µs", 2.0, None, _micro("token")),
    _at_least(
        "handshakes",
        "TLS 1.3 connections a second / nginx's",
        "x",
        1.0,
        None,
        _against(Mode.PINNED, "vedette-new", "nginx-new", _rps),
    ),
    _at_most(
        "handshakes-cpu",
        "the same, server CPU a connection",
        "x",
        1.0,
        None,
        _against(Mode.PINNED, "vedette-new", "nginx-new", _cpu),
    ),
    _at_most(
        "connections",
        "an idle TLS connection of 10,000 (RSS)",
        "kB",
        20.0,
        None,
        _connection,
    ),
    _at_most(
        "density-p99",
        "p99 of one function with all others resident / before",
        "x",
        P99_UNMOVED,
        None,
        _density_p99,
    ),
)
