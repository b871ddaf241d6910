"""A guest that misbehaves ends with a clean status and one record, and its neighbours never notice."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.e2e.caller import Caller
from tests.e2e.node import GREETING, Node, wait_until
from tests.e2e.wire import HTTP_1, HTTP_2, Http2, connect
from tests.guests import Guests

ENDS = {
    "loop": (504, "cpu_time_exceeded"),
    "alloc": (500, "memory_exceeded"),
    "recurse": (500, "stack_exhausted"),
    "never": (504, "wall_time_exceeded"),
    "trap-before": (500, "function_trap"),
    "no-response": (500, "no_response"),
}


@pytest.mark.parametrize("behaviour", ENDS)
def test_a_guest_that_gives_no_answer(caller: Caller, behaviour: str) -> None:
    status, cause = ENDS[behaviour]
    answer = caller.ask(f"/tight/{behaviour}")
    record = caller.expect_refused(answer, status, "execute", cause)
    assert record["function"] == "tight"
    assert record["component"].startswith("sha256:")
    assert b"wasm" not in answer.body.lower(), "the caller learns how the function is made"


def test_a_guest_that_traps_mid_body_breaks_off_the_answer(caller: Caller) -> None:
    answer = caller.send("/hostile/trap-mid-body")
    assert (answer.status, answer.complete) == (200, False)
    assert answer.body in (b"so far, so good\n", b"")
    record = caller.expect_recorded(answer, 200)
    assert (record["outcome"], record["stage"], record["cause"]) == (
        "failed",
        "execute",
        "function_trap",
    )
    caller.expect_neighbour_served()


def test_a_guest_that_never_ends_its_body_is_ended(caller: Caller) -> None:
    answer = caller.send("/tight/slow-stream?1000")
    assert (answer.status, answer.complete) == (200, False)
    record = caller.expect_recorded(answer, 200)
    assert (record["outcome"], record["cause"]) == ("failed", "wall_time_exceeded")
    caller.expect_neighbour_served()


def test_neighbours_are_served_while_guests_burn_every_core(caller: Caller) -> None:
    with ThreadPoolExecutor(4) as pool:
        burning = [pool.submit(caller.send, "/hostile/loop") for _ in range(4)]
        served = 0
        while not all(each.done() for each in burning):
            answer = caller.ask("/hello")
            assert (answer.status, answer.body) == (200, GREETING)
            served += 1
        assert served >= 10, f"only {served} neighbours were served in the time of four loops"
        assert {each.result().status for each in burning} == {504}


def test_a_guest_gets_the_memory_it_was_given_and_no_more(caller: Caller) -> None:
    tight = int(caller.ask("/tight/alloc-politely").body)
    roomy = int(caller.ask("/hostile/alloc-politely").body)
    assert 8 <= tight < 16
    assert 100 <= roomy < 128


def test_a_third_concurrent_request_is_told_to_come_back(caller: Caller) -> None:
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: caller.send("/tight/never"), range(3)))
    refused = [each for each in answers if each.status == 503]
    assert sorted(each.status for each in answers) == [503, 504, 504]
    caller.expect_refused(refused[0], 503, "execute", "concurrency_exceeded")
    assert int(refused[0].headers["retry-after"]) >= 1
    assert caller.ask("/tight/status?204").status == 204


# --- what it says


@pytest.mark.parametrize("kind", ["false-length-long", "false-length-short"])
def test_a_false_length_never_reaches_the_caller(caller: Caller, kind: str) -> None:
    """A length that is not the content's would let the next answer be read as part of this one."""
    answer = caller.send(f"/hostile/bad-header?{kind}")
    if answer.complete:
        caller.expect_refused(answer, 502, "execute", "response_invalid")
    else:
        # The guest was made to wait between head and end, so that its head went out: the answer breaks off.
        assert answer.status in (0, 200), answer
        caller.expect_neighbour_served()


def test_a_length_that_is_no_number_never_reaches_the_caller(caller: Caller) -> None:
    answer = caller.send("/hostile/bad-header?false-length-word")
    assert answer.status in (200, 502), answer
    # HTTP/2 needs none: it has one where the content was complete before the headers went out.
    assert answer.headers.get("content-length") in (None, str(len(answer.body)))
    caller.expect_recorded(answer, answer.status)
    caller.expect_neighbour_served()


