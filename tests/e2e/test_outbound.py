"""What a function sends out: nowhere by default, where its list says, within limits, and never unrecorded."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.caller import Caller
from tests.e2e.certificates import SERVER, Authority
from tests.e2e.node import Node, new_home, wait_until
from tests.e2e.spool import Line
from tests.guests import Guests
from tests.simulators.origin import Origin, running_origin
from tests.simulators.service import Service

REFUSED = b"refused"

# A request that names the address to call looks like an attack, and rightly so.
UNSEEN = ("--waf", "off")


@pytest.fixture(scope="module")
def origin(node: Node, guests: Guests) -> Iterator[Origin]:
    """A server on the list of the functions `courier` (WASI 0.2) and `courier3` (WASI 0.3)."""
    with running_origin() as origin:
        hosts = ("--allow-host", origin.url, "--allow-host", "http://localhost", "--timeout", "5s")
        node.deploy(guests.outbound, "courier", *hosts, *UNSEEN)
        node.deploy(guests.service, "courier3", *hosts, *UNSEEN)
        node.deploy(guests.outbound, "homebody", *UNSEEN)
        yield origin


def _calls(node: Node, request_id: str, count: int = 1) -> list[Line]:
    """The records of a request's calls, once there are so many."""

    def found() -> list[Line]:
        lines = [each for each in node.egress.lines() if each.get("requestId") == request_id]
        return lines if len(lines) >= count else []

    return list(wait_until(f"{count} calls are recorded", found))


def test_a_listed_host_is_called_and_the_call_recorded(
    caller: Caller, node: Node, origin: Origin
) -> None:
    answer = caller.ask(f"/courier/post?{origin.authority}/path?q=1")
    assert answer.body == b"REACHED 200\norigin\n"
    sent = origin.received[-1]
    assert (sent.method, sent.target, sent.body) == ("POST", "/path?q=1", b"twelve bytes")
    assert sent.headers["host"] == [origin.authority]
    [record] = _calls(node, answer.request_id)
    assert record["kind"] == "egress"
    assert (record["function"], record["method"], record["scheme"]) == ("courier", "POST", "http")
    assert (record["host"], record["port"]) == ("127.0.0.1", origin.port)
    assert (record["outcome"], record["status"]) == ("served", 200)
    assert (record["bytesOut"], record["bytesIn"]) == (12, 7)
    assert record["totalUs"] > 0


def test_the_records_tell_of_calls(caller: Caller, node: Node, origin: Origin) -> None:
    answer = caller.ask(f"/courier/get?{origin.authority}/")
    _calls(node, answer.request_id)
    said = node.run("records", "--tail", "20").stdout
    assert f"courier calls GET {origin.url}" in said


def test_the_list_of_functions_says_where_they_may_call(node: Node, origin: Origin) -> None:
    listed = json.loads(node.run("list", "--json").stdout)
    hosts = {each["name"]: each["allowedHosts"] for each in listed}
    assert hosts["homebody"] == []
    assert hosts["courier"] == [origin.url, "http://localhost"]
    assert "nowhere" in node.run("list").stdout


def test_a_policy_says_more_than_a_list(caller: Caller, node: Node, origin: Origin) -> None:
    policy = (
        "apiVersion: vedette.dev/v1alpha1\nkind: EgressPolicy\nmetadata: {name: ruled}\n"
        f"spec: {{functions: [homebody], allow: [{{to: '{origin.url}', methods: [GET], rate: 1/h}}]}}\n"
    )
    node.apply(policy)
    try:
        posted = caller.ask(f"/homebody/post?{origin.authority}/")
        assert posted.body == b"refused: ErrorCode::HttpRequestDenied\n"
        [record] = _calls(node, posted.request_id)
        assert (record["cause"], record["wouldAllow"]) == ("method_not_allowed", origin.url)
        first = caller.ask(f"/homebody/get?{origin.authority}/")
        assert first.body.startswith(b"REACHED 200")
        again = caller.ask(f"/homebody/get?{origin.authority}/")
        assert again.body == b"refused: ErrorCode::HttpRequestDenied\n"
        [record] = _calls(node, again.request_id)
        assert (record["outcome"], record["cause"]) == ("refused", "rate_limited")
    finally:
        node.apply(
            policy.replace("[homebody]", "[courier]").replace(", methods: [GET], rate: 1/h", "")
        )


