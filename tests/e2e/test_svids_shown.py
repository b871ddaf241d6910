"""SVIDs at the engine's hops: whoever is called proves who it is, and so do the node and functions."""

from __future__ import annotations

import base64
import json
import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe import WorkloadApiClient
from tests.e2e.caller import Caller
from tests.e2e.certificates import CLIENT, SERVER, Authority
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node, wait_until
from tests.e2e.wire import HTTP_1
from tests.guests import Guests


class Hop(BaseHTTPRequestHandler):
    """A service that keeps which SPIFFE IDs came."""

    came: list[str]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        der = self.connection.getpeercert(binary_form=True)  # type: ignore[attr-defined]
        found = x509.load_der_x509_certificate(der).extensions
        names = found.get_extension_for_class(x509.SubjectAlternativeName).value
        self.came.extend(names.get_values_for_type(x509.UniformResourceIdentifier))
        self.send_response(200)
        self.send_header("content-length", "4")
        self.end_headers()
        self.wfile.write(b"hop\n")


@pytest.fixture(scope="module")
def meshed(start_node: StartNode, guests: Guests) -> Node:
    """A node with a program that has an identity, and functions that may call it, or somebody else."""
    node = start_node("--name", "edge-hop", "--site", "example.org")
    node.run("workload", "add", "hop", "--uid", str(os.getuid()))
    for name in ("courier", "stranger"):
        node.deploy(guests.outbound, name, "--waf", "off")
    return node


