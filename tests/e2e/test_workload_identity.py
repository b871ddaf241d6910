"""A program of the machine calls the node over mTLS with the identity that the node gave it, while it has that."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from spiffe import WorkloadApiClient
from tests.e2e.caller import client_of
from tests.e2e.certificates import Credential, context_with
from tests.e2e.conftest import StartNode
from tests.e2e.node import GREETING, Node
from tests.e2e.wire import HTTP_1, HTTP_2
from tests.guests import Guests

POLICY = """\
@id("own-workloads")
permit(principal is Workload, action, resource == Function::"hello")
when { principal has spiffeId && principal.spiffeId == "spiffe://edge-id.example.org/shop" };
"""


@pytest.fixture(scope="module")
def own(start_node: StartNode, guests: Guests, tmp_path_factory: pytest.TempPathFactory) -> Node:
    """A node that believes the certificates of its own workloads."""
    node = start_node("--name", "edge-id", "--site", "example.org")
    node.deploy(guests.hello, "hello")
    ca = tmp_path_factory.mktemp("own") / "ca.pem"
    node.run("ca", "--out", str(ca))
    domain = node.status()["trustDomain"]
    node.run("authority", "add", "own", "--ca", str(ca), "--trust-domain", domain)
    node.set_policy("own.cedar", POLICY)
    return node


def fetched(node: Node, folder: Path) -> Credential:
    """The SVID that the published client fetches, as files for `ssl`."""
    with WorkloadApiClient(node.status()["workloadApi"]) as client:
        svid = client.fetch_x509_svid()
    private = svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    leaf: x509.Certificate = svid.leaf
    file = folder / f"{leaf.serial_number:x}.pem"
    file.write_bytes(private + leaf.public_bytes(Encoding.PEM))
    return Credential(leaf, file)


def ask(node: Node, protocol: str, credential: Credential) -> httpx.Response:
    with client_of(node, protocol, context_with(node.endpoint, protocol, credential)) as client:
        return client.get("/hello")


@pytest.mark.parametrize("protocol", [HTTP_1, HTTP_2])
def test_an_svid_is_a_principal_and_its_serial_can_be_refused(
    own: Node, protocol: str, tmp_path: Path
) -> None:
    own.run("workload", "add", "shop", "--uid", str(os.getuid()))
    credential = fetched(own, tmp_path)
    answer = ask(own, protocol, credential)
    assert (answer.status_code, answer.content) == (200, GREETING)
    record = own.record(answer.headers["x-request-id"])
    assert record["principal"] == "spiffe://edge-id.example.org/shop"
    own.run("workload", "add", "shop", "--uid", str(os.getuid()), "--id", "/other")
    assert ask(own, protocol, fetched(own, tmp_path)).status_code == 403
    own.run("authority", "revoke", "own", str(credential.file))
    with pytest.raises(httpx.TransportError):
        ask(own, protocol, credential)
    own.run("workload", "remove", "shop")
    with pytest.raises(Exception, match="no identity is issued"):
        fetched(own, tmp_path)