def test_nowhere_is_the_default(caller: Caller, node: Node, origin: Origin) -> None:
    before = len(origin.received)
    answer = caller.ask(f"/homebody/get?{origin.authority}/")
    assert answer.body == b"refused: ErrorCode::HttpRequestDenied\n"
    [record] = _calls(node, answer.request_id)
    assert (record["outcome"], record["cause"]) == ("refused", "destination_not_allowed")
    assert record["wouldAllow"] == origin.url
    assert len(origin.received) == before
    [line] = node.logs.wait_for(lambda line: line["requestId"] == answer.request_id)
    assert line["message"] == (
        f"vedette: homebody may not call GET {origin.url}: destination_not_allowed; "
        f"the rule {origin.url} would allow it"
    )


def test_a_guest_that_sends_a_body_hears_the_refusal_and_not_that_its_body_broke(
    caller: Caller, origin: Origin
) -> None:
    answer = caller.ask(f"/homebody/post?{origin.authority}/")
    assert answer.body == b"refused: ErrorCode::HttpRequestDenied\n"


@pytest.mark.parametrize(
    ("kind", "destination"),
    [
        ("get", "127.0.0.1:1/"),
        ("get", "127.0.0.2:{port}/"),
        ("get", "https:127.0.0.1:{port}/"),
        ("get", "10.0.0.1/"),
        ("get", "169.254.169.254/latest/meta-data"),
        ("get", "user@127.0.0.1:{port}/"),
    ],
)
def test_what_is_not_on_the_list_is_refused(
    caller: Caller, node: Node, origin: Origin, kind: str, destination: str
) -> None:
    before = len(origin.received)
    answer = caller.ask(f"/courier/{kind}?{destination.format(port=origin.port)}")
    assert answer.body.startswith(REFUSED), answer
    assert len(origin.received) == before
    caller.expect_neighbour_served()


def test_a_listed_name_that_stands_for_a_private_address_is_refused(
    caller: Caller, node: Node, origin: Origin
) -> None:
    """`http://localhost` is on the list, but only an address may name this machine."""
    answer = caller.ask("/courier/get?localhost/")
    assert answer.body == b"refused: ErrorCode::DestinationIpProhibited\n"
    [record] = _calls(node, answer.request_id)
    assert (record["outcome"], record["cause"]) == ("refused", "address_not_allowed")


def test_a_range_of_addresses_is_called_and_nothing_beside_it(
    caller: Caller, node: Node, guests: Guests, origin: Origin
) -> None:
    """Its port too: `127.0.0.0/8:PORT` is no way to the other ports of this machine."""
    ranges = (f"http://127.0.0.0/8:{origin.port}", "http://[fd00::/8]:8080")
    node.deploy(guests.outbound, "ranger", *(f"--allow-host={it}" for it in ranges), *UNSEEN)
    answer = caller.ask(f"/ranger/get?{origin.authority}/in-range")
    assert answer.body == b"REACHED 200\norigin\n"
    # A name leads there too: the range is what says where names may lead.
    hosts = (*ranges, f"http://localhost:{origin.port}")
    node.deploy(guests.outbound, "ranger", *(f"--allow-host={it}" for it in hosts), *UNSEEN)
    answer = caller.ask(f"/ranger/get?localhost:{origin.port}/by-name")
    assert answer.body == b"REACHED 200\norigin\n"
    for beside in ("127.0.0.1:1/", "10.0.0.1/", f"https:127.0.0.1:{origin.port}/"):
        assert caller.ask(f"/ranger/get?{beside}").body.startswith(REFUSED), beside
    listed = json.loads(node.run("list", "--json").stdout)
    [shown] = [each["allowedHosts"] for each in listed if each["name"] == "ranger"]
    assert shown == sorted(hosts)


def test_a_redirect_is_not_followed(caller: Caller, node: Node, origin: Origin) -> None:
    answer = caller.ask(f"/courier/get?{origin.authority}/redirect")
    assert answer.body.startswith(b"REACHED 302")
    assert len(_calls(node, answer.request_id)) == 1


