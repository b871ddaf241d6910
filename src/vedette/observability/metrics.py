"""Metrics in Prometheus' text form, made from the engine's counters and from what control knows.

Owns: the names, labels and help of every metric (docs/reference/metrics.md lists them). Must not: count anything
itself; the engine counts, and a metric that is not known is left out rather than shown as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

EngineCounters = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DriftFact:
    """How far what a model is asked or answers is from what is usual; `side`: input or score, `tensor`: which."""

    model: str
    version: int
    side: str
    tensor: str
    psi: float


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What control knows whether or not the engine answers; `restarts` maps a process's name to a count.

    `audited` is how many records the newest head of the audit log is of, `audited_at` when that was signed (Unix time).
    """

    version: str
    location: str
    generation: int | None
    functions: int
    restarts: Mapping[str, int] = field(default_factory=dict)
    audited: int | None = None
    audited_at: float | None = None
    drift: Sequence[DriftFact] = ()


class NodeCollector(Collector):
    """Reads both sides on every scrape. `read_engine` gives None when the engine is away."""

    def __init__(
        self, read_node: Callable[[], NodeFacts], read_engine: Callable[[], EngineCounters | None]
    ) -> None:
        self._read_node = read_node
        self._read_engine = read_engine

    def collect(self) -> Iterable[Metric]:
        """Every metric of the node, now."""
        node = self._read_node()
        counters = self._read_engine()
        yield from _node_metrics(node, engine_up=counters is not None)
        if counters is not None:
            yield from _request_metrics(counters, node.location)
            yield from _engine_metrics(counters, node.location)
            yield from _upstream_metrics(counters.get("upstreams", ()))
            yield from _model_metrics(counters.get("models", ()))
            yield from _tier_metrics(counters)


def render(collector: Collector) -> bytes:
    """The text that `GET /metrics` answers with."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)


def _gauge(
    name: str, help_text: str, value: float, labels: Mapping[str, str] | None = None
) -> Metric:
    labels = labels or {}
    family = GaugeMetricFamily(name, help_text, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def _counter(name: str, help_text: str, value: float, labels: Mapping[str, str]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def _by_cause(name: str, help_text: str, counts: Mapping[str, float], location: str) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=["edge_location", "cause"])
    for cause, count in counts.items():
        family.add_metric([location, cause], count)
    return family


def _node_metrics(node: NodeFacts, *, engine_up: bool) -> Iterable[Metric]:
    yield _gauge("vedette_build_info", "The version of this node.", 1, {"version": node.version})
    yield _gauge(
        "vedette_engine_up", "Whether the engine answers (1) or not (0).", float(engine_up)
    )
    yield _gauge("vedette_functions", "Functions in the active snapshot.", node.functions)
    if node.generation is not None:
        yield _gauge("vedette_snapshot_generation", "The active generation.", node.generation)
    if node.audited is not None and node.audited_at is not None:
        yield _gauge(
            "vedette_audit_records", "Records that the newest signed head is of.", node.audited
        )
        yield _gauge(
            "vedette_audit_head_timestamp_seconds",
            "When the newest head of the audit log was signed (Unix time).",
            node.audited_at,
        )
    restarts = CounterMetricFamily(
        "vedette_process_restarts",
        "Restarts of a process since the node started.",
        labels=["process"],
    )
    for process, count in node.restarts.items():
        restarts.add_metric([process], count)
    yield restarts
    drift = GaugeMetricFamily(
        "vedette_model_drift_psi",
        "Population stability index of what a model is asked or answers, beside what is usual.",
        labels=["model", "version", "side", "tensor"],
    )
    for each in node.drift:
        drift.add_metric([each.model, str(each.version), each.side, each.tensor], each.psi)
    if node.drift:
        yield drift


def _request_metrics(counters: EngineCounters, location: str) -> Iterable[Metric]:
    names = ["country", "route", "function", "status", "stage"]
    requests = CounterMetricFamily(
        "edge_requests",
        "Requests answered; stage names the stage that refused, if any.",
        labels=names,
    )
    for row in counters["requests"]:
        requests.add_metric([str(row.get(name) or "") for name in names], row["count"])
    yield requests
    durations = HistogramMetricFamily(
        "edge_response_time",
        "Seconds from the request's first byte to the response's last.",
        labels=["edge_location", "route"],
        unit="",
    )
    for row in counters["durations"]:
        buckets = cumulative_buckets(counters["bucketBounds"], row["buckets"], row["count"])
        durations.add_metric([location, str(row.get("route") or "")], buckets, row["sumSeconds"])
    yield durations


def cumulative_buckets(
    bounds: Iterable[float], counts: Iterable[int], total: int
) -> list[tuple[str, float]]:
    """Prometheus' cumulative buckets from counts per bucket; the last one, `+Inf`, is `total`."""
    buckets: list[tuple[str, float]] = []
    below = 0
    for bound, count in zip(bounds, counts, strict=False):
        below += count
        buckets.append((repr(float(bound)), below))
    buckets.append(("+Inf", total))
    return buckets


