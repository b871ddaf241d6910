"""Sidecars: programs of two nodes that follow each other call each other by identity, and nobody else calls them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe import WorkloadApiClient
from tests.e2e.caller import Caller
from tests.e2e.certificates import CLIENT, Authority
from tests.e2e.conftest import StartNode
from tests.e2e.node import PROGRAM, Node, wait_until
from tests.e2e.spool import Line
from tests.e2e.wire import HTTP_1
from tests.simulators.origin import Origin, running_origin

SHOP = "spiffe://edge-a.example.org/shop"
WEB = "spiffe://edge-a.example.org/web"
STRANGER = "spiffe://edge-a.example.org/stranger"
BILLING = "spiffe://edge-b.example.org/billing"
CALLER = """\
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: billing}}
spec:
  url: "https://127.0.0.1:{port}"
  tls: {{peers: [{billing}]}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: billing}}
spec:
  hostnames: [billing.mesh]
  callers: [{shop}]
  waf: {{mode: "off"}}
  rules:
    - backendRefs: [{{kind: Upstream, group: vedette.dev, name: billing}}]
"""


class Sidecar:
    """`vedette sidecar` in a process of its own, and what it said when it was served."""

    def __init__(self, node: Node, *arguments: str) -> None:
        command = [str(PROGRAM), "sidecar", "--json", "--home", str(node.home), *arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        line = self.process.stdout.readline()
        assert line, f"{self.process.stderr.read()}\n{node.last_words()}"
        self.told: dict[str, Any] = json.loads(line)

    def stop(self) -> int:
        """Ends it as Ctrl-C does, and returns its exit code."""
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=60)
        return self.process.returncode

    def kill(self) -> None:
        """Ends it as nobody asked."""
        self.process.kill()
        self.process.communicate(timeout=60)


@contextmanager
def sidecar(node: Node, name: str, *arguments: str) -> Iterator[Sidecar]:
    """A sidecar on ports that are free."""
    free = {"--listen": "127.0.0.1:0", "--outbound": "127.0.0.1:0"}
    usual = [each for pair in free.items() if pair[0] not in arguments for each in pair]
    made = Sidecar(node, "--as", name, *usual, *arguments)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.stop()


class Mesh:
    """Two nodes: `shop` on edge-a calls `billing` on edge-b, which is in front of `app`."""

    def __init__(self, a: Node, b: Node, app: Origin, shop: Sidecar, billing: Sidecar) -> None:
        self.a = a
        self.b = b
        self.app = app
        self.shop = shop
        self.billing = billing

    def ask(self, path: str, host: str = "billing.mesh", of: Sidecar | None = None) -> int:
        """What `shop` is answered when it asks its sidecar for a host of the mesh; the status."""
        return asked((of or self.shop).told["outbound"], path, {"host": host})

    def came(self, path: str) -> list[dict[str, list[str]]]:
        """The header fields of the requests for a path that reached the app."""
        return [one.headers for one in list(self.app.received) if one.target == path]


def asked(place: str, target: str, headers: dict[str, str]) -> int:
    """One plain request, its target as it is."""
    host, _, port = place.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    try:
        connection.putrequest("GET", target, skip_host=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()


def tried(place: str, path: str, chain: Path | None, *, tls: bool = True) -> int | None:
    """The status that somebody gets who calls a sidecar by himself; None when the connection ends without one."""
    host, _, port = place.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if chain is not None:
        context.load_cert_chain(chain)
    try:
        with ExitStack() as opened:
            stream: socket.socket = opened.enter_context(
                socket.create_connection((host, int(port)), timeout=60)
            )
            if tls:
                secured = context.wrap_socket(stream, server_hostname="billing.mesh")
                stream = opened.enter_context(secured)
            request = f"GET {path} HTTP/1.1\r\nhost: billing.mesh\r\nconnection: close\r\n\r\n"
            stream.sendall(request.encode())
            first = stream.makefile("rb").readline()
    except OSError:
        return None
    return int(first.split()[1]) if first.startswith(b"HTTP/") else None


def follow_each_other(*nodes: Node) -> None:
    """Gives each node the bundles of the others, as files."""
    for one in nodes:
        file = one.ca_file.with_name("bundle.json")
        one.run("federation", "show", "--out", str(file))
        domain = one.status()["trustDomain"]
        for other in nodes:
            if other is not one:
                other.run("federation", "set", domain, "--bundle", str(file))


@pytest.fixture(scope="module")
def app() -> Iterator[Origin]:
    with running_origin() as origin:
        yield origin


@pytest.fixture(scope="module")
def nodes(start_node: StartNode) -> tuple[Node, Node]:
    a = start_node("--name", "edge-a", "--site", "example.org")
    b = start_node("--name", "edge-b", "--site", "example.org")
    follow_each_other(a, b)
    return a, b


@pytest.fixture(scope="module")
def mesh(nodes: tuple[Node, Node], app: Origin) -> Iterator[Mesh]:
    a, b = nodes
    with (
        sidecar(b, "billing", "--for", str(app.port), "--caller", SHOP) as billing,
        sidecar(a, "shop", "--listen", "none") as shop,
    ):
        port = billing.told["inbound"].rpartition(":")[2]
        a.apply(CALLER.format(port=port, billing=BILLING, shop=SHOP))
        made = Mesh(a, b, app, shop, billing)
        wait_until("shop reaches billing", lambda: made.ask("/") == 200)
        yield made


@pytest.fixture(scope="module")
def stranger(nodes: tuple[Node, Node], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SVID of another program of edge-a, as a file for `ssl`."""
    a, _ = nodes
    a.run("workload", "add", "stranger", "--uid", str(os.getuid()))
    with WorkloadApiClient(a.status()["workloadApi"]) as client:
        svid = client.fetch_x509_svid()
    key = svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain = tmp_path_factory.mktemp("stranger") / "svid.pem"
    chain.write_bytes(key + svid.leaf.public_bytes(Encoding.PEM))
    return chain