# --- advisories of wasi-http: what each gets


@pytest.mark.parametrize("kind", ["absolute", "asterisk"])
def test_a_target_that_is_no_path_is_refused(caller: Caller, origin: Origin, kind: str) -> None:
    """GHSA-5qpp-g3j2-8frx: an absolute form addresses another host than the one that was checked."""
    before = len(origin.received)
    answer = caller.ask(f"/courier/{kind}?{origin.authority}/")
    assert answer.body == b"refused: path\n"
    assert len(origin.received) == before


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("short-length", b"LastOperationFailed"),
        ("long-length", b"HttpRequestBodySize"),
        ("bodyless-length", b"HttpRequestBodySize"),
        ("word-length", b"field: "),
        ("two-lengths", b"field: "),
        ("framing", b"field: HeaderError::Forbidden"),
        ("host-field", b"field: HeaderError::Forbidden"),
    ],
)
def test_a_false_framing_of_a_request_is_refused(
    caller: Caller, origin: Origin, kind: str, said: bytes
) -> None:
    """GHSA-r8xh-cgf7-392j, h4wp-g4x3-7398, 9prg-84vf-g5fc: nothing that could be read as another request is sent."""
    answer = caller.ask(f"/courier/{kind}?{origin.authority}/framing")
    assert answer.body.startswith(REFUSED), answer
    assert said in answer.body, answer
    whole = [each for each in origin.received if each.target == "/framing"]
    assert all(each.body == b"twelve bytes" for each in whole)
    caller.expect_neighbour_served()


@pytest.mark.parametrize("path", ["short", "two-lengths", "huge-head"])
def test_an_origin_that_lies_is_not_believed(caller: Caller, origin: Origin, path: str) -> None:
    answer = caller.ask(f"/courier/get?{origin.authority}/{path}")
    assert b"broken" in answer.body or answer.body.startswith(REFUSED), answer
    caller.expect_neighbour_served()


def test_a_long_path_is_refused(caller: Caller, origin: Origin) -> None:
    """GHSA-w36r-2hch-9xp9: 70 kB before the `?` once ended the host."""
    answer = caller.ask(f"/courier/long-path?{origin.authority}/")
    assert answer.body.startswith(REFUSED), answer
    caller.expect_neighbour_served()


def test_a_timeout_of_nothing_is_over_at_once(caller: Caller, origin: Origin) -> None:
    """GHSA-w4qr-p94g-mjhv: it once panicked. Where a connection is kept, it is the head that is late."""
    answer = caller.ask(f"/courier/zero-timeout?{origin.authority}/never")
    late = [
        f"refused: ErrorCode::{what}Timeout\n".encode() for what in ("Connection", "HttpResponse")
    ]
    assert answer.body in late, answer
    caller.expect_neighbour_served()


def test_a_tunnel_is_refused(caller: Caller, origin: Origin) -> None:
    answer = caller.ask(f"/courier/connect?{origin.authority}/")
    assert answer.body == b"refused: ErrorCode::HttpRequestMethodInvalid\n"


@pytest.mark.parametrize("path", ["/courier/trailers", "/courier3/call-trailers"])
def test_trailers_pass_the_filter_of_header_fields(
    caller: Caller, origin: Origin, path: str
) -> None:
    """GHSA-jxcf-8qw5-5c33: those of WASI 0.3 did not."""
    answer = caller.ask(f"{path}?{origin.authority}/trailers")
    assert answer.body == b"REACHED 200\norigin\n"
    sent = origin.received[-1]
    assert (sent.target, sent.body) == ("/trailers", b"twelve bytes")
    assert not {"x-vedette-principal", "transfer-encoding", "host"} & set(sent.trailers)


def test_the_nodes_own_fields_do_not_leave(caller: Caller, origin: Origin) -> None:
    assert caller.ask(f"/courier/own-field?{origin.authority}/").body.startswith(b"REACHED 200")
    assert [name for name in origin.received[-1].headers if name.startswith("x-vedette")] == []


# --- limits