def _engine_metrics(counters: EngineCounters, location: str) -> Iterable[Metric]:
    at = {"edge_location": location}
    yield _counter("edge_errors", "Requests that ended in a 5xx status.", counters["errors"], at)
    yield _counter(
        "edge_cold_starts", "Functions loaded on their first request.", counters["coldStarts"], at
    )
    yield _counter(
        "edge_inspections_known",
        "Requests let pass because nothing was found when the same one came before.",
        counters["inspectionsKnown"],
        at,
    )
    yield _counter(
        "edge_fault_delays",
        "Requests held back on purpose.",
        counters.get("faultDelays", 0),
        at,
    )
    memory = GaugeMetricFamily(
        "edge_memory_usage_bytes",
        "The largest linear memory an instance has had, in bytes.",
        labels=["function_name"],
    )
    for row in counters["memoryBytes"]:
        memory.add_metric([str(row["function"])], row["bytes"])
    yield memory
    yield _gauge("edge_requests_in_flight", "Requests being answered.", counters["inFlight"], at)
    yield _gauge("edge_connections", "Open connections.", counters["connections"], at)
    yield _by_cause(
        "edge_refusals",
        "Requests refused or failed, and what never became one; cause as in records.",
        counters["refusals"],
        location,
    )
    yield _counter(
        "edge_challenge_passes",
        "Passes given for the work of a challenge.",
        counters["challengePasses"],
        at,
    )
    yield _gauge(
        "edge_pressure_level",
        "What is shed under pressure: 0 nothing, 1 challenge, 2 unknownExpensive, 3 unknown, "
        "4 knownExpensive.",
        counters["pressureLevel"],
        at,
    )
    yield _by_cause(
        "edge_connections_turned_away",
        "Connections closed before their first request; cause as in records.",
        counters["connectionsTurnedAway"],
        location,
    )
    yield _counter(
        "vedette_records_dropped",
        "Records that could not be written.",
        counters["recordsDropped"],
        {},
    )
    yield _counter(
        "vedette_logs_dropped", "Log lines of functions not kept.", counters["logsDropped"], {}
    )


def _model_metrics(rows: Iterable[Mapping[str, Any]]) -> Iterable[Metric]:
    both = ["model", "version"]
    requests = CounterMetricFamily("edge_model_requests", "Requests to a model.", labels=both)
    queue = CounterMetricFamily(
        "edge_model_queue_seconds", "Seconds that requests waited for a model.", labels=both
    )
    run = CounterMetricFamily("edge_model_run_seconds", "Seconds that a model ran.", labels=both)
    for row in rows:
        which = [str(row["model"]), str(row["version"])]
        requests.add_metric(which, row["requests"])
        queue.add_metric(which, row["queueMicros"] / 1e6)
        run.add_metric(which, row["runMicros"] / 1e6)
    yield from (requests, queue, run)