@pytest.mark.parametrize("kind", ["connection", "transfer-encoding", "newline", "name"])
def test_a_header_a_guest_must_not_set_is_not_sent(caller: Caller, kind: str) -> None:
    answer = caller.send(f"/hostile/bad-header?{kind}")
    caller.expect_recorded(answer, 200)
    assert b"Err(" in answer.body
    assert answer.headers.get("connection") != "upgrade"
    assert "set-cookie" not in answer.headers
    assert "bad name" not in answer.headers


def test_a_guest_cannot_pretend_to_be_the_edge(caller: Caller) -> None:
    answer = caller.send("/hostile/bad-header?own-request-id")
    assert answer.body == b"forged\n"
    assert "forged" not in answer.headers.values()
    caller.expect_recorded(answer, 200)


@pytest.mark.parametrize("status", [204, 304, 418, 503])
def test_a_guest_chooses_its_status(caller: Caller, status: int) -> None:
    record = caller.expect_recorded(caller.ask(f"/hostile/status?{status}"), status)
    assert record["outcome"] == "served"


# --- what it takes


def test_a_request_body_streams_through(caller: Caller) -> None:
    body = bytes(range(256)) * 4_096
    answer = caller.ask("/hostile/echo", method="POST", body=body)
    assert answer.body == body
    record = caller.expect_recorded(answer, 200)
    assert (record["bytesIn"], record["bytesOut"]) == (len(body), len(body))


def test_a_body_of_just_the_size_allowed_passes(caller: Caller) -> None:
    answer = caller.ask("/tight/count", method="POST", body=b"x" * 65_536)
    assert (answer.status, answer.body) == (200, b"65536\n")


def test_a_body_declared_too_large_is_refused_before_it_is_sent(caller: Caller) -> None:
    answer = caller.ask("/tight/count", method="POST", body=b"x" * 65_537)
    record = caller.expect_refused(answer, 413, "execute", "request_too_large")
    assert record.get("bytesIn", 0) == 0


def test_a_body_that_grows_too_large_is_refused(caller: Caller) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 4_096

    answer = caller.ask("/tight/count", method="POST", body=pieces())
    caller.expect_refused(answer, 413, "execute", "request_too_large")


def test_an_answer_that_grows_too_large_is_cut_off(caller: Caller) -> None:
    """Over HTTP/2 the reset may overtake the head, so the record is found by its path."""
    assert len(caller.send("/tight/big?65536").body) == 65_536
    answer = caller.send("/tight/big?1000001")
    assert answer.status == 502 or not answer.complete
    assert len(answer.body) <= 65_536
    records = caller.node.requests.wait_for(
        lambda line: (
            line.get("path") == "/tight/big"
            and line["protocol"] == caller.protocol
            and line["outcome"] != "served"
        )
    )
    assert [(each["outcome"], each["stage"], each["cause"]) for each in records] == [
        ("failed", "execute", "response_too_large")
    ]
    caller.expect_neighbour_served()


def test_an_answer_of_declared_length_is_served_whole(caller: Caller) -> None:
    answer = caller.send("/hostile/declared?300000")
    assert (len(answer.body), answer.headers["content-length"]) == (300_000, "300000")
    record = caller.expect_recorded(answer, 200)
    assert (record["outcome"], record["bytesOut"]) == ("served", 300_000)


# --- who leaves


def test_a_client_that_leaves_stops_its_guest(node: Node, protocol: str) -> None:
    already = len(_chunks(node))
    with connect(node.endpoint, protocol) as secured:
        _start(node, secured, protocol, "/hostile/slow-stream?200")
        wait_until("two chunks are logged", lambda: len(_chunks(node)) >= already + 2)
    record = node.requests.wait_for(
        lambda line: (
            line.get("path") == "/hostile/slow-stream"
            and line["protocol"] == protocol
            and line["outcome"] == "aborted"
        )
    )[-1]
    assert record["function"] == "hostile"
    logged = len(_chunks(node))
    # Twenty chunks' time: a guest that still ran would have logged some of them.
    with pytest.raises(AssertionError):
        wait_until("more is logged", lambda: len(_chunks(node)) > logged + 1, timeout=1.0)