def test_eight_calls_at_once(caller: Caller, node: Node, origin: Origin) -> None:
    origin.most_at_once = 0
    answer = caller.ask(f"/courier/many?{origin.authority}/slow")
    assert answer.body == b"reached 8 refused 4\n"
    assert origin.most_at_once <= 8
    causes = [each.get("cause") for each in _calls(node, answer.request_id, 12)]
    assert causes.count("too_many_calls") == 4


def test_sixty_four_calls_of_a_request(caller: Caller, node: Node, origin: Origin) -> None:
    answer = caller.ask(f"/courier/series?{origin.authority}/")
    assert b"refused" in answer.body
    reached = int(answer.body.split()[1])
    assert reached <= 64
    assert len(_calls(node, answer.request_id, 100)) == 100


def test_a_call_counts_against_wall_time(
    caller: Caller, node: Node, guests: Guests, origin: Origin
) -> None:
    node.deploy(guests.outbound, "hasty", "--allow-host", origin.url, "--timeout", "500ms")
    answer = caller.ask(f"/hasty/get?{origin.authority}/never")
    caller.expect_refused(answer, 504, "execute", "wall_time_exceeded")
    [record] = _calls(node, answer.request_id)
    assert record["outcome"] == "aborted"


def test_a_client_that_leaves_ends_the_calls(caller: Caller, node: Node, origin: Origin) -> None:
    origin.broken_off.clear()
    with caller.client.stream(
        "GET", f"/courier/stream?{origin.authority}/endless", headers=caller.authorization()
    ) as response:
        pieces = response.iter_raw()
        next(pieces)
        request_id = response.headers["x-request-id"]
    [record] = _calls(node, request_id)
    assert (record["outcome"], record["status"]) == ("aborted", 200)
    assert origin.broken_off.wait(5)


# --- TLS


def _over_tls(authority: Authority) -> Service:
    settings = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    credential = authority.issue(addresses=["127.0.0.1"], purposes=[SERVER])
    settings.load_cert_chain(credential.file)
    return Service("over-tls", settings)


def test_a_certificate_must_be_of_an_authority_that_the_machine_trusts(
    guests: Guests, protocol: str, tmp_path: Path
) -> None:
    trusted, other = Authority(tmp_path, "Trusted"), Authority(tmp_path, "Other")
    ours, theirs = _over_tls(trusted), _over_tls(other)
    node = Node(new_home(), prefix=["env", "-u", "SSL_CERT_DIR", f"SSL_CERT_FILE={trusted.file}"])
    try:
        node.start()
        hosts = [f"--allow-host=https://127.0.0.1:{it.port}" for it in (ours, theirs)]
        node.deploy(guests.outbound, "courier", *hosts, *UNSEEN)
        caller = Caller(node, protocol)
        answer = caller.ask(f"/courier/get?https:127.0.0.1:{ours.port}/")
        assert answer.body.startswith(b"REACHED 200"), answer
        answer = caller.ask(f"/courier/get?https:127.0.0.1:{theirs.port}/")
        assert answer.body == b"refused: ErrorCode::TlsCertificateError\n"
        caller.close()
        [record] = _calls(node, answer.request_id)
        assert (record["outcome"], record["cause"]) == ("failed", "tls_failed")
    finally:
        node.discard()
        ours.close()
        theirs.close()


# --- WASI 0.3


def test_a_component_of_wasi_0_3_calls_a_listed_host(
    caller: Caller, node: Node, origin: Origin
) -> None:
    answer = caller.ask(f"/courier3/call?{origin.authority}/from-3")
    assert answer.body == b"REACHED 200\norigin\n"
    [record] = _calls(node, answer.request_id)
    assert (record["function"], record["outcome"]) == ("courier3", "served")


def test_a_component_of_wasi_0_3_passes_an_answer_on(
    caller: Caller, node: Node, origin: Origin
) -> None:
    answer = caller.ask(f"/courier3/pass?{origin.authority}/big")
    assert (answer.status, len(answer.body)) == (200, 1_000_000)


def test_a_component_of_wasi_0_3_reaches_nobody_else(
    caller: Caller, node: Node, origin: Origin
) -> None:
    answer = caller.ask("/courier3/call?127.0.0.1:1/")
    assert answer.body == b"refused: ErrorCode::HttpRequestDenied\n"
    [record] = _calls(node, answer.request_id)
    assert record["cause"] == "destination_not_allowed"