@pytest.fixture(scope="module")
def impostor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate with shop's own SPIFFE ID, of an authority that nobody knows."""
    authority = Authority(tmp_path_factory.mktemp("impostor"))
    return authority.issue(uris=[SHOP], purposes=(CLIENT,)).file


def record(node: Node, path: str) -> Line:
    return node.requests.wait_for(lambda line: line.get("path") == path)[-1]


def test_a_call_goes_through_and_each_side_knows_the_other(mesh: Mesh) -> None:
    assert mesh.ask("/through") == 200
    (fields,) = mesh.came("/through")
    assert fields["x-vedette-principal"] == [SHOP]
    assert fields["x-vedette-spiffe-id"] == [SHOP]
    out, into = record(mesh.a, "/through"), record(mesh.b, "/through")
    assert (out["listener"], out["principal"], out["upstream"]) == (
        "shop.outbound",
        SHOP,
        "billing",
    )
    assert (into["listener"], into["principal"]) == ("billing.inbound", SHOP)
    assert into["certificate"]["spiffeId"] == SHOP
    assert "wouldBreak" not in into


def test_a_program_may_use_its_sidecar_as_a_proxy(mesh: Mesh) -> None:
    place = mesh.shop.told["outbound"]
    assert asked(place, "http://billing.mesh/proxied", {"host": "billing.mesh"}) == 200
    assert len(mesh.came("/proxied")) == 1


def test_what_a_program_says_of_itself_is_not_believed(mesh: Mesh) -> None:
    place = mesh.shop.told["outbound"]
    lie = {"host": "billing.mesh", "x-vedette-principal": WEB, "x-vedette-spiffe-id": WEB}
    assert asked(place, "/lie", lie) == 200
    (fields,) = mesh.came("/lie")
    assert fields["x-vedette-principal"] == [SHOP]


def test_a_token_between_programs_is_theirs_and_goes_on_as_it_came(mesh: Mesh) -> None:
    """A token of the node would be the principal of a public listener, and one of nobody known refused there."""
    own = mesh.b.run("token", "--subject", "alice").stdout.strip()
    for number, token in enumerate((own, "theirs.and.nobody-elses")):
        place, path = mesh.shop.told["outbound"], f"/token-{number}"
        fields = {"host": "billing.mesh", "authorization": f"Bearer {token}"}
        assert asked(place, path, fields) == 200
        (came,) = mesh.came(path)
        assert came["authorization"] == [f"Bearer {token}"]
        assert came["x-vedette-principal"] == [SHOP]


def test_a_program_in_a_box_calls_as_the_sidecar_of_its_name(mesh: Mesh) -> None:
    call = ("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://billing.mesh/boxed")

    def called_as(name: str) -> str:
        command = (str(PROGRAM), "run", "--home", str(mesh.a.home), "--as", name, "--", *call)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout

    assert called_as("shop") == "200"
    (fields,) = mesh.came("/boxed")
    assert fields["x-vedette-principal"] == [SHOP]
    assert called_as("nobody") == "421"
    assert len(mesh.came("/boxed")) == 1


