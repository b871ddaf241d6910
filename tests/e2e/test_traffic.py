"""Services that fail or are slow: what is left alone, what is asked twice, and what fails on purpose."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.caller import Caller
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node, wait_until
from tests.e2e.wire import HTTP_1, Answer, connect
from tests.simulators.service import Service

UPSTREAMS = """\
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: {name}}}
spec:
  endpoints: {endpoints}
{more}
---
"""
ROUTES = """\
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: traffic}
spec:
  public: true
  rules:
    - matches: [{path: {value: /failing}}]
      backendRefs: [{kind: Upstream, group: vedette.dev, name: failing}]
    - matches: [{path: {value: /slow}}]
      backendRefs: [{kind: Upstream, group: vedette.dev, name: slow}]
    - matches: [{path: {value: /broken}}]
      backendRefs: [{kind: Upstream, group: vedette.dev, name: broken}]
    - matches: [{path: {value: /trial}}]
      backendRefs: [{kind: Upstream, group: vedette.dev, name: trial}]
    - matches: [{path: {value: /hedged}}]
      hedge: {after: 50ms}
      backendRefs: [{kind: Upstream, group: vedette.dev, name: pair}]
    - matches: [{path: {value: /tries}}]
      timeouts: {request: 50s, backendRequest: 300ms}
      retry: {attempts: 1}
      backendRefs: [{kind: Upstream, group: vedette.dev, name: pair}]
    - matches: [{path: {value: /aborted}}]
      fault: {abort: {percentage: 100, httpStatus: 418}}
      backendRefs: [{kind: Upstream, group: vedette.dev, name: pair}]
    - matches: [{path: {value: /unavailable}}]
      fault: {abort: {percentage: 100, httpStatus: 503}}
      static: {body: never}
    - matches: [{path: {value: /never}}]
      fault: {delay: {percentage: 0, fixedDelay: 10m}, abort: {percentage: 0, httpStatus: 500}}
      backendRefs: [{kind: Upstream, group: vedette.dev, name: pair}]
    - matches: [{path: {value: /late}}]
      fault: {delay: {percentage: 100, fixedDelay: 300ms}}
      timeouts: {request: 250ms}
      backendRefs: [{kind: Upstream, group: vedette.dev, name: pair}]
    - matches: [{path: {value: /held}}]
      fault: {delay: {percentage: 100, fixedDelay: 10m}}
      backendRefs: [{kind: Upstream, group: vedette.dev, name: pair}]
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: private}
spec:
  rules:
    - matches: [{path: {value: /private}}]
      fault: {delay: {percentage: 100, fixedDelay: 10m}, abort: {percentage: 100, httpStatus: 418}}
      backendRefs: [{kind: Upstream, group: vedette.dev, name: pair}]
