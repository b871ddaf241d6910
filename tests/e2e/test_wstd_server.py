"""A guest with the routes of wstd's `http_server` example, behind a node of its own: it answers at `/`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import httpx
import pytest
from tests.e2e.caller import Caller
from tests.e2e.node import Node
from tests.e2e.wire import HTTP_2
from tests.guests import Guests


@pytest.fixture(scope="module", params=["--fresh", "--reuse"])
def server(request: pytest.FixtureRequest, start_node: Callable[..., Node], guests: Guests) -> Node:
    """A node whose only function is the guest, with a fresh instance for each request or used again."""
    node = start_node()
    node.deploy(guests.wstd_server, "wstd", "--route", "/", request.param)
    return node


@pytest.fixture
def client(server: Node, protocol: str) -> Iterator[Caller]:
    """A client of that node."""
    client = Caller(server, protocol)
    yield client
    client.close()


def test_the_home_page(client: Caller) -> None:
    assert client.ask("/").body == b"Hello, wasi:http/proxy world!\n"


@pytest.mark.parametrize("path", ["/wait-response", "/wait-body"])
def test_waiting_before_and_in_the_body(client: Caller, path: str) -> None:
    answer = client.ask(path)
    assert answer.status == 200
    word, millis, _ = answer.body.decode().rsplit(" ", 2)
    assert word == "slept for"
    assert int(millis) >= 1000


def test_a_body_in_parts(client: Caller) -> None:
    answer = client.ask("/stream-body")
    assert answer.body.decode().splitlines() == [f"part {part} of 5" for part in range(1, 6)]


@pytest.mark.parametrize("size", [0, 1, 1 << 20])
def test_a_body_comes_back(client: Caller, size: int) -> None:
    body = bytes(index % 251 for index in range(size))
    assert client.ask("/echo", method="POST", body=body).body == body


def test_headers_come_back(client: Caller) -> None:
    assert client.ask("/echo-headers", headers={"x-mine": "red"}).headers["x-mine"] == "red"


def test_trailers_come_after_the_body(client: Caller) -> None:
    answer = client.send("/echo-trailers")
    assert answer.status == 200
    if client.protocol == HTTP_2:  # HTTP/1.1 leaves out trailers that `te` did not ask for
        assert answer.headers["x-no-trailers"] == "1"


@pytest.mark.parametrize("status", [200, 204, 302, 404, 503])
def test_a_status_of_the_callers_choice(client: Caller, status: int) -> None:
    answer = client.ask("/response-status", headers={"x-response-status": str(status)})
    assert answer.status == status


def test_no_response_is_a_refusal(client: Caller) -> None:
    assert client.ask("/response-fail").status >= 500


def test_a_body_that_breaks_off_is_not_whole(client: Caller) -> None:
    # It may break off before its head is out: then there is no answer at all.
    with contextlib.suppress(httpx.RemoteProtocolError):
        answer = client.ask("/response-body-fail")
        assert answer.status >= 500 or not answer.complete
    assert client.ask("/").status == 200


def test_another_path_is_the_functions_own_404(client: Caller) -> None:
    assert client.ask("/elsewhere").status == 404
