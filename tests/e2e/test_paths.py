"""One spelling of a path: what is denied stays denied however it is written (RFC 3986 section 6)."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.e2e.caller import Caller
from tests.e2e.node import Node

FORBID_SECRET = """\
@id("no-secrets")
forbid(principal, action == Action::"invoke", resource)
when { context.path like "/mirror/secret*" };
"""

DENIED = [
    "/mirror/secret",
    "/mirror/secret/",
    "/mirror/secret?x=1",
    "/mirror/x/../secret",
    "/mirror/./secret",
    "/mirror/%2e/secret",
    "/mirror/x/%2E%2e/secret",
    "/mirror//secret",
    "/mirror/%73ecret",
    "/mirror/SECRET",
    "/MIRROR/../mirror/sEcReT",
    "/hello/../mirror/secret",
]
MALFORMED = [
    "/mirror%2Fsecret",
    "/mirror/..%2fsecret",
    "/mirror%5Csecret",
    "/mirror\\secret",
    "/mirror/secret%00",
    "/mirror/%0d%0aset-cookie:x",
    "/mirror/%c0%ae%c0%ae/secret",
    "/mirror/%zz",
    "/mirror/%2",
]


@pytest.fixture(scope="module")
def forbidden_secret(node: Node) -> Iterator[None]:
    """A policy that denies one path of a function that everybody may call."""
    node.set_policy("no-secrets.cedar", FORBID_SECRET)
    yield
    node.run("policy", "remove", "no-secrets.cedar")


@pytest.mark.usefixtures("forbidden_secret")
@pytest.mark.parametrize("target", DENIED)
def test_a_denied_path_is_denied_in_every_spelling(caller: Caller, target: str) -> None:
    record = caller.expect_refused(caller.send(target), 403, "authorize", "policy_denied")
    assert record["policies"] == ["no-secrets"]


@pytest.mark.usefixtures("forbidden_secret")
def test_its_neighbour_is_allowed(caller: Caller) -> None:
    answer = caller.send("/mirror/method")
    caller.expect_recorded(answer, 200)


@pytest.mark.usefixtures("forbidden_secret")
@pytest.mark.parametrize("target", MALFORMED)
def test_a_path_with_a_hidden_separator_is_malformed(caller: Caller, target: str) -> None:
    caller.expect_refused(caller.send(target), 400, "admit", "malformed_path")


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ("/mirror/method", "/mirror/method"),
        ("/mirror/%6Dethod", "/mirror/method"),
        ("/mirror/x/../method?a=%2Fx%2F&b", "/mirror/method?a=%2Fx%2F&b"),
        ("//mirror///method", "/mirror/method"),
        ("/../../mirror/method", "/mirror/method"),
    ],
)
def test_the_function_gets_the_normal_form_and_the_query_untouched(
    caller: Caller, sent: str, seen: str
) -> None:
    answer = caller.send(sent)
    record = caller.expect_recorded(answer, 200)
    assert json.loads(answer.body)["pathWithQuery"] == seen
    assert record["path"] == seen.partition("?")[0]


def test_a_path_nobody_serves_is_not_found(caller: Caller) -> None:
    caller.expect_refused(caller.send("/nobody"), 404, "route", "not_found")


@pytest.mark.parametrize("target", ["/helloworld", "/hell", "/Hello"])
def test_a_prefix_ends_at_a_segment(caller: Caller, target: str) -> None:
    caller.expect_refused(caller.send(target), 404, "route", "not_found")


def test_a_uri_that_is_too_long_is_refused(caller: Caller) -> None:
    answer = caller.send("/hello?" + "q" * 9_000)
    caller.expect_refused(answer, 414, "admit", "uri_too_long")


def test_too_many_headers_are_refused(caller: Caller) -> None:
    headers = [(f"x-filler-{number}", "x") for number in range(150)]
    caller.expect_refused(caller.send("/hello", headers=headers), 431, "admit", "headers_too_large")


@pytest.mark.parametrize("method", ["TRACE", "BREW", "delete"])
def test_a_method_nobody_should_use_is_refused(caller: Caller, method: str) -> None:
    answer = caller.send("/hello", method=method)
    caller.expect_refused(answer, 405, "admit", "method_not_allowed")
