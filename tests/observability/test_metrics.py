"""Metric names, labels and values, from the engine's counters."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.simulators.engine import METRICS

from vedette.observability import metrics

DRIFT = metrics.DriftFact("digits", 3, "input", "x", 0.31)
FACTS = metrics.NodeFacts("1.2.3", "fra-1", 4, 2, {"engine": 1, "control": 0}, 12, 1.5, [DRIFT])


def samples(
    counters: metrics.EngineCounters | None,
) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = metrics.render(metrics.NodeCollector(lambda: FACTS, lambda: counters)).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(name: str, counters: metrics.EngineCounters | None = METRICS, **labels: str) -> float:
    return samples(counters)[(name, frozenset(labels.items()))]


def test_requests_are_counted_by_country_route_function_status_and_stage() -> None:
    served = {"country": "", "route": "hello", "function": "hello", "status": "200", "stage": ""}
    refused = {**served, "function": "", "status": "401", "stage": "authenticate"}
    assert value("edge_requests_total", **served) == 7
    assert value("edge_requests_total", **refused) == 2


def test_response_time_is_a_cumulative_histogram_in_seconds() -> None:
    at = {"edge_location": "fra-1", "route": "hello"}
    buckets = [
        value("edge_response_time_bucket", **at, le=le) for le in ("0.001", "0.01", "0.1", "+Inf")
    ]
    assert buckets == [1, 4, 4, 9]
    assert value("edge_response_time_sum", **at) == 0.5
    assert value("edge_response_time_count", **at) == 9


def test_the_other_metrics_have_the_documented_names_and_labels() -> None:
    assert value("edge_errors_total", edge_location="fra-1") == 1
    assert value("edge_cold_starts_total", edge_location="fra-1") == 3
    assert value("edge_inspections_known_total", edge_location="fra-1") == 7
    assert value("edge_memory_usage_bytes", function_name="hello") == 65536
    assert value("vedette_build_info", version="1.2.3") == 1
    assert value("vedette_records_dropped_total") == 0
    asked = {"edge_location": "fra-1", "cause": "challenge_required"}
    assert value("edge_refusals_total", **asked) == 4
    assert value("edge_fault_delays_total", edge_location="fra-1") == 5
    assert value("edge_challenge_passes_total", edge_location="fra-1") == 3
    assert value("edge_pressure_level", edge_location="fra-1") == 1
    away = {"edge_location": "fra-1", "cause": "address_blocked"}
    assert value("edge_connections_turned_away_total", **away) == 6


def test_models_are_counted_by_name_and_version_with_their_times_in_seconds() -> None:
    which = {"model": "digits", "version": "3"}
    for name, number in (("requests", 4), ("queue_seconds", 0.0005), ("run_seconds", 1.25)):
        assert value(f"edge_model_{name}_total", **which) == number


def test_drift_is_told_by_model_and_tensor() -> None:
    which = {"model": "digits", "version": "3", "side": "input", "tensor": "x"}
    assert value("vedette_model_drift_psi", None, **which) == 0.31


def test_answers_are_counted_by_the_tier_that_gave_them_and_by_what_was_remembered() -> None:
    model = {"model": "digits", "version": "3"}
    answers = "edge_model_answers_total"
    assert value(answers, **model, tier="edge", cache="hit") == 5
    assert value(answers, **model, tier="regional", cache="") == 2
    assert value("edge_tier_calls_total", tier="regional", cause="tier_invalid") == 1


def test_services_are_counted_by_upstream_and_their_endpoints_by_address() -> None:
    counted = {"requests": 12, "failures": 3, "retries": 2, "hedges": 4, "hedges_won": 3}
    counted |= {"mirrors_dropped": 1, "circuit_opened": 2, "circuit_refused": 9}
    for name, number in counted.items():
        assert value(f"edge_upstream_{name}_total", upstream="shop") == number
    assert value("edge_upstream_circuit_state", upstream="shop") == 2
    at = {"upstream": "shop", "endpoint": "10.0.0.7:8080"}
    for name, number in (("requests", 14), ("failures", 5), ("ejections", 1)):
        assert value(f"edge_upstream_endpoint_{name}_total", **at) == number
    for name, number in (("ready", 0), ("requests_in_flight", 1), ("connections", 2)):
        assert value(f"edge_upstream_endpoint_{name}", **at) == number


def test_an_engine_of_before_that_knows_no_services_is_read() -> None:
    before = {name: each for name, each in METRICS.items() if name != "upstreams"}
    assert value("edge_errors_total", before, edge_location="fra-1") == 1


def test_every_metric_is_in_the_reference() -> None:
    reference = Path(__file__).resolve().parents[2] / "docs/reference/metrics.md"
    rows = re.compile(r"^\| `((?:edge|vedette)_[a-z_]+)`", re.MULTILINE)
    documented = set(rows.findall(reference.read_text("utf-8")))
    histogram = re.compile(r"_(bucket|sum|count)$")
    rendered = {name for name, _ in samples(METRICS) if not name.endswith("_created")}
    assert {histogram.sub("_bucket", name) if "time" in name else name for name in rendered} == (
        documented
    )


def test_without_an_engine_control_says_what_it_knows() -> None:
    assert value("vedette_engine_up", None) == 0
    assert value("vedette_engine_up") == 1
    assert value("vedette_snapshot_generation", None) == 4
    assert value("vedette_audit_records", None) == 12
    assert value("vedette_audit_head_timestamp_seconds", None) == 1.5
    assert value("vedette_process_restarts_total", None, process="engine") == 1
    assert not any(name.startswith("edge_") for name, _ in samples(None))


@pytest.mark.parametrize(("state", "number"), [("closed", 0), ("half-open", 1), ("open", 2)])
def test_a_breaker_is_a_number_and_a_service_without_one_has_none(state: str, number: int) -> None:
    [shop] = METRICS["upstreams"]
    stands = {**METRICS, "upstreams": [{**shop, "circuit": {**shop["circuit"], "state": state}}]}
    assert value("edge_upstream_circuit_state", stands, upstream="shop") == number
    for without in ({**shop, "circuit": None}, {k: v for k, v in shop.items() if k != "circuit"}):
        found = samples({**METRICS, "upstreams": [without]})
        assert not [name for name, _ in found if name.startswith("edge_upstream_circuit")]
