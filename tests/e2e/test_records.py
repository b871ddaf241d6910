"""What every request leaves behind: headers on the answer, one record, a trace, and counters."""

from __future__ import annotations

import json
import re
import urllib.request
from datetime import UTC, datetime

import pytest
from tests.e2e.caller import Caller
from tests.e2e.node import Node, wait_until

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
VALID = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


def test_a_record_says_who_what_and_how_long(caller: Caller, node: Node) -> None:
    answer = caller.ask("/hello/there?secret=1", headers={"user-agent": "e2e"})
    record = caller.expect_recorded(answer, 200)
    assert record["kind"] == "request"
    assert record["location"] == "local"
    assert record["snapshot"] == node.status()["snapshot"]["digest"]
    assert (record["method"], record["host"], record["path"]) == (
        "GET",
        "localhost",
        "/hello/there",
    )
    assert (record["route"], record["function"], record["outcome"]) == ("hello", "hello", "served")
    assert (record["listener"], record["sni"]) == ("https", "localhost")
    assert record["client"].startswith("127.0.0.1:")
    assert record["policies"] == ["node-token"]
    assert record["bytesOut"] == len(answer.body)
    component = next(each for each in node.status()["functions"] if each["name"] == "hello")
    assert record["component"] == component["digest"]
    stages = {"admit", "route", "authenticate", "limit", "authorize"}
    stages |= {"inspect", "execute", "respond"}
    assert set(record["timingsUs"]) == stages
    assert all(value >= 0 for value in record["timingsUs"].values())
    assert sum(record["timingsUs"].values()) <= record["totalUs"] + len(stages)
    moment = datetime.fromisoformat(record["time"])
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 60
    assert "secret" not in json.dumps(record), "the query may hold anything; it is not recorded"


def test_a_token_is_never_recorded(caller: Caller, node: Node) -> None:
    record = node.record(caller.ask("/hello").request_id)
    assert node.usual_token.split(".")[2] not in json.dumps(record)


def test_the_processing_time_is_in_microseconds(caller: Caller) -> None:
    answer = caller.ask("/tight/never")
    record = caller.expect_recorded(answer, 504)
    told = int(answer.headers["x-edge-processing-time-us"])
    assert 600_000 <= told < 5_000_000
    assert 600_000 <= record["timingsUs"]["execute"] < 5_000_000


def test_request_ids_are_unique_and_a_callers_own_is_not_taken(caller: Caller) -> None:
    answers = [caller.ask("/hello", headers={"x-request-id": "mine"}) for _ in range(20)]
    ids = {answer.request_id for answer in answers}
    assert len(ids) == 20
    assert "mine" not in ids


def test_a_trace_goes_on(caller: Caller) -> None:
    sent = f"00-{TRACE}-{PARENT}-01"
    answer = caller.ask("/hostile/headers", headers={"traceparent": sent, "tracestate": "a=b"})
    seen = json.loads(answer.body)
    match = VALID.fullmatch(seen["traceparent"])
    assert match
    assert match[1] == TRACE
    assert match[2] != PARENT
    assert seen["tracestate"] == "a=b"
    record = caller.expect_recorded(answer, 200)
    assert TRACE in record["traceparent"]
    assert TRACE in answer.headers["traceparent"]


@pytest.mark.parametrize(
    "sent",
    [
        None,
        "nonsense",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
    ],
)
def test_a_trace_begins_when_none_came_or_it_was_malformed(
    caller: Caller, sent: str | None
) -> None:
    """W3C Trace Context section 3.2: an invalid traceparent is ignored and a new one is made."""
    headers = {"traceparent": sent} if sent else {}
    answer = caller.ask("/hostile/headers", headers=headers)
    match = VALID.fullmatch(json.loads(answer.body)["traceparent"])
    assert match
    assert match[1] not in (TRACE, "0" * 32)
    record = caller.expect_recorded(answer, 200)
    assert match[1] in record["traceparent"]


def test_a_refusal_is_traced_too(caller: Caller) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    answer = caller.ask("/hello", anonymous=True, headers=headers)
    record = caller.expect_refused(answer, 401, "authenticate", "credentials_required")
    assert TRACE in record["traceparent"]


def test_head_has_no_body_and_keeps_the_connection(caller: Caller) -> None:
    for _ in range(3):
        answer = caller.ask("/hello", method="HEAD")
        assert answer.body == b""
        caller.expect_recorded(answer, 200)


# --- counters


def _samples(node: Node) -> dict[str, float]:
    with urllib.request.urlopen(node.status()["metrics"]["url"], timeout=60) as answer:
        text = answer.read().decode()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {key: float(value) for key, _, value in (line.rpartition(" ") for line in lines)}


def _sum(samples: dict[str, float], name: str, *labels: str) -> float:
    return sum(
        value
        for key, value in samples.items()
        if key.partition("{")[0] == name and all(label in key for label in labels)
    )


def test_requests_are_counted(caller: Caller, node: Node) -> None:
    labels = ('function="hello"', 'status="200"', 'country="')
    before = _sum(_samples(node), "edge_requests_total", *labels)
    for _ in range(5):
        assert caller.ask("/hello").status == 200
    wait_until(
        "five more are counted",
        lambda: _sum(_samples(node), "edge_requests_total", *labels) == before + 5,
    )


def test_refusals_are_counted_by_stage(caller: Caller, node: Node) -> None:
    labels = ('stage="authenticate"', 'status="401"')
    before = _sum(_samples(node), "edge_requests_total", *labels)
    caller.ask("/hello", anonymous=True)
    wait_until(
        "one more is counted",
        lambda: _sum(_samples(node), "edge_requests_total", *labels) == before + 1,
    )


def test_every_promised_metric_is_there(caller: Caller, node: Node) -> None:
    assert caller.ask("/tight/trap-before").status == 500
    samples = _samples(node)
    names = {key.partition("{")[0] for key in samples}
    assert {
        "edge_requests_total",
        "edge_response_time_bucket",
        "edge_errors_total",
        "edge_cold_starts_total",
        "edge_memory_usage_bytes",
        "vedette_build_info",
    } <= names
    assert _sum(samples, "edge_errors_total", 'edge_location="local"') >= 1
    assert _sum(samples, "edge_cold_starts_total", 'edge_location="local"') >= 1
    assert _sum(samples, "edge_memory_usage_bytes", 'function_name="hello"') >= 65_536
    total = _sum(samples, "edge_response_time_bucket", 'le="+Inf"')
    assert total == _sum(samples, "edge_response_time_count")


def test_metrics_are_on_the_admin_socket_as_well(node: Node) -> None:
    with node.admin() as admin:
        answer = admin.get("/metrics")
    assert answer.status_code == 200
    assert "edge_requests_total" in answer.text


def test_records_are_shown_through_the_admin_api(caller: Caller, node: Node) -> None:
    answer = caller.ask("/hello")
    node.record(answer.request_id)
    with node.admin() as admin:
        lines = admin.get("/v1/records", params={"tail": 50}).text.splitlines()
    assert answer.request_id in {json.loads(line)["requestId"] for line in lines}