def test_a_client_that_leaves_before_the_answer_stops_its_guest(node: Node, protocol: str) -> None:
    with connect(node.endpoint, protocol) as secured:
        _start(node, secured, protocol, "/hostile/never")
        wait_until("the guest runs", lambda: _in_flight(node) >= 1)
    wait_until("no request is in flight", lambda: _in_flight(node) == 0)
    record = node.requests.wait_for(
        lambda line: line.get("path") == "/hostile/never" and line["protocol"] == protocol
    )[-1]
    assert record["outcome"] == "aborted"


@pytest.mark.usefixtures("impatient")
def test_a_client_that_does_not_read_does_not_keep_its_guest(node: Node, protocol: str) -> None:
    """Nine megabytes fit in no buffer on the way; a function of one second must not wait for its reader."""
    with connect(node.endpoint, protocol) as secured:
        _start(node, secured, protocol, "/impatient/big?9000000")
        wait_until("the guest runs", lambda: _in_flight(node) >= 1)
        wait_until("no request is in flight", lambda: _in_flight(node) == 0, timeout=8)
    record = node.requests.wait_for(
        lambda line: line.get("path") == "/impatient/big" and line["protocol"] == protocol
    )[-1]
    assert record["outcome"] in ("failed", "aborted")


@pytest.fixture(scope="module")
def impatient(node: Node, guests: Guests) -> None:
    """A function that may take one second and answer ten megabytes."""
    node.deploy(guests.hostile, "impatient", "--timeout", "1s")


def test_rapid_resets_do_not_hurt_neighbours(node: Node) -> None:
    """CVE-2023-44487: streams that are opened and reset at once, many times over."""
    neighbour = Caller(node, HTTP_2)
    with connect(node.endpoint, HTTP_2) as secured:
        stream = Http2(secured)
        for _ in range(2_000):
            try:
                number = stream.request(_h2_head(node, "/hostile/never"))
                stream.reset(number)
                stream.flush()
            except (ConnectionError, OSError):
                break
    for _ in range(20):
        assert neighbour.ask("/hello").status == 200
    wait_until("no request is in flight", lambda: _in_flight(node) == 0)
    neighbour.close()


def _chunks(node: Node) -> list[str]:
    return [line for line in node.log_lines("hostile") if line.startswith("chunk")]


def _in_flight(node: Node) -> int:
    with node.engine() as engine:
        return int(engine.get("/status").json()["inFlight"])


def _h2_head(node: Node, path: str) -> list[tuple[str, str]]:
    return [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", node.endpoint.authority),
        (":path", path),
        ("authorization", f"Bearer {node.usual_token}"),
    ]


def _start(node: Node, secured: ssl.SSLSocket, protocol: str, path: str) -> None:
    if protocol == HTTP_1:
        secured.sendall(
            f"GET {path} HTTP/1.1\r\nhost: {node.endpoint.authority}\r\n"
            f"authorization: Bearer {node.usual_token}\r\n\r\n".encode()
        )
    else:
        Http2(secured).request(_h2_head(node, path))


# --- what it sees


def test_a_guest_sees_what_it_was_told_and_nothing_of_the_host(caller: Caller) -> None:
    told = json.loads(caller.ask("/tight/env").body)
    assert told["env"] == {"GREETING": "hello there"}
    assert told["config"] == {"color": "amber"}
    bare = json.loads(caller.ask("/hostile/env").body)
    assert (bare["env"], bare["config"]) == ({}, {})


def test_a_guest_has_no_filesystem(caller: Caller) -> None:
    lines = caller.ask("/hostile/fs").body.decode().splitlines()
    assert len(lines) == 5
    assert all(line.startswith("refused") for line in lines), lines


@pytest.mark.usefixtures("outward")
def test_a_guest_reaches_nobody_over_http(caller: Caller, node: Node) -> None:
    answer = caller.ask(f"/outbound?127.0.0.1:{node.endpoint.port}/hello")
    assert answer.body.startswith(b"refused"), answer


