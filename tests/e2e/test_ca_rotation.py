"""The CA of a whole node is replaced under load, while programs call its listener with their SVIDs: none is refused."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from cryptography import x509
from tests.components import MINUTES
from tests.e2e.conftest import StartNode
from tests.e2e.load import Load
from tests.e2e.node import GREETING, Node
from tests.e2e.test_workload_identity import ask, fetched
from tests.e2e.wire import HTTP_1, HTTP_2

ROUTE = f"""\
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: hello}}
spec:
  rules: [{{matches: [{{path: {{value: /hello}}}}], static: {{body: {json.dumps(GREETING.decode())}}}}}]
"""
POLICY = """\
@id("own-workloads")
permit(principal is Workload, action, resource == Route::"hello")
when { principal has spiffeId && principal.spiffeId == "spiffe://edge-ca.example.org/shop" };
"""
PATIENCE = 240.0  # seconds; a rotation in a hurry takes forty


@pytest.fixture(scope="module")
def rotating(start_node: StartNode) -> Node:
    node = start_node("--name", "edge-ca", "--site", "example.org")
    node.apply(ROUTE)
    domain = node.status()["trustDomain"]
    node.run("authority", "add", "own", "--ca", str(node.ca_file), "--trust-domain", domain)
    node.set_policy("own.cedar", POLICY)
    node.run("workload", "add", "shop", "--uid", str(os.getuid()))
    return node


@pytest.mark.timeout(10 * MINUTES)
def test_no_request_fails_and_who_has_the_old_ca_file_is_served_all_along(
    rotating: Node, tmp_path: Path
) -> None:
    first = x509.load_pem_x509_certificate(rotating.ca_file.read_bytes())
    issuers, deadline = [], time.monotonic() + PATIENCE
    # Each request is a connection of its own, by who trusts nothing but the file of before.
    loads = [Load(rotating, it, limit=1_000_000, pause=0.01) for it in (HTTP_1, HTTP_2)]
    with rotating.admin() as admin, loads[0], loads[1]:
        admin.post("/v1/ca/rotate", json={"now": True}).raise_for_status()
        rounds = 0
        while rounds < 10:  # ten more after the next CA signs
            assert time.monotonic() < deadline
            credential = fetched(rotating, tmp_path)
            issuers.append(credential.certificate.issuer)
            for protocol in (HTTP_1, HTTP_2):
                answer = ask(rotating, protocol, credential)
                assert (answer.status_code, answer.content) == (200, GREETING)
            keys = admin.get("/v1/ca/keys").json()
            rounds += any(one["phase"] == "old" for one in keys)
            time.sleep(0.1)
        (own,) = admin.get("/v1/authorities").json()
    for load in loads:
        assert [each for each in load.outcomes if each.status != 200] == []
        assert len(load.outcomes) > 2 * rounds
    assert issuers[0] == first.subject
    assert issuers[-1] != first.subject
    assert own["certificates"].count("BEGIN CERTIFICATE") == 2
