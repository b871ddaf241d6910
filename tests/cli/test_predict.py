"""`vedette predict` against a gateway that stands in for the engine: TLS, token, answers good and bad."""

from __future__ import annotations

import io
import json
import ssl
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vedette.cli import predict as command
from vedette.cli.main import app
from vedette.cli.predict import predict
from vedette.errors import ConfigError, UnavailableError
from vedette.identity.authority import Authority
from vedette.store.home import Home

ANSWER = {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [0.5]}]}
TIMES = {"x-vedette-run-us": "490", "x-vedette-queue-us": "12"}


@dataclass
class Gateway:
    """An HTTPS server with a certificate of the node's CA."""

    home: Home
    status: int = 200
    body: bytes = json.dumps(ANSWER).encode()
    headers: dict[str, str] = field(default_factory=lambda: dict(TIMES))
    model: dict[str, Any] = field(default_factory=dict)
    names: list[str | None] = field(default_factory=list)
    """What clients asked for in TLS (SNI)."""
    asked: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    wishes: list[Any] = field(default_factory=list)

    def get(self, path: str) -> Any:
        """Of control: the model and where the node listens."""
        if path == "/v1/status":
            return {"listeners": [{"url": self.url}]}
        assert path == "/v1/models/m"
        return self.model

    def post(self, path: str, body: Any) -> Any:
        """Of control: a token."""
        assert path == "/v1/tokens"
        self.wishes.append(body)
        return {"token": "t0ken"}

    def __enter__(self) -> Gateway:
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                sent = {name.lower(): value for name, value in self.headers.items()}
                gateway.asked.append((self.path, sent, self.rfile.read(length)))
                self.send_response(gateway.status)
                for name, value in gateway.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(gateway.body)))
                self.end_headers()
                self.wfile.write(gateway.body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.home.root / "pair.pem")
        context.sni_callback = lambda _socket, name, _context: self.names.append(name)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"https://localhost:{self._server.server_port}"
        self.model = {
            "url": f"{self.url}/v2/models/m",
            "version": 3,
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [0]}],
            "limits": {"runMillis": 1_000},
        }
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    home = Home(tmp_path)
    home.create()
    authority = Authority.ensure(home.ca_key, home.ca_certificate, "n.vedette.local")
    chain, key = authority.issue_server(["localhost", "models.example.com"])
    (home.root / "pair.pem").write_bytes(chain + key)
    with Gateway(home) as made:
        monkeypatch.setattr(command, "client_of", lambda _home: made)
        monkeypatch.setattr(command, "home_of", lambda _home: home)
        yield made


def test_a_model_is_asked_as_any_caller_asks(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    predict("m", "[1.5]", subject="alice")
    ((path, headers, body),) = gateway.asked
    assert (path, headers["host"]) == ("/v2/models/m/infer", gateway.url.removeprefix("https://"))
    assert headers["authorization"] == "Bearer t0ken"
    assert json.loads(body)["inputs"][0]["data"] == [1.5]
    assert gateway.wishes == [{"subject": "alice", "ttlSeconds": 60}]
    said = capsys.readouterr()
    assert said.out.splitlines() == ["output\tdatatype\tshape\tvalues", "y\tFP32\t[1]\t0.5"]
    assert said.err.startswith("run 0.49 ms, queue 0.01 ms, total ")
    assert "t0ken" not in said.out + said.err


def test_a_route_on_a_host_of_its_own_is_asked_by_that_name(gateway: Gateway) -> None:
    port = gateway.url.rpartition(":")[2]
    gateway.model["url"] = f"https://models.example.com:{port}/classify"
    predict("m", "[1]")
    ((path, headers, _),) = gateway.asked
    assert (path, headers["host"]) == ("/classify/infer", f"models.example.com:{port}")
    assert gateway.names == ["models.example.com"]


def test_another_node_in_its_place_gets_neither_token_nor_input(
    gateway: Gateway, tmp_path: Path
) -> None:
    other = Authority.ensure(tmp_path / "o.key", tmp_path / "o.crt", "o.vedette.local")
    gateway.home.ca_certificate.write_bytes(other.certificate_pem)
    with pytest.raises(UnavailableError) as caught:
        predict("m", "[1]")
    assert caught.value.code == "model_unavailable"
    assert gateway.asked == []


def test_the_answer_is_given_whole_on_request(
    gateway: Gateway, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    predict("m", "[1]", as_json=True)
    sys.stdout.flush()
    assert json.loads(capfdbinary.readouterr().out) == ANSWER
    gateway.body = b"\x00 not even JSON"
    predict("m", "[1]", raw=True)
    sys.stdout.flush()
    assert capfdbinary.readouterr().out == b"\x00 not even JSON"
    with pytest.raises(UnavailableError) as caught:
        predict("m", "[1]")
    assert "--raw" in str(caught.value.hint)


def test_input_comes_from_a_file_or_from_standard_input(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.json").write_text('{"x": [2]}')
    predict("m", str(tmp_path / "in.json"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"[3]")))
    predict("m", "-")
    assert [json.loads(body)["inputs"][0]["data"] for _, _, body in gateway.asked] == [[2], [3]]
    with pytest.raises(ConfigError) as caught:
        predict("m", str(tmp_path / "none"))
    assert caught.value.code == "file_unreadable"


@pytest.mark.parametrize(
    ("status", "body", "family", "said"),
    [
        (400, b'{"error": "x has 2 values and its shape 3"}', ConfigError, "x has 2 values"),
        (403, b'{"error":"Forbidden","requestId":"abc"}', ConfigError, "answered 403: Forbidden"),
        (503, b"", UnavailableError, "answered 503: nothing"),
        (429, b"\x1b[2Jslow", UnavailableError, "answered 429: \\x1b[2Jslow"),
        (504, b'{"error": 7}', UnavailableError, "answered 504: 7"),
    ],
)
def test_a_refusal_is_told_with_its_record(
    gateway: Gateway, status: int, body: bytes, family: type[Exception], said: str
) -> None:
    gateway.status, gateway.body = status, body
    gateway.headers = {"x-request-id": "abc"}
    with pytest.raises(family) as caught:
        predict("m", "[1]")
    assert said in str(caught.value)
    assert "(vedette records --id abc)" in str(caught.value)


def test_the_time_is_told_as_far_as_the_answer_tells(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.headers = {"server-timing": "queue;dur=0.3, run;dur=12.5"}
    predict("m", "[1]")
    assert capsys.readouterr().err.startswith("run 12.50 ms, queue 0.30 ms, total ")
    gateway.headers = {"x-vedette-run-us": "²"}
    predict("m", "[1]")
    assert capsys.readouterr().err.startswith("total ")


def test_a_model_that_does_not_serve_is_not_asked(gateway: Gateway) -> None:
    gateway.model |= {"url": None, "version": None}
    with pytest.raises(ConfigError) as caught:
        predict("m", "[1]")
    assert "vedette model promote m" in str(caught.value.hint)


def test_it_is_a_command() -> None:
    assert "predict" in [each.name or each.callback.__name__ for each in app.registered_commands]  # type: ignore[union-attr]