@pytest.mark.usefixtures("outward")
def test_a_guest_reaches_nobody_over_tcp(caller: Caller, node: Node) -> None:
    answer = caller.ask(f"/sockets?127.0.0.1:{node.endpoint.port}")
    assert answer.body.startswith(b"refused"), answer


def test_what_a_guest_prints_is_in_its_log(caller: Caller, node: Node) -> None:
    answer = caller.ask("/hostile/log")
    lines = node.logs.wait_for(
        lambda line: (
            line.get("requestId") == answer.request_id and line["message"] == "err: no line end"
        )
    )
    mine = [line for line in node.logs.lines() if line["requestId"] == answer.request_id]
    assert lines[0]["stream"] == "stderr"
    assert [(line["stream"], line["message"]) for line in mine] == [
        ("stdout", "out: first"),
        ("stdout", 'out: zweite Zeile, größer "quoted"'),
        ("stderr", "err: first"),
        ("stderr", "err: no line end"),
    ]


def test_a_guest_that_floods_its_log_hurts_nobody(caller: Caller) -> None:
    answer = caller.ask("/hostile/log-flood?20000")
    caller.expect_recorded(answer, answer.status)
    caller.expect_neighbour_served()


def test_a_flood_is_cut_off_and_one_line_says_so(
    caller: Caller, node: Node, guests: Guests
) -> None:
    """Twelve megabytes at once: four are kept."""
    name = f"flooder-{caller.protocol[-1]}"
    node.deploy(guests.hostile, name)
    answer = caller.ask(f"/{name}/log-flood?50000")
    said = node.logs.wait_for(
        lambda line: line["requestId"] == answer.request_id and "lines dropped" in line["message"]
    )
    assert len(said) == 1
    assert int(said[0]["message"].split()[1]) > 30_000
    assert 0 < sum(map(len, node.log_lines(name))) <= 5 << 20
    assert caller.ask(f"/{name}/log").status == 200
    caller.expect_neighbour_served()


@pytest.mark.parametrize(
    ("behaviour", "cause"), [("twice", "function_trap"), ("handles", "function_trap")]
)
def test_a_guest_that_breaks_the_rules_of_its_handles_is_ended(
    caller: Caller, behaviour: str, cause: str
) -> None:
    """An answer given twice; GHSA-q554-3cjc-rx7p, a table of handles without an end."""
    answer = caller.send(f"/hostile/{behaviour}")
    if answer.complete and answer.status == 200:
        assert answer.body == b"first\n"
    if answer.request_id:
        record = caller.node.record(answer.request_id)
    else:  # it broke before the head had left
        path = f"/hostile/{behaviour}"
        record = caller.node.requests.wait_for(
            lambda it: (it["path"], it["protocol"]) == (path, caller.protocol)
        )[-1]
    # A guest whose turn ended between its two answers has been heard before it broke the rule.
    was_heard = answer.complete and answer.body == b"first\n" and record["outcome"] == "served"
    assert was_heard or (record["outcome"], record["cause"]) == ("failed", cause)
    caller.expect_neighbour_served()


def test_header_fields_of_a_guest_are_bounded(caller: Caller) -> None:
    """GHSA-243v-98vx-264h: 128 KiB in one resource, the host's overhead included."""
    answer = caller.ask("/hostile/fields")
    assert answer.status == 500 or int(answer.body) <= 131_072, answer
    caller.expect_neighbour_served()


def test_what_a_call_of_the_host_copies_is_bounded(caller: Caller) -> None:
    """GHSA-852m-cvvp-9p4w: an argument is the host's memory before the host has looked at it."""
    answer = caller.ask("/hostile/huge-argument")
    caller.expect_refused(answer, 500, "execute", "function_trap")


def test_a_body_nobody_reads_is_bounded(caller: Caller) -> None:
    """GHSA-c9gc-w9vx-w86p: what a guest writes ahead of its reader is the host's memory."""
    answer = caller.ask("/hostile/push-body")
    assert int(answer.body) <= 1 << 20, answer
    caller.expect_neighbour_served()


@pytest.fixture(scope="module")
def outward(node: Node, guests: Guests) -> None:
    """The two guests that try to reach out."""
    node.deploy(guests.outbound, "outbound")
    node.deploy(guests.sockets, "sockets")