"""


class Services:
    """A service for each thing that goes wrong, and a good one beside those that need it."""

    def __init__(self) -> None:
        names = ("failing", "slow", "broken", "trial", "one", "two", "well")
        self.all = {name: Service(name) for name in names}

    def __getitem__(self, name: str) -> Service:
        return self.all[name]

    def manifest(self) -> str:
        """The upstreams that tests ask for."""
        shares = "requestVolume: 2, interval: 1h, ejection: 1h"
        outlier = f"consecutiveFailures: 0, {shares}"
        said: dict[str, tuple[list[tuple[str, int]], str]] = {
            "failing": (
                [("failing", 1), ("well", 1)],
                f"outlier: {{{outlier}, failurePercentage: 50}}",
            ),
            "slow": ([("slow", 1), ("well", 1)], f"outlier: {{{outlier}, slowDuration: 2s}}"),
            "broken": ([("broken", 1)], "breaker: {consecutiveFailures: 3, pause: 1h}"),
            "trial": (
                [("trial", 1)],
                "breaker: {consecutiveFailures: 3, pause: 300ms, trials: 2}",
            ),
            "pair": ([("one", 1_000), ("two", 1)], "retryPercent: 100"),
        }
        texts = []
        for name, (members, more) in said.items():
            endpoints = [
                {"url": f"http://127.0.0.1:{self[member].port}", "weight": weight}
                for member, weight in members
            ]
            text = UPSTREAMS.format(name=name, endpoints=json.dumps(endpoints), more=f"  {more}")
            texts.append(text)
        return "".join(texts)


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    found = Services()
    yield found
    for each in found.all.values():
        each.gate.set()
        each.close()


@pytest.fixture(scope="module")
def gateway(start_node: StartNode, services: Services) -> Node:
    node = start_node()
    node.apply(services.manifest() + ROUTES)
    return node


@pytest.fixture
def caller(gateway: Node) -> Iterator[Caller]:
    caller = Caller(gateway, HTTP_1)
    yield caller
    caller.close()


def upstream(node: Node, name: str) -> dict[str, Any]:
    [found] = json.loads(node.run("upstreams", name, "--json").stdout)
    return dict(found)


def endpoint(node: Node, name: str, port: int) -> dict[str, Any]:
    [found] = [each for each in upstream(node, name)["endpoints"] if each["port"] == port]
    return dict(found)


def metric(node: Node, line: str) -> float:
    with node.admin() as admin:
        text = admin.get("/metrics").text
    [found] = [each for each in text.splitlines() if each.startswith(f"{line} ")]
    return float(found.rpartition(" ")[2])


# --- endpoints


def test_an_endpoint_is_left_out_for_its_share_of_failures(
    gateway: Node, caller: Caller, services: Services
) -> None:
    failing = services["failing"]
    failing.status = 503
    while len(failing.asked) < 2:
        assert caller.ask("/failing/x", anonymous=True).status in (200, 503)
    for _ in range(20):
        assert caller.ask("/failing/x", anonymous=True).status == 200
    assert len(failing.asked) == 2
    told = endpoint(gateway, "failing", failing.port)
    assert (told["state"], told["ejections"]) == ("ejected", 1)
    assert told["lastError"]["message"] == "2 of 2 requests failed"


def test_an_endpoint_is_left_out_for_its_share_of_slow_answers(
    gateway: Node, caller: Caller, services: Services
) -> None:
    slow = services["slow"]
    slow.pause = 2.1
    while len(slow.asked) < 2:
        assert caller.ask("/slow/x", anonymous=True).status == 200
    told = endpoint(gateway, "slow", slow.port)
    assert (told["state"], told["failures"]) == ("ejected", 0)
    assert told["lastError"]["message"] == "2 of 2 answers took 2s or longer"
    for _ in range(20):
        assert caller.ask("/slow/x", anonymous=True).status == 200
    assert len(slow.asked) == 2


# --- the whole service


def test_a_service_that_fails_is_not_asked_any_more(
    gateway: Node, caller: Caller, services: Services
) -> None:
    broken = services["broken"]
    broken.status = 503
    for _ in range(3):
        assert caller.ask("/broken/x", anonymous=True).status == 503
    broken.status = 200  # it would answer now
    answer = caller.ask("/broken/x", anonymous=True)
    record = caller.expect_recorded(answer, 503)
    assert (record["stage"], record["cause"]) == ("execute", "circuit_open")
    assert (record["outcome"], record["upstream"]) == ("refused", "broken")
    assert json.loads(answer.body)["error"] == "The service is not available"
    assert 3_000 < int(answer.headers["retry-after"]) <= 3_600
    assert len(broken.asked) == 3
    told = upstream(gateway, "broken")
    circuit = told["circuit"]
    assert (circuit["state"], circuit["opened"], circuit["refused"]) == ("open", 1, 1)
    assert circuit["why"] == "3 failures in a row"
    assert told["breaker"]["pauseMillis"] == 3_600_000
    shown = gateway.run("upstreams", "broken", "--failing").stdout
    assert f"circuit open until {circuit['openUntil']} (3 failures in a row)" in shown
    assert metric(gateway, 'edge_upstream_circuit_state{upstream="broken"}') == 2
    assert metric(gateway, 'edge_upstream_circuit_opened_total{upstream="broken"}') == 1
    refused = 'edge_refusals_total{cause="circuit_open",edge_location="'
    with gateway.admin() as admin:
        assert refused in admin.get("/metrics").text


def test_trials_that_go_well_close_it_and_one_that_does_not_opens_it_again(
    gateway: Node, caller: Caller, services: Services
) -> None:
    trial = services["trial"]
    trial.status = 502

    def state() -> str:
        return str(upstream(gateway, "trial")["circuit"]["state"])

    def answered() -> Answer:
        return caller.ask("/trial/x", anonymous=True)

    assert [answered().status for _ in range(3)] == [502] * 3
    wait_until("it is half-open", lambda: state() == "half-open")
    assert answered().status == 502
    assert state() in ("open", "half-open")
    assert upstream(gateway, "trial")["circuit"]["opened"] == 2
    trial.status = 200
    wait_until("it is half-open", lambda: state() == "half-open")
    assert [answered().status for _ in range(2)] == [200] * 2
    assert state() == "closed"


def test_a_hundred_requests_at_once_open_it_once_and_let_two_trials_go(
    gateway: Node, services: Services
) -> None:
    trial = services["trial"]
    before = upstream(gateway, "trial")["circuit"]["opened"]
    trial.status = 503
    trial.gate.clear()
    known = len(trial.asked)
    callers = [Caller(gateway, HTTP_1) for _ in range(100)]

    def ask(caller: Caller) -> int:
        return caller.ask("/trial/x", anonymous=True).status

    try:
        with ThreadPoolExecutor(100) as pool:
            asking = [pool.submit(ask, caller) for caller in callers]
            wait_until("all are under way", lambda: len(trial.asked) == known + 100)
            trial.gate.set()
            assert {each.result(60) for each in asking} == {503}
            assert upstream(gateway, "trial")["circuit"]["opened"] == before + 1
            trial.gate.clear()
            trial.status = 200
            wait_until(
                "it is half-open",
                lambda: upstream(gateway, "trial")["circuit"]["state"] == "half-open",
            )
            trials = [pool.submit(ask, caller) for caller in callers[:2]]
            wait_until("both are under way", lambda: len(trial.asked) == known + 102)
            # A trial that takes longer than a pause holds no place: these three are asked within one, or let go.
            others = [pool.submit(ask, caller) for caller in callers[2:5]]
            trial.gate.set()
            assert {each.result(60) for each in trials} == {200}
            assert {each.result(60) for each in others} <= {200, 503}
    finally:
        trial.gate.set()
        for caller in callers:
            caller.close()
    assert upstream(gateway, "trial")["circuit"]["state"] == "closed"


# --- hedges


def hedged(caller: Caller, path: str = "/hedged/x", **parts: Any) -> tuple[Answer, dict[str, Any]]:
    """An answer that took two tries: which endpoint is asked first is drawn."""
    while True:
        answer = caller.ask(path, anonymous=True, **parts)
        record = caller.node.record(answer.request_id)
        if record.get("tries") == 2:
            return answer, record


def test_the_other_endpoint_answers_while_the_first_waits(
    gateway: Node, caller: Caller, services: Services
) -> None:
    services["one"].gate.clear()
    try:
        answer, record = hedged(caller)
    finally:
        services["one"].gate.set()
    assert json.loads(answer.body)["service"] == "two"
    assert (record["hedgeWon"], record["outcome"], record["status"]) == (True, "served", 200)
    told = upstream(gateway, "pair")
    assert told["hedges"] >= told["hedgesWon"] >= 1
    assert metric(gateway, 'edge_upstream_hedges_won_total{upstream="pair"}') >= 1


def test_when_both_fail_the_caller_hears_of_it(caller: Caller, services: Services) -> None:
    one, two = services["one"], services["two"]
    one.status, two.status, one.pause = 502, 503, 0.5
    try:
        answer, record = hedged(caller)
    finally:
        one.status, two.status, one.pause = 200, 200, 0
    assert answer.status in (502, 503)
    assert "hedgeWon" not in record


def test_what_is_not_safe_is_asked_once(caller: Caller, services: Services) -> None:
    one = services["one"]
    one.pause = 0.3
    before = sum(len(services[name].asked) for name in ("one", "two"))
    try:
        answer = caller.ask("/hedged/x", method="POST", body=b"x", anonymous=True)
    finally:
        one.pause = 0
    assert answer.status == 200
    assert "tries" not in caller.node.record(answer.request_id)
    assert sum(len(services[name].asked) for name in ("one", "two")) == before + 1


def test_each_try_has_a_time_of_its_own_within_the_whole(
    caller: Caller, services: Services
) -> None:
    services["one"].gate.clear()
    try:
        answer, record = hedged(caller, "/tries/x")
    finally:
        services["one"].gate.set()
    assert (answer.status, json.loads(answer.body)["service"]) == (200, "two")
    assert "hedgeWon" not in record


# --- faults


def test_all_of_a_hundred_percent_are_aborted_and_none_of_no_percent(
    caller: Caller, services: Services
) -> None:
    before = sum(len(services[name].asked) for name in ("one", "two"))
    for path, status in (("/aborted/x", 418), ("/unavailable", 503)):
        for _ in range(10):
            answer = caller.ask(path, anonymous=True)
            record = caller.expect_recorded(answer, status)
            assert (record["stage"], record["cause"]) == ("execute", "fault_injected")
            assert record["outcome"] == "refused"
            assert ("retry-after" in answer.headers) == (status == 503)
            assert "never" not in answer.body.decode()
    assert sum(len(services[name].asked) for name in ("one", "two")) == before
    for _ in range(50):
        answer = caller.ask("/never/x", anonymous=True)
        assert answer.status == 200
        assert "faultDelayMillis" not in caller.node.record(answer.request_id)


def test_a_delay_comes_before_the_service_and_its_time(gateway: Node, caller: Caller) -> None:
    answer = caller.ask("/late/x", anonymous=True)
    record = caller.expect_recorded(answer, 200)
    assert record["faultDelayMillis"] == 300
    assert record["timingsUs"]["execute"] >= 300_000
    at = gateway.status()["location"]
    assert metric(gateway, f'edge_fault_delays_total{{edge_location="{at}"}}') >= 1


def test_who_may_not_call_learns_nothing_of_faults(caller: Caller) -> None:
    answer = caller.ask("/private/x", anonymous=True)
    record = caller.expect_recorded(answer, 401)
    assert record["stage"] != "execute"
    assert "faultDelayMillis" not in record


def test_a_delay_ends_when_the_client_leaves(gateway: Node, services: Services) -> None:
    before = sum(len(services[name].asked) for name in ("one", "two"))
    with connect(gateway.endpoint, HTTP_1) as secured:
        secured.sendall(b"GET /held/leaves HTTP/1.1\r\nhost: localhost\r\n\r\n")
        in_flight = 'edge_requests_in_flight{edge_location="'
        at = gateway.status()["location"]
        wait_until("it is held", lambda: metric(gateway, f'{in_flight}{at}"}}') >= 1)
    [record] = gateway.requests.wait_for(lambda line: line["path"] == "/held/leaves")
    assert (record["outcome"], record["faultDelayMillis"]) == ("aborted", 600_000)
    assert record["totalUs"] < 600_000_000
    assert sum(len(services[name].asked) for name in ("one", "two")) == before


def test_a_delay_ends_when_its_caller_may_not_go_on(gateway: Node) -> None:
    token = gateway.token("mallory")
    answers: list[Answer] = []

    def ask() -> None:
        caller = Caller(gateway, HTTP_1)
        answers.append(caller.ask("/held/revoked", token=token))
        caller.close()

    asking = threading.Thread(target=ask)
    asking.start()
    at = gateway.status()["location"]
    held = f'edge_requests_in_flight{{edge_location="{at}"}}'
    wait_until("it is held", lambda: metric(gateway, held) >= 1)
    gateway.run("token", "revoke", token)
    asking.join(60)
    [answer] = answers
    record = gateway.record(answer.request_id)
    assert (answer.status, record["cause"]) == (401, "token_revoked")
    assert record["faultDelayMillis"] == 600_000


def test_faults_are_shown_before_and_after_they_are_applied(gateway: Node, tmp_path: Path) -> None:
    rows = gateway.run("routes", "private").stdout
    assert "fault: 100 % wait 10m, fault: 100 % get 418" in rows
    manifest = tmp_path / "more.yaml"
    manifest.write_text(
        ROUTES.partition("---\n")[2].replace(
            "percentage: 100, httpStatus", "percentage: 0.0001, httpStatus"
        ),
        "utf-8",
    )
    done = gateway.run("plan", "-f", str(manifest), check=False)
    assert done.returncode == 2
    assert "fault.abort.perMillion" in done.stdout
