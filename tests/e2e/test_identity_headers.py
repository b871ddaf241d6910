"""Functions learn who is calling from headers that nobody outside can set."""

from __future__ import annotations

import json

import pytest
from tests.e2e import tokens
from tests.e2e.caller import Caller
from tests.e2e.node import Node

SPOOFS = [
    ("x-vedette-subject", "root"),
    ("x-vedette-principal", "spiffe://edge-test.vedette.local#root"),
    ("x_vedette_subject", "root"),
    ("x-vedette_subject", "root"),
    ("x_vedette-principal", "root"),
    ("x-vedette-anything-at-all", "yes"),
    ("x-forwarded-client-cert", "URI=spiffe://edge-test.vedette.local/root"),
    ("x_forwarded_client_cert", "URI=spiffe://edge-test.vedette.local/root"),
    ("x-spiffe-id", "spiffe://edge-test.vedette.local/root"),
    ("client-cert", ":root:"),
    ("client-cert-chain", ":root:"),
]


def test_a_spoofed_identity_header_never_reaches_the_function(caller: Caller) -> None:
    answer = caller.send("/hostile/headers", headers=SPOOFS)
    seen = json.loads(answer.body)
    assert seen["x-vedette-subject"] == "tester"
    assert "root" not in answer.body.decode()
    assert "x-vedette-anything-at-all" not in seen
    assert not [name for name in seen if "vedette" in name and "_" in name]
    record = caller.expect_recorded(answer, 200)
    assert record["spoofed"] == len(SPOOFS)
    caller.expect_neighbour_served()


def test_a_spoofed_identity_header_is_not_believed_of_an_anonymous_caller(caller: Caller) -> None:
    answer = caller.send("/mirror/headers", headers=SPOOFS, anonymous=True)
    seen = json.loads(answer.body)
    assert "root" not in answer.body.decode()
    assert "x-vedette-subject" not in seen
    record = caller.expect_recorded(answer, 200)
    assert record["principal"] == "anonymous"


def test_upper_case_spoofs_are_removed_as_well(caller: Caller) -> None:
    if caller.protocol != "HTTP/1.1":
        pytest.skip("HTTP/2 has no upper-case header names (RFC 9113 section 8.2.1)")
    answer = caller.send("/hostile/headers", headers=[("X-Vedette-Subject", "root")])
    assert json.loads(answer.body)["x-vedette-subject"] == "tester"


def test_the_function_sees_the_proven_identity_and_not_the_token(
    caller: Caller, node: Node
) -> None:
    token = node.token("alice", "--scope", "orders:read")
    answer = caller.ask("/hostile/headers", token=token)
    seen = json.loads(answer.body)
    _, claims = tokens.parts_of(token)
    assert seen["x-vedette-subject"] == "alice"
    assert seen["x-vedette-issuer"] == claims["iss"]
    assert seen["x-vedette-principal"] == f"{claims['iss']}#alice"
    assert seen["x-vedette-scopes"] == "orders:read"
    assert seen["x-vedette-request-id"] == answer.request_id
    assert seen["x-vedette-client-ip"] == "127.0.0.1"
    assert "authorization" not in seen
    assert token not in answer.body.decode()
