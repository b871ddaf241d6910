"""`vedette predict` against a gateway that stands in for the engine: TLS, token, answers good and bad."""

from __future__ import annotations

import io
import json
import os
import ssl
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

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


IMAGE = {"type": "Image", "width": 4, "height": 4}
PNG = b"\x89PNG\r\n\x1a\n rest"


def test_a_picture_goes_as_it_is_and_outputs_come_as_bytes(
    gateway: Gateway, tmp_path: Path
) -> None:
    gateway.model["input"] = IMAGE
    (tmp_path / "in.png").write_bytes(PNG)
    predict("m", str(tmp_path / "in.png"))
    ((_, headers, body),) = gateway.asked
    length = int(headers["inference-header-content-length"])
    assert (headers["content-type"], body[length:]) == ("image/png", PNG)
    assert json.loads(body[:length]) == {"parameters": {"binary_data_output": True}}


def test_a_text_is_given_in_its_place(gateway: Gateway) -> None:
    gateway.model["input"] = {"type": "Text"}
    predict("m", text="[é]")
    ((_, headers, body),) = gateway.asked
    assert headers["content-type"] == "text/plain; charset=utf-8"
    assert body.endswith("}[é]".encode())


@pytest.mark.parametrize(
    ("fed", "given", "text", "said"),
    [
        (None, PNG, None, "takes tensors only, and the input is image/png"),
        ({"type": "Text"}, PNG, None, "takes texts, or tensors"),
        (IMAGE, None, "hello", "takes images, or tensors, and the input is text/plain"),
        (IMAGE, PNG, "hello", "one of INPUT and --text"),
        (IMAGE, None, None, "one of INPUT and --text"),
    ],
)
def test_what_the_model_does_not_take_is_not_sent(
    gateway: Gateway, tmp_path: Path, fed: Any, given: bytes | None, text: str | None, said: str
) -> None:
    gateway.model["input"] = fed
    path = None
    if given is not None:
        path = str(tmp_path / "in")
        (tmp_path / "in").write_bytes(given)
    with pytest.raises(ConfigError, match=said):
        predict("m", path, text=text)
    assert gateway.asked == []


def test_a_pipe_or_a_folder_is_refused_at_once(gateway: Gateway, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, said in (("pipe", "no plain file"), ("", "a folder")):
        with pytest.raises(ConfigError, match=said) as caught:
            predict("m", str(tmp_path / name))
        assert caught.value.code == "file_unreadable"
    assert gateway.asked == []


def test_boxes_are_drawn_and_nothing_is_where_there_are_none(
    gateway: Gateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.model["input"] = IMAGE
    Image.new("RGB", (40, 40)).save(tmp_path / "in.png")
    with pytest.raises(ConfigError, match="no boxes to draw"):
        predict("m", str(tmp_path / "in.png"), draw=tmp_path / "out.png")
    box = {"name": "box", "datatype": "FP32", "shape": [1, 4], "data": [1.0, 1.0, 30.0, 30.0]}
    label = {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["cat"]}
    score = {"name": "score", "datatype": "FP32", "shape": [1], "data": [0.9]}
    gateway.body = json.dumps({"outputs": [box, label, score]}).encode()
    predict("m", str(tmp_path / "in.png"), draw=tmp_path / "out.png")
    assert "cat\t0.9000\t1\t1\t30\t30" in capsys.readouterr().out
    with Image.open(tmp_path / "out.png") as drawn:
        assert drawn.getpixel((1, 20)) != (0, 0, 0)
    with pytest.raises(ConfigError, match="needs a picture"):
        predict("m", "[1]", draw=tmp_path / "out.png")


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
