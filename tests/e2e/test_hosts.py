"""Host, SNI and authority agree, and are on the list (RFC 9110 section 7.4, 421 Misdirected Request)."""

from __future__ import annotations

import pytest
from tests.e2e.caller import Caller
from tests.e2e.node import GREETING, Node
from tests.e2e.wire import HTTP_1, connect, send_bytes
from tests.guests import Guests


def test_a_host_that_is_not_the_server_name_is_refused(caller: Caller, node: Node) -> None:
    authority = f"127.0.0.1:{node.endpoint.port}"
    answer = caller.send("/hello", authority=authority, sni="localhost")
    record = caller.expect_refused(answer, 421, "admit", "host_sni_mismatch")
    assert (record["sni"], record["host"]) == ("localhost", "127.0.0.1")


def test_a_server_name_nobody_has_does_not_open_the_door(caller: Caller) -> None:
    answer = caller.send("/hello", sni="elsewhere.example", name_checked=False)
    caller.expect_refused(answer, 421, "admit", "host_sni_mismatch")


def test_a_host_not_on_the_list_is_refused(caller: Caller) -> None:
    answer = caller.send(
        "/hello", authority="elsewhere.example", sni="elsewhere.example", name_checked=False
    )
    caller.expect_refused(answer, 421, "admit", "host_not_allowed")


def test_a_caller_by_address_sends_no_server_name(caller: Caller, node: Node) -> None:
    answer = caller.send("/hello", authority=f"127.0.0.1:{node.endpoint.port}", sni=None)
    record = caller.expect_recorded(answer, 200)
    assert "sni" not in record


def test_the_case_of_a_host_does_not_matter(caller: Caller, node: Node) -> None:
    answer = caller.send("/hello", authority=f"LocalHost:{node.endpoint.port}")
    assert answer.body == GREETING
    assert caller.expect_recorded(answer, 200)["host"] == "localhost"


@pytest.mark.parametrize("authority", ["local host", "localhost:99999", "u@localhost", "[::1"])
def test_a_malformed_host_is_refused(caller: Caller, authority: str) -> None:
    if caller.protocol != HTTP_1:
        pytest.skip(
            "the HTTP/2 library of the engine resets such streams before there is a request"
        )
    answer = caller.send("/hello", authority=authority)
    caller.expect_refused(answer, 400, "admit", "malformed_host")


@pytest.mark.parametrize(
    "lines",
    [[], ["host: localhost", "host: elsewhere.example"], ["host: localhost", "host: localhost"]],
    ids=["none", "two that differ", "two alike"],
)
def test_a_request_needs_exactly_one_host(node: Node, lines: list[str]) -> None:
    """RFC 9112 section 3.2: 400 for none and for more than one."""
    request = "\r\n".join(["GET /hello HTTP/1.1", *lines, "connection: close", "", ""]).encode()
    answer = send_bytes(node.endpoint, request)
    assert answer.status == 400
    assert node.record(answer.request_id)["cause"] == "malformed_host"


def test_an_absolute_target_cannot_name_another_host_than_the_header(node: Node) -> None:
    request = (
        f"GET https://elsewhere.example/hello HTTP/1.1\r\nhost: {node.endpoint.authority}\r\n"
        f"authorization: Bearer {node.usual_token}\r\nconnection: close\r\n\r\n"
    )
    answer = send_bytes(node.endpoint, request.encode())
    assert answer.status in (400, 421)
    assert node.record(answer.request_id)["outcome"] == "refused"


def test_a_function_on_its_own_domain_has_a_certificate_for_it(
    caller: Caller, node: Node, own_domain: str
) -> None:
    answer = caller.send("/", authority=own_domain, sni=own_domain)
    assert answer.body == GREETING
    record = caller.expect_recorded(answer, 200)
    assert (record["function"], record["host"]) == ("domained", own_domain)
    caller.expect_refused(caller.send("/"), 404, "route", "not_found")
    caller.expect_refused(
        caller.send("/hello", authority=own_domain, sni="localhost"),
        421,
        "admit",
        "host_sni_mismatch",
    )


@pytest.fixture
def own_domain(node: Node, guests: Guests) -> str:
    """A domain that belongs to one function; removed with it."""
    if not any(each["name"] == "domained" for each in node.status()["functions"]):
        node.deploy(guests.hello, "domained", "--domains", "api.example.com")
    return "api.example.com"


def test_the_certificate_is_for_the_names_of_the_node_and_no_other(node: Node) -> None:
    with connect(node.endpoint, HTTP_1) as secured:
        certificate = secured.getpeercert()
    assert certificate is not None
    found = [(str(each[0]), str(each[1])) for each in certificate["subjectAltName"]]
    assert ("DNS", "localhost") in found
    assert ("IP Address", "127.0.0.1") in found
    assert "elsewhere.example" not in dict(found).values()
    uris = [value for kind, value in found if kind == "URI"]
    assert uris == ["spiffe://edge-test.vedette.local/gateway"]
