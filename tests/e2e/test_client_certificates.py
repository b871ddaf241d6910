"""Callers with a client certificate: who they are, what policies see, and every certificate that must not work."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.e2e import tokens
from tests.e2e.caller import client_of
from tests.e2e.certificates import CLIENT, SERVER, Authority, Credential, context_with
from tests.e2e.conftest import StartNode
from tests.e2e.node import GREETING, Node, wait_until
from tests.e2e.wire import HTTP_1
from tests.guests import Guests

DOMAIN = "mesh.example"
SHOP = f"spiffe://{DOMAIN}/ns/web/sa/shop"
POLICY = f"""\
@id("mesh")
permit(principal is Workload, action, resource == Function::"hello")
when {{ principal.authority == "mesh" && principal has spiffeId && principal.spiffeId like "spiffe://{DOMAIN}/*" }};
@id("corp")
permit(principal is Workload, action, resource == Function::"hello") when {{ principal.authority == "corp" }};
@id("mirror-workloads")
permit(principal is Workload, action, resource == Function::"mirror");
@id("both")
permit(principal is Subject, action, resource == Function::"both")
when {{ context has certificate && context.certificate == Workload::"{SHOP}" }};
@id("not-both-otherwise")
forbid(principal, action, resource == Function::"both") unless {{ context has certificate }};
"""


@dataclass
class Mesh:
    """A node of its own that trusts two authorities, and their CAs."""

    node: Node
    spiffe: Authority
    corp: Authority
    stranger: Authority

    def shop(self) -> Credential:
        """A certificate as it should be."""
        return self.spiffe.issue("", uris=[SHOP], purposes=(CLIENT, SERVER))


@pytest.fixture(scope="module")
def mesh(start_node: StartNode, guests: Guests, tmp_path_factory: pytest.TempPathFactory) -> Mesh:
    """The node with a SPIFFE authority, a plain one, and policies for both."""
    folder = tmp_path_factory.mktemp("certificates")
    node = start_node("--name", "edge-mtls")
    node.deploy(guests.hello, "hello")
    node.deploy(guests.hostile, "mirror")
    node.deploy(guests.hello, "both")
    mesh = Mesh(
        node,
        Authority(folder, "Mesh CA"),
        Authority(folder, "Corp CA"),
        Authority(folder, "Stranger CA"),
    )
    node.run("authority", "add", "mesh", "--ca", str(mesh.spiffe.file), "--trust-domain", DOMAIN)
    node.run("authority", "add", "corp", "--ca", str(mesh.corp.file))
    node.set_policy("certificates.cedar", POLICY)
    return mesh


def client(node: Node, protocol: str, credential: Credential | None) -> httpx.Client:
    """A keep-alive client with that certificate."""
    return client_of(node, protocol, context_with(node.endpoint, protocol, credential))


def refused(node: Node, credential: Credential) -> tuple[str, Mapping[str, object]]:
    """The text of the alert that ends the handshake, and the record it leaves."""
    before = len(_handshakes(node))
    with pytest.raises(ssl.SSLError) as caught:
        _ask(node, context_with(node.endpoint, HTTP_1, credential), None)
    wait_until("the refused handshake is recorded", lambda: len(_handshakes(node)) > before)
    return str(caught.value), _handshakes(node)[-1]


def _handshakes(node: Node) -> list[Mapping[str, object]]:
    return [line for line in node.requests.lines() if line["protocol"] == "TLS"]


def test_a_spiffe_certificate_is_the_principal(mesh: Mesh, protocol: str) -> None:
    with client(mesh.node, protocol, mesh.shop()) as caller:
        answer = caller.get("/hello")
    assert (answer.status_code, answer.content) == (200, GREETING)
    record = mesh.node.record(answer.headers["x-request-id"])
    assert record["principal"] == SHOP
    assert record["policies"] == ["mesh"]
    assert record["certificate"]["authority"] == "mesh"


def test_a_plain_certificate_is_known_by_authority_and_subject(mesh: Mesh, protocol: str) -> None:
    with client(mesh.node, protocol, mesh.corp.issue("billing")) as caller:
        answer = caller.get("/hello")
    assert answer.status_code == 200
    record = mesh.node.record(answer.headers["x-request-id"])
    assert record["principal"] == "x509:corp#CN=billing"


def test_the_function_is_told_of_the_certificate(mesh: Mesh, protocol: str) -> None:
    credential = mesh.shop()
    with client(mesh.node, protocol, credential) as caller:
        seen = caller.get("/mirror/headers").json()
    assert seen["x-vedette-principal"] == seen["x-vedette-spiffe-id"] == SHOP
    assert seen["x-vedette-certificate-authority"] == "mesh"
    assert seen["x-vedette-certificate-serial"] == credential.serial
    der = credential.certificate.public_bytes(Encoding.DER)
    assert seen["x-vedette-certificate-fingerprint"] == hashlib.sha256(der).hexdigest()
    assert "x-vedette-subject" not in seen


def test_without_a_certificate_a_token_still_serves(mesh: Mesh, protocol: str) -> None:
    headers = {"authorization": f"Bearer {mesh.node.usual_token}"}
    with client(mesh.node, protocol, None) as caller:
        assert caller.get("/hello", headers=headers).status_code == 200
        assert caller.get("/hello").status_code == 401


def test_a_new_authority_gives_nobody_anything(mesh: Mesh, tmp_path: Path, protocol: str) -> None:
    authority = Authority(tmp_path, "New CA")
    mesh.node.run("authority", "add", "new", "--ca", str(authority.file))
    try:
        with client(mesh.node, protocol, authority.issue()) as caller:
            answer = caller.get("/hello")
        assert answer.status_code == 403
        record = mesh.node.record(answer.headers["x-request-id"])
        assert (record["cause"], record["principal"]) == ("policy_denied", "x509:new#CN=client")
    finally:
        mesh.node.run("authority", "remove", "new")


def test_with_both_the_token_is_the_principal_and_the_certificate_in_the_context(
    mesh: Mesh, protocol: str
) -> None:
    headers = {"authorization": f"Bearer {mesh.node.usual_token}"}
    with client(mesh.node, protocol, mesh.shop()) as caller:
        answer = caller.get("/both", headers=headers)
        seen = caller.get("/mirror/headers", headers=headers).json()
    assert answer.status_code == 200
    record = mesh.node.record(answer.headers["x-request-id"])
    assert record["principal"].endswith("#tester")
    assert "both" in record["policies"]
    assert record["certificate"]["spiffeId"] == SHOP
    assert seen["x-vedette-subject"] == "tester"
    assert seen["x-vedette-principal"].endswith("#tester")
    assert seen["x-vedette-spiffe-id"] == SHOP
    assert "authorization" not in seen
    with client(mesh.node, protocol, None) as caller:
        assert caller.get("/both", headers=headers).status_code == 403


WRONG = {
    "of another CA": (lambda m: m.stranger.issue(), "unknown ca", "certificate_invalid"),
    "expired": (lambda m: m.corp.issue(days=(-9, -1)), "expired", "certificate_expired"),
    "not yet valid": (
        lambda m: m.corp.issue(days=(1, 9)),
        "expired",
        "certificate_not_yet_valid",
    ),
    "for servers only": (
        lambda m: m.corp.issue(purposes=(SERVER,)),
        "unsupported certificate",
        "certificate_invalid",
    ),
    "for nothing in particular": (
        lambda m: m.corp.issue(purposes=()),
        "unsupported certificate",
        "certificate_invalid",
    ),
    "an authority's": (
        lambda m: m.corp.issue(ca=True, certifies=True),
        "certificate unknown",
        "certificate_invalid",
    ),
    "without a subject": (lambda m: m.corp.issue(""), "certificate unknown", "certificate_invalid"),
    "with two URIs": (
        lambda m: m.spiffe.issue("", uris=[SHOP, SHOP + "2"]),
        "certificate unknown",
        "certificate_invalid",
    ),
    "without a SPIFFE ID": (
        lambda m: m.spiffe.issue("x"),
        "certificate unknown",
        "certificate_invalid",
    ),
    "of another trust domain": (
        lambda m: m.spiffe.issue("", uris=["spiffe://other.example/x"]),
        "certificate unknown",
        "certificate_invalid",
    ),
    "with a malformed SPIFFE ID": (
        lambda m: m.spiffe.issue("", uris=[f"spiffe://{DOMAIN}/a/../b"]),
        "certificate unknown",
        "certificate_invalid",
    ),
    "that signs certificates": (
        lambda m: m.spiffe.issue("", uris=[SHOP], certifies=True),
        "certificate unknown",
        "certificate_invalid",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_certificate_ends_the_handshake_with_an_alert_and_a_record(
    mesh: Mesh, case: str
) -> None:
    make, alert, cause = WRONG[case]
    told, record = refused(mesh.node, make(mesh))
    assert alert in told.lower().replace("_", " "), told
    assert (record["outcome"], record["stage"], record["cause"]) == (
        "refused",
        "authenticate",
        cause,
    )
    assert record["detail"]
    assert record["status"] == 0


def test_a_key_that_is_not_pinned_is_refused(mesh: Mesh, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "Pinned CA")
    good, other = authority.issue("good"), authority.issue("other")
    file = tmp_path / "pin.pem"
    file.write_bytes(good.pem)
    mesh.node.run("authority", "add", "pinned", "--ca", str(authority.file), "--pin", str(file))
    try:
        with client(mesh.node, HTTP_1, good) as caller:
            assert caller.get("/mirror/headers").status_code == 200
        _, record = refused(mesh.node, other)
        assert "pinned" in str(record["detail"])
    finally:
        mesh.node.run("authority", "remove", "pinned")


def test_a_revoked_certificate_stops_at_the_next_request_of_a_live_connection(
    mesh: Mesh, protocol: str
) -> None:
    credential, other = mesh.shop(), mesh.shop()
    with (
        client(mesh.node, protocol, credential) as caller,
        client(mesh.node, protocol, other) as neighbour,
    ):
        assert caller.get("/hello").status_code == 200
        mesh.node.run("authority", "revoke", "mesh", credential.serial)
        answer = caller.get("/hello")
        assert answer.status_code == 401
        assert mesh.node.record(answer.headers["x-request-id"])["cause"] == "certificate_revoked"
        assert neighbour.get("/hello").status_code == 200
    told, record = refused(mesh.node, credential)
    assert "revoked" in told.lower()
    assert record["cause"] == "certificate_revoked"


def test_a_removed_authority_stops_at_the_next_request_of_a_live_connection(
    mesh: Mesh, tmp_path: Path, protocol: str
) -> None:
    authority = Authority(tmp_path, "Leaving CA")
    mesh.node.run("authority", "add", "leaving", "--ca", str(authority.file))
    with client(mesh.node, protocol, authority.issue()) as caller:
        assert caller.get("/mirror/headers").status_code == 200
        mesh.node.run("authority", "remove", "leaving")
        answer = caller.get("/mirror/headers")
    assert answer.status_code == 401
    assert mesh.node.record(answer.headers["x-request-id"])["cause"] == "certificate_invalid"


def test_a_rollback_lets_no_revoked_certificate_back_in(
    mesh: Mesh, tmp_path: Path, protocol: str
) -> None:
    credential = mesh.shop()
    file = tmp_path / "leaf.pem"
    file.write_bytes(credential.pem)
    mesh.node.run("authority", "revoke", "mesh", str(file))
    mesh.node.run("rollback")
    _, record = refused(mesh.node, credential)
    assert record["cause"] == "certificate_revoked"


def test_a_resumed_session_is_judged_like_the_first(mesh: Mesh) -> None:
    credential = mesh.shop()
    context = context_with(mesh.node.endpoint, HTTP_1, credential)
    first, session = _ask(mesh.node, context, None)
    assert first == 200
    again, resumed = _ask(mesh.node, context, session)
    assert again == 200
    assert resumed is not None
    mesh.node.run("authority", "revoke", "mesh", credential.serial)
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
        _ask(mesh.node, context, session)


def _ask(
    node: Node, context: ssl.SSLContext, session: ssl.SSLSession | None
) -> tuple[int, ssl.SSLSession | None]:
    address = (node.endpoint.host, node.endpoint.port)
    with (
        socket.create_connection(address, timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="localhost", session=session) as secured,
    ):
        # In TLS 1.3 the client is done before the server has judged it (RFC 8446 §4.4): an alert comes with the answer.
        secured.sendall(b"GET /hello HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        response = http.client.HTTPResponse(secured)
        response.begin()
        response.read()
        return response.status, secured.session


def test_a_bound_token_works_beside_its_certificate_only(mesh: Mesh, protocol: str) -> None:
    """RFC 8705 section 3: `cnf` with `x5t#S256`."""
    credential = mesh.shop()
    der = credential.certificate.public_bytes(Encoding.DER)
    digest = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
    header, claims = tokens.parts_of(mesh.node.usual_token)
    key = tokens.private_key(mesh.node.path("control", "token.key"))
    token = tokens.signed(header, {**claims, "cnf": {"x5t#S256": digest}}, key)
    headers = {"authorization": f"Bearer {token}"}
    with client(mesh.node, protocol, credential) as caller:
        assert caller.get("/hello", headers=headers).status_code == 200
    for other in (None, mesh.shop()):
        with client(mesh.node, protocol, other) as caller:
            answer = caller.get("/hello", headers=headers)
        assert answer.status_code == 401
        assert mesh.node.record(answer.headers["x-request-id"])["cause"] == "token_binding"


def test_the_authorities_are_listed_and_a_wrong_one_is_refused(mesh: Mesh, tmp_path: Path) -> None:
    listed = json.loads(mesh.node.run("authority", "list", "--json").stdout)
    assert {"corp", "mesh"} <= {one["name"] for one in listed}
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(mesh.shop().pem)
    done = mesh.node.run("authority", "add", "leaf", "--ca", str(leaf), check=False)
    assert done.returncode == 2
    done = mesh.node.run("authority", "add", "key", "--ca", str(mesh.shop().file), check=False)
    assert done.returncode == 2
    assert "private key" in done.stderr