@contextmanager
def _running(chain: Path, trusted: Path) -> Iterator[tuple[int, list[str]]]:
    """A server that shows `chain` and asks for certificates of `trusted`; its port, and who came."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    context.load_verify_locations(trusted)
    context.verify_mode = ssl.CERT_REQUIRED
    handler = type("Kept", (Hop,), {"came": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port, handler.came
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def came(meshed: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, list[str]]]:
    """A program's server, which asks for SVIDs of the node's trust domain."""
    with WorkloadApiClient(meshed.status()["workloadApi"]) as client:
        svid = client.fetch_x509_svid()
    key = svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain = tmp_path_factory.mktemp("hop") / "svid.pem"
    chain.write_bytes(key + svid.leaf.public_bytes(Encoding.PEM))
    with _running(chain, meshed.path("control", "ca.crt")) as running:
        yield running


def _policy(name: str, function: str, port: int, peer: str) -> str:
    return (
        "apiVersion: vedette.dev/v1alpha1\nkind: EgressPolicy\n"
        f"metadata: {{name: {name}}}\n"
        f"spec: {{functions: [{function}], allow: [{{to: 'https://127.0.0.1:{port}',"
        f" peers: ['{peer}']}}]}}\n"
    )


def _service(port: int, peer: str) -> str:
    return (
        "apiVersion: vedette.dev/v1alpha1\nkind: Upstream\nmetadata: {name: hop}\n"
        f"spec: {{url: 'https://127.0.0.1:{port}', tls: {{peers: ['{peer}']}}}}\n---\n"
        "apiVersion: vedette.dev/v1alpha1\nkind: Route\nmetadata: {name: hop}\n"
        "spec: {public: true, rules: [{matches: [{path: {value: /hop}}],"
        " backendRefs: [{kind: Upstream, group: vedette.dev, name: hop}]}]}\n"
    )


HOP = "spiffe://edge-hop.example.org/hop"


def test_a_function_and_what_it_calls_prove_themselves(
    meshed: Node, came: tuple[int, list[str]]
) -> None:
    port, ids = came
    meshed.apply(_policy("courier", "courier", port, HOP))
    with closing(Caller(meshed, HTTP_1)) as caller:
        path = f"/courier/get?https:127.0.0.1:{port}/"
        wait_until("it has its SVID", lambda: b"200" in caller.ask(path).body)
    assert set(ids) == {"spiffe://edge-hop.example.org/fn/courier"}


def test_a_destination_that_proves_another_is_not_talked_to(
    meshed: Node, came: tuple[int, list[str]]
) -> None:
    port, ids = came
    before = len(ids)
    meshed.apply(_policy("stranger", "stranger", port, HOP + "-other"))
    with closing(Caller(meshed, HTTP_1)) as caller:
        answer = caller.ask(f"/stranger/get?https:127.0.0.1:{port}/")
    assert b"200" not in answer.body
    lines = meshed.egress.wait_for(lambda line: line.get("function") == "stranger")
    assert (lines[-1]["outcome"], lines[-1]["cause"]) == ("failed", "tls_failed")
    assert len(ids) == before


def test_the_same_name_of_another_authority_proves_nothing(meshed: Node, tmp_path: Path) -> None:
    impostor = Authority(tmp_path).issue(uris=[HOP], purposes=(SERVER, CLIENT))
    with _running(impostor.file, meshed.path("control", "ca.crt")) as (port, ids):
        meshed.apply(_policy("stranger", "stranger", port, HOP))
        with closing(Caller(meshed, HTTP_1)) as caller:
            answer = caller.ask(f"/stranger/get?https:127.0.0.1:{port}/")
        assert b"200" not in answer.body
        wanted = lambda line: line.get("function") == "stranger" and line["port"] == port  # noqa: E731
        assert meshed.egress.wait_for(wanted)[-1]["cause"] == "tls_failed"
        assert ids == []


def test_another_component_has_an_svid_of_its_own_and_the_old_one_counts_no_more(
    meshed: Node, came: tuple[int, list[str]], guests: Guests
) -> None:
    port, _ = came
    file = meshed.path("engine", "svids.json")
    assert file.stat().st_mode & 0o777 == 0o600
    meshed.apply(_policy("courier", "courier", port, HOP))
    held = wait_until("it has its SVID", lambda: _held(file))
    meshed.deploy(guests.service, "courier", "--waf", "off")
    other = wait_until("it is another's", lambda: _held(file) != held and _held(file))
    assert other["component"] != held["component"]
    leaf = x509.load_der_x509_certificate(base64.b64decode(held["chain"][0]))
    revoked = lambda: f"{leaf.serial_number:x}" in json.loads(file.read_text("utf-8"))["revoked"]  # noqa: E731
    wait_until("the old one counts no more", revoked)
    meshed.deploy(guests.outbound, "courier", "--waf", "off")
    with closing(Caller(meshed, HTTP_1)) as caller:
        path = f"/courier/get?https:127.0.0.1:{port}/"
        wait_until("it has its SVID", lambda: b"200" in caller.ask(path).body)


def _held(file: Path) -> Any:
    return json.loads(file.read_text("utf-8"))["svids"].get("fn/courier")


def test_a_service_behind_the_node_proves_itself_and_sees_the_gateway(
    meshed: Node, came: tuple[int, list[str]]
) -> None:
    port, ids = came
    meshed.apply(_service(port, HOP))
    with closing(Caller(meshed, HTTP_1)) as caller:
        wait_until("the node has its SVID", lambda: caller.ask("/hop").status == 200)
        assert ids[-1] == "spiffe://edge-hop.example.org/gateway"
        meshed.apply(_service(port, HOP + "-other"))
        answer = caller.ask("/hop")
        assert answer.status == 502
    count = len(ids)
    assert ids[count - 1] == "spiffe://edge-hop.example.org/gateway"


def test_who_is_revoked_shows_nothing_more(meshed: Node, came: tuple[int, list[str]]) -> None:
    port, _ = came
    meshed.apply(_policy("courier", "courier", port, HOP))
    path = f"/courier/get?https:127.0.0.1:{port}/"
    with closing(Caller(meshed, HTTP_1)) as caller:
        wait_until("it has its SVID", lambda: b"200" in caller.ask(path).body)
        meshed.run("revoke", "spiffe://edge-hop.example.org/fn/courier")
        file = meshed.path("engine", "svids.json")
        wait_until("it is gone", lambda: '"fn/courier"' not in file.read_text("utf-8"))
        meshed.run("revoke", "--lift", "spiffe://edge-hop.example.org/fn/courier")
        wait_until("it is back", lambda: b"200" in caller.ask(path).body)