@pytest.mark.parametrize("host", ["nobody.mesh", "example.com", "localhost"])
def test_only_hosts_of_the_mesh_that_routes_name_are_asked_for(mesh: Mesh, host: str) -> None:
    assert mesh.ask("/elsewhere", host) in (404, 421)
    assert mesh.came("/elsewhere") == []


def test_another_program_of_the_calling_node_is_refused_there(mesh: Mesh) -> None:
    with sidecar(mesh.a, "web", "--listen", "none") as web:
        assert mesh.ask("/web", of=web) == 403
    assert record(mesh.a, "/web")["principal"] == WEB
    assert mesh.came("/web") == []


def test_a_host_of_the_mesh_is_not_answered_to_the_public(mesh: Mesh) -> None:
    for node in (mesh.a, mesh.b):
        caller = Caller(node, HTTP_1)
        try:
            answer = caller.send(
                "/public", authority="billing.mesh", sni="billing.mesh", name_checked=False
            )
            assert answer.status == 421
            assert caller.send("/public", authority="billing.mesh", sni=None).status == 421
        finally:
            caller.close()
    assert mesh.came("/public") == []


def test_strict_refuses_whoever_does_not_prove_who_it_is(
    mesh: Mesh, stranger: Path, impostor: Path
) -> None:
    place = mesh.billing.told["inbound"]
    assert tried(place, "/plain", None, tls=False) in (None, 400, 401, 403, 426)
    assert tried(place, "/bare", None) in (None, 401, 403)
    assert tried(place, "/impostor", impostor) in (None, 401, 403)
    assert tried(place, "/stranger", stranger) == 403
    assert record(mesh.b, "/stranger")["principal"] == STRANGER
    for path in ("/plain", "/bare", "/impostor", "/stranger"):
        assert mesh.came(path) == []
    assert mesh.ask("/still") == 200


def test_permissive_lets_them_in_and_the_report_lists_them(
    mesh: Mesh, stranger: Path, impostor: Path
) -> None:
    flags = ("--for", str(mesh.app.port), "--caller", SHOP, "--permissive")
    with sidecar(mesh.b, "ledger", *flags, "--outbound", "none") as ledger:
        place = ledger.told["inbound"]
        assert tried(place, "/ledger-plain", None, tls=False) == 200
        assert tried(place, "/ledger-bare", None) == 200
        assert tried(place, "/ledger-stranger", stranger) == 200
        assert tried(place, "/ledger-impostor", impostor) in (None, 401, 403)
    causes = {"/ledger-plain": "plain_http", "/ledger-bare": "no_certificate"}
    causes["/ledger-stranger"] = "policy_denied"
    for path, cause in causes.items():
        assert record(mesh.b, path)["wouldBreak"] == cause
        assert len(mesh.came(path)) == 1
    assert mesh.came("/ledger-impostor") == []
    done = mesh.b.run("sidecar", "--report", "--as", "ledger", "--json", check=False)
    assert done.returncode == 1
    (told,) = json.loads(done.stdout)["sidecars"]
    rows = {(one["caller"], one["cause"]) for one in told["callers"]}
    assert rows == {
        ("127.0.0.1", "plain_http"),
        ("127.0.0.1", "no_certificate"),
        (STRANGER, "policy_denied"),
    }
    fine = mesh.b.run("sidecar", "--report", "--as", "billing", "--json", check=False)
    assert fine.returncode == 0
    assert json.loads(fine.stdout)["sidecars"][0]["fine"] > 0


def test_a_caller_that_is_revoked_is_refused_until_that_is_lifted(mesh: Mesh) -> None:
    mesh.b.run("revoke", SHOP)
    try:
        assert mesh.ask("/revoked") in (401, 403, 502)
        assert mesh.came("/revoked") == []
    finally:
        mesh.b.run("revoke", "--lift", SHOP)
    wait_until("it is let in again", lambda: mesh.ask("/lifted") == 200)


def test_a_caller_that_its_own_node_revokes_shows_nothing_more(mesh: Mesh) -> None:
    mesh.a.run("revoke", SHOP)
    try:
        wait_until("it is refused", lambda: mesh.ask("/taken") != 200)
        count = len(mesh.came("/taken"))
        assert mesh.ask("/taken") in (401, 403, 502, 503)
        assert len(mesh.came("/taken")) == count
    finally:
        mesh.a.run("revoke", "--lift", SHOP)
    wait_until("it is let in again", lambda: mesh.ask("/given") == 200)


