"""Fetching keys from a URL: what is followed, what is refused, and what the answer says about its age."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from vedette.errors import ConfigError, UnavailableError
from vedette.identity import jwks
from vedette.identity.jwks import fetch, require_url
from vedette.identity.keys import public_jwk

Answer = Callable[[BaseHTTPRequestHandler], None]
KEY = {**public_jwk(ec.generate_private_key(ec.SECP256R1()).public_key()), "kid": "a"}


class Server:
    """A server on this machine; `answers` by path."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.seen: list[str | None] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.seen.append(self.headers.get("if-none-match"))
                server.answers[self.path](self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    """A server for one test."""
    server = Server()
    yield server
    server.close()


def answer(body: bytes = b"", status: int = 200, **headers: str) -> Answer:
    def give(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return give


def document(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def test_keys_come_with_their_age_and_tag(server: Server) -> None:
    server.answers["/k"] = answer(document(KEY), cache_control="public, max-age=900", etag='"v1"')
    fetched = fetch(f"{server.url}/k")
    assert fetched.keys is not None
    assert [key.kid for key in fetched.keys] == ["a"]
    assert (fetched.max_age, fetched.etag) == (900, '"v1"')
    server.answers["/k"] = answer(status=304, etag='"v1"')
    assert fetch(f"{server.url}/k", etag='"v1"').keys is None
    assert server.seen == [None, '"v1"']


def test_no_store_means_no_age(server: Server) -> None:
    server.answers["/k"] = answer(document(KEY), cache_control="no-store, max-age=900")
    assert fetch(f"{server.url}/k").max_age == 0


def test_a_redirect_stays_on_its_origin(server: Server) -> None:
    server.answers["/k"] = answer(document(KEY))
    server.answers["/here"] = answer(status=302, location="/k")
    server.answers["/loop"] = answer(status=307, location="/loop")
    server.answers["/away"] = answer(status=302, location="http://localhost:1/k")
    server.answers["/file"] = answer(status=302, location="file:///etc/passwd")
    assert fetch(f"{server.url}/here").keys
    for path in ("/loop", "/away"):
        with pytest.raises(UnavailableError):
            fetch(server.url + path)
    with pytest.raises(ConfigError):
        fetch(f"{server.url}/file")


def test_an_answer_that_is_too_large_or_too_slow_is_given_up(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/big"] = answer(b" " * (jwks.MAX_BYTES + 1))
    with pytest.raises(UnavailableError, match="larger"):
        fetch(f"{server.url}/big")
    monkeypatch.setattr(jwks, "MAX_SECONDS", 0.3)
    released = threading.Event()

    def stall(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        released.wait(20)

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not released.wait(0.05):
            handler.wfile.write(b"x")

    server.answers.update({"/slow": stall, "/drip": drip})
    for path in ("/slow", "/drip"):
        with pytest.raises(UnavailableError):
            fetch(server.url + path)
    released.set()


@pytest.mark.parametrize("status", [204, 206, 404, 500, 503])
def test_only_200_is_an_answer(server: Server, status: int) -> None:
    server.answers["/k"] = answer(status=status)
    with pytest.raises(UnavailableError, match=str(status)):
        fetch(f"{server.url}/k")


def test_a_key_of_an_unknown_kind_is_left_out_and_a_secret_refuses_all(server: Server) -> None:
    unknown = {"kty": "AKP", "alg": "ML-DSA-65", "pub": "AA", "kid": "pq"}
    curve = {"kty": "EC", "crv": "secp256k1", "x": KEY["x"], "y": KEY["y"]}
    server.answers["/k"] = answer(document(unknown, KEY, KEY, {**KEY, "use": "enc", "kid": "e"}))
    fetched = fetch(f"{server.url}/k")
    assert [key.kid for key in fetched.keys or ()] == ["a"]
    for secret in ({"kty": "oct", "k": "AA"}, {**KEY, "d": "AA"}, {**unknown, "d": "AA"}):
        server.answers["/k"] = answer(document(KEY, secret))
        with pytest.raises(ConfigError, match=r"symmetric|private"):
            fetch(f"{server.url}/k")
    for useless in (document(), document(unknown), b"[]", b"{", b"null", document(curve)):
        server.answers["/k"] = answer(useless)
        with pytest.raises(ConfigError):
            fetch(f"{server.url}/k")


def test_a_closed_port_is_unavailable(server: Server) -> None:
    server.close()
    with pytest.raises(UnavailableError):
        fetch(f"{server.url}/k")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://",
        "http://example.com/",
        "http://127.0.0.1.example.com/",
        "https://user:secret@example.com/",
        "https://example.com:99999/",
        "https://example.com/a b",
        "file:///etc/passwd",
        "https://example.com/\r\nx",
    ],
)
def test_a_url_that_keys_must_not_come_from_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        require_url(url)
    assert caught.value.code == "jwks_url"
    assert "secret" not in str(caught.value)


def test_https_and_this_machine_are_accepted() -> None:
    for url in (
        "https://example.com/k",
        "http://localhost:1/",
        "http://[::1]/",
        "http://127.0.0.2/",
    ):
        require_url(url)