def _tier_metrics(counters: Mapping[str, Any]) -> Iterable[Metric]:
    """Who answered where a model may have others answer; an engine of before says nothing of it."""
    names = ["model", "version", "tier", "cache"]
    answers = CounterMetricFamily(
        "edge_model_answers", "Answers on routes with tiers or a cache.", labels=names
    )
    for row in counters.get("modelAnswers", ()):
        answers.add_metric([str(row[name]) for name in names], row["count"])
    calls = CounterMetricFamily(
        "edge_tier_calls", "Requests that a tier was to answer.", labels=["tier", "cause"]
    )
    for row in counters.get("tierCalls", ()):
        calls.add_metric([row["tier"], row["cause"]], row["count"])
    yield from (answers, calls)


# Name, help and the engine's word; `counter` gets Prometheus' `_total`.
_UPSTREAM_COUNTERS = (
    ("edge_upstream_requests", "Requests for a service.", "requests"),
    (
        "edge_upstream_failures",
        "Requests for a service without an answer, after all tries.",
        "failures",
    ),
    ("edge_upstream_retries", "Second and further tries.", "retries"),
    ("edge_upstream_hedges", "Requests sent to another endpoint while one waited.", "hedges"),
    ("edge_upstream_hedges_won", "Hedges that answered first.", "hedgesWon"),
    ("edge_upstream_mirrors_dropped", "Copies of requests that were not sent.", "mirrorsDropped"),
)
_ENDPOINT_COUNTERS = (
    ("edge_upstream_endpoint_requests", "Requests sent to an endpoint.", "requests"),
    ("edge_upstream_endpoint_failures", "Requests that an endpoint failed.", "failures"),
    ("edge_upstream_endpoint_ejections", "Times an endpoint was left out.", "ejections"),
)
_ENDPOINT_GAUGES = (
    ("edge_upstream_endpoint_ready", "Whether an endpoint can be expected to answer (1).", "ready"),
    ("edge_upstream_endpoint_requests_in_flight", "Requests being answered.", "inFlight"),
    ("edge_upstream_endpoint_connections", "Open connections to an endpoint.", "connections"),
)
_CIRCUIT_COUNTERS = (
    ("edge_upstream_circuit_opened", "Times a breaker opened.", "opened"),
    ("edge_upstream_circuit_refused", "Tries not made since a breaker was open.", "refused"),
)
_CIRCUIT_STATES = ("closed", "half-open", "open")


_Found = list[tuple[list[str], Mapping[str, Any]]]


def _upstream_metrics(rows: Iterable[Mapping[str, Any]]) -> Iterable[Metric]:
    services: _Found = [([row["name"]], row) for row in rows]
    endpoints: _Found = [
        ([row["name"], _authority(each["host"], each["port"])], each)
        for _, row in services
        for each in row["endpoints"]
    ]
    both = ["upstream", "endpoint"]
    for name, text, key in _UPSTREAM_COUNTERS:
        yield _filled(CounterMetricFamily(name, text, labels=["upstream"]), services, key)
    yield from _circuit_metrics(services)
    for name, text, key in _ENDPOINT_COUNTERS:
        yield _filled(CounterMetricFamily(name, text, labels=both), endpoints, key)
    for name, text, key in _ENDPOINT_GAUGES:
        yield _filled(GaugeMetricFamily(name, text, labels=both), endpoints, key)


def _circuit_metrics(services: _Found) -> Iterable[Metric]:
    """Of services that have a breaker; an engine from before there were any does not say."""
    circuits: _Found = [
        (labels, {**row["circuit"], "number": _CIRCUIT_STATES.index(row["circuit"]["state"])})
        for labels, row in services
        if row.get("circuit") is not None
    ]
    text = "How a breaker stands: 0 closed, 1 half-open, 2 open."
    gauge = GaugeMetricFamily("edge_upstream_circuit_state", text, labels=["upstream"])
    yield _filled(gauge, circuits, "number")
    for name, text, key in _CIRCUIT_COUNTERS:
        yield _filled(CounterMetricFamily(name, text, labels=["upstream"]), circuits, key)


def _filled(
    family: CounterMetricFamily | GaugeMetricFamily, found: _Found, key: str
) -> CounterMetricFamily | GaugeMetricFamily:
    for values, row in found:
        family.add_metric(values, float(row.get(key, 0)))
    return family


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