@pytest.mark.parametrize("side", ["a", "b"])
def test_a_sidecar_is_served_again_by_the_next_engine(mesh: Mesh, side: str) -> None:
    node: Node = getattr(mesh, side)
    os.kill(node.pid("engine"), signal.SIGKILL)

    def is_served() -> bool:
        try:
            return mesh.ask(f"/again-{side}") == 200
        except (OSError, http.client.HTTPException):
            return False  # it was open when the engine went

    wait_until("the next engine serves it", is_served)
    for one in (mesh.shop, mesh.billing):
        assert one.process.poll() is None, "nobody had to start it again"


@pytest.mark.parametrize("way", ["stopped", "killed"])
def test_a_sidecar_whose_launcher_ends_serves_no_more(mesh: Mesh, way: str) -> None:
    flags = ("--for", str(mesh.app.port), "--permissive")
    with sidecar(mesh.b, "brief", *flags) as brief:
        place, outbound = brief.told["inbound"], brief.told["outbound"]
        assert tried(place, "/brief", None, tls=False) == 200
        if way == "stopped":
            assert brief.stop() == 0
        else:
            brief.kill()
    for gone in (place, outbound):
        wait_until("nobody listens", lambda gone=gone: not _listens(gone))


def _listens(place: str) -> bool:
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


def test_a_sidecar_that_is_taken_away_is_served_no_more(mesh: Mesh) -> None:
    flags = ("--for", str(mesh.app.port), "--permissive", "--outbound", "none")
    with sidecar(mesh.b, "former", *flags) as former:
        place = former.told["inbound"]
        assert tried(place, "/former", None, tls=False) == 200
        mesh.b.run("sidecar", "--remove", "former")
        _, said = former.process.communicate(timeout=60)
        assert (former.process.returncode, "the sidecar former was taken away" in said) == (2, True)
        svids = mesh.b.path("engine", "svids.json")
        wait_until("nothing is shown for it", lambda: "former" not in _shown(svids))


def _shown(svids: Path) -> dict[str, object]:
    shown: dict[str, object] = json.loads(svids.read_text("utf-8"))["svids"]
    return shown


@pytest.mark.parametrize("way", ["stopped", "killed"])
def test_what_is_under_way_ends_with_the_launcher_and_its_port_is_free(
    mesh: Mesh, way: str
) -> None:
    flags = ("--for", str(mesh.app.port), "--permissive", "--outbound", "none")
    with sidecar(mesh.b, "brief", *flags) as brief:
        place = brief.told["inbound"]
        stream = http.client.HTTPConnection(place, timeout=60)
        stream.request("GET", "/endless")
        answer = stream.getresponse()
        assert answer.read(5) == b"tick\n"
        if way == "stopped":
            assert brief.stop() == 0
        else:
            brief.kill()
        with pytest.raises(http.client.HTTPException):
            answer.read()
        stream.close()
    assert record(mesh.b, "/endless")["cause"] == "sidecar_ended"
    with sidecar(mesh.b, "brief", "--listen", place, *flags) as again:
        assert tried(again.told["inbound"], "/again", None, tls=False) == 200


def test_a_permissive_sidecar_is_so_for_others_of_its_node(mesh: Mesh) -> None:
    flags = ("--for", str(mesh.app.port), "--listen", "127.0.0.1:0")
    with (
        sidecar(mesh.a, "near", *flags, "--permissive"),
        sidecar(mesh.a, "web", "--listen", "none") as web,
    ):
        assert mesh.ask("/near", "near.mesh", of=web) == 200
        assert record(mesh.a, "/near")["wouldBreak"] == "policy_denied"
    with sidecar(mesh.a, "near", *flags), sidecar(mesh.a, "web", "--listen", "none") as web:
        assert mesh.ask("/far", "near.mesh", of=web) == 403


def test_a_sidecar_whose_own_identity_is_revoked_serves_nobody(mesh: Mesh) -> None:
    billing = f"spiffe://{mesh.b.status()['trustDomain']}/billing"
    assert mesh.ask("/before") == 200
    mesh.b.run("revoke", billing)
    try:
        wait_until("it is nobody", lambda: mesh.ask("/revoked") != 200)
    finally:
        mesh.b.run("revoke", "--lift", billing)
    wait_until("it is somebody again", lambda: mesh.ask("/lifted") == 200)
