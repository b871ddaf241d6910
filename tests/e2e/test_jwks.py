"""Keys of an issuer from its URL: fetched, refreshed, rotated, and kept when the URL fails."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.e2e import tokens
from tests.e2e.caller import Caller
from tests.e2e.node import Node

ISSUER = "https://jwks.example.com"


class Keys:
    """A server of keys; a test says what it answers."""

    def __init__(self) -> None:
        self.status = 200
        self.body: bytes = b""
        keys = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(keys.status)
                self.send_header("content-length", str(len(keys.body)))
                self.end_headers()
                self.wfile.write(keys.body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def publish(self, *keys: ec.EllipticCurvePrivateKey) -> None:
        """Publishes these keys and no other."""
        named = [tokens.public_jwk(key, "ES256", f"k{id(key)}") for key in keys]
        self.body = json.dumps({"keys": named}).encode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def keys() -> Iterator[Keys]:
    """A server of keys on this machine."""
    keys = Keys()
    yield keys
    keys.close()


def _token(key: ec.EllipticCurvePrivateKey) -> str:
    header = {"alg": "ES256", "kid": f"k{id(key)}"}
    claims = {"iss": ISSUER, "aud": "edge", "sub": "carol", "exp": tokens.in_seconds(300)}
    return tokens.signed(header, claims, key)


def test_keys_follow_their_url_and_stay_when_it_fails(
    caller: Caller, node: Node, keys: Keys
) -> None:
    old, new = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    keys.publish(old)
    flags = ["--issuer", ISSUER, "--audience", "edge", "--jwks-url", keys.url]
    node.run("issuer", "add", "remote", *flags)
    try:
        caller.expect_refused(
            caller.ask("/hello", token=_token(old)), 403, "authorize", "policy_denied"
        )
        answer = caller.ask("/hello", token=_token(new))
        caller.expect_refused(answer, 401, "authenticate", "token_key_unknown")
        before = node.status()["snapshot"]["generation"]
        node.run("issuer", "refresh", "remote")
        assert node.status()["snapshot"]["generation"] == before, "nothing changed"
        keys.publish(new)
        node.run("issuer", "refresh", "remote")
        assert node.status()["snapshot"]["generation"] == before + 1
        assert caller.ask("/hello", token=_token(new)).status == 403
        answer = caller.ask("/hello", token=_token(old))
        caller.expect_refused(answer, 401, "authenticate", "token_key_unknown")
        keys.status = 500
        assert node.run("issuer", "refresh", "remote", check=False).returncode == 4
        assert caller.ask("/hello", token=_token(new)).status == 403
        listed = json.loads(node.run("issuer", "list", "--json").stdout)
        (jwks,) = [one["jwks"] for one in listed if one["name"] == "remote"]
        assert jwks["failures"] == 1
        assert "500" in jwks["error"]
    finally:
        node.run("issuer", "remove", "remote")


@pytest.mark.parametrize("url", ["http://keys.example.com/", "https://u:p@example.com/", "ftp://x"])
def test_keys_do_not_come_over_plain_http_from_elsewhere(node: Node, url: str) -> None:
    flags = ["--issuer", ISSUER, "--audience", "edge", "--jwks-url", url]
    assert node.run("issuer", "add", "remote", *flags, check=False).returncode == 2
