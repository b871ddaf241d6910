"""WebSocket through the node: over HTTP/1.1 as everybody does it, and over HTTP/2 by extended CONNECT (RFC 8441)."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import pytest
import wsproto.frame_protocol as frames
from tests.e2e.conftest import StartNode
from tests.e2e.node import Node
from tests.e2e.wire import HTTP_1, HTTP_2, Header, Http2, connect, tls_context
from tests.guests import Guests
from tests.simulators.service import Service
from tests.simulators.websocket_service import WebSocketService
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as websocket

MANIFEST = """\
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: talk}}
spec: {{url: "http://127.0.0.1:{talk}"}}
---
apiVersion: vedette.dev/v1alpha1
kind: Upstream
metadata: {{name: plain}}
spec: {{url: "http://127.0.0.1:{plain}"}}
---
apiVersion: vedette.dev/v1alpha1
kind: Route
metadata: {{name: talk}}
spec:
  public: true
  rules:
    - matches: [{{path: {{value: /talk}}, method: GET}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: talk}}]
    - matches: [{{path: {{value: /plain}}}}]
      backendRefs: [{{kind: Upstream, group: vedette.dev, name: plain}}]
"""


@pytest.fixture(scope="module")
def service() -> Iterator[WebSocketService]:
    """A service that speaks WebSocket."""
    service = WebSocketService()
    yield service
    service.close()


@pytest.fixture(scope="module")
def gateway(
    start_node: StartNode,
    guests: Guests,
    service: WebSocketService,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Node]:
    """A node in front of it, of one that does not, and of a function."""
    plain = Service("plain")
    node = start_node()
    node.deploy(guests.hello, "hello", "--public")
    manifest = tmp_path_factory.mktemp("talk") / "talk.yaml"
    manifest.write_text(MANIFEST.format(talk=service.port, plain=plain.port), "utf-8")
    node.run("apply", "--yes", "-f", str(manifest))
    yield node
    plain.close()


# --- over HTTP/1.1


def _over_http_1(node: Node) -> ClientConnection:
    address = (node.endpoint.host, node.endpoint.port)
    return websocket(
        f"wss://{node.endpoint.authority}/talk?room=1",
        sock=socket.create_connection(address, timeout=60),
        ssl=tls_context(node.ca_file, HTTP_1),
        server_hostname="localhost",
        subprotocols=["other", "chat"],
        max_size=64 << 20,
        proxy=None,
        compression=None,
    )


def test_messages_pass_over_http_1(gateway: Node, service: WebSocketService) -> None:
    with _over_http_1(gateway) as client:
        assert client.subprotocol == "chat"
        for message in ("words", b"bytes", "", "x" * 3_000_000):
            client.send(message)
            assert client.recv(timeout=60) == message
        assert client.ping().wait(20)
    asked = service.asked[-1]
    assert asked.path == "/talk?room=1"
    assert asked.headers["x-vedette-principal"] == "anonymous"


def test_a_close_has_its_code_and_its_words_over_http_1(gateway: Node) -> None:
    with _over_http_1(gateway) as client:
        client.send("close please")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=60)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4_000, "as you wish")


# --- over HTTP/2


class OverHttp2:
    """A WebSocket in a stream of HTTP/2, its frames made and read by `wsproto`."""

    def __init__(self, secured: ssl.SSLSocket) -> None:
        self.http = Http2(secured)
        # The client may ask only once the server has said that it knows how (section 3).
        self.http.ping()
        self.settings = dict(self.http.connection.remote_settings)
        self.frames = frames.FrameProtocol(client=True, extensions=[])
        self._read = 0

    def open(self, node: Node, path: str, *more: Header) -> int:
        """The stream, open or refused."""
        head = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "https"),
            (":path", path),
            (":authority", node.endpoint.authority),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat"),
            *more,
        ]
        number = self.http.request(head, end=False)
        while not (self.http.status(number) or self.http.closed):
            self.http.pump()
        return number

    def say(self, number: int, data: bytes) -> None:
        """Sends bytes, as the windows allow."""
        while data:
            connection = self.http.connection
            room = min(
                connection.local_flow_control_window(number), connection.max_outbound_frame_size
            )
            if room:
                connection.send_data(number, data[:room])
                self.http.flush()
                data = data[room:]
            else:
                self.http.pump()

    def hear(self, number: int) -> str | bytes:
        """The next whole message; a close is `"<code> <reason>"`."""
        whole: list[str | bytes] = []
        while True:
            data = self.http.body_so_far(number)
            self.frames.receive_bytes(data[self._read :])
            self._read = len(data)
            for frame in self.frames.received_frames():
                if frame.opcode is frames.Opcode.CLOSE:
                    code, reason = frame.payload
                    return f"{int(code)} {reason}"
                whole.append(frame.payload)
                if frame.message_finished:
                    empty = "" if isinstance(whole[0], str) else b""
                    return empty.join(whole)  # type: ignore[arg-type]
            self.http.pump()


@pytest.fixture
def over_http_2(gateway: Node) -> Iterator[OverHttp2]:
    """A connection."""
    with connect(gateway.endpoint, HTTP_2) as secured:
        yield OverHttp2(secured)


def test_messages_pass_over_http_2(
    gateway: Node, service: WebSocketService, over_http_2: OverHttp2
) -> None:
    enable_connect_protocol = 8
    assert over_http_2.settings[enable_connect_protocol] == 1
    number = over_http_2.open(gateway, "/talk?room=2")
    head = over_http_2.http.head(number)
    assert over_http_2.http.status(number) == 200
    assert head["sec-websocket-protocol"] == "chat"
    assert {"sec-websocket-accept", "upgrade", "connection"}.isdisjoint(head)
    for message in ("words", b"bytes", "x" * 1_000_000):
        over_http_2.say(number, over_http_2.frames.send_data(message, fin=True))
        assert over_http_2.hear(number) == message
    over_http_2.say(number, over_http_2.frames.send_data("close please", fin=True))
    assert over_http_2.hear(number) == "4000 as you wish"
    over_http_2.http.connection.end_stream(number)
    over_http_2.http.flush()
    asked = service.asked[-1]
    assert asked.path == "/talk?room=2"
    assert asked.headers["host"] == gateway.endpoint.authority
    record = gateway.record(head["x-request-id"])
    assert (record["method"], record["protocol"], record["status"]) == ("GET", "HTTP/2.0", 200)
    assert record["outcome"] == "served"
    assert record["bytesOut"] > 1_000_000
    assert record["bytesIn"] > 1_000_000


def test_a_websocket_and_requests_share_a_connection(gateway: Node, over_http_2: OverHttp2) -> None:
    number = over_http_2.open(gateway, "/talk")
    other = over_http_2.http.request(_get(gateway, "/hello"))
    assert over_http_2.http.answer(other).status == 200
    over_http_2.say(number, over_http_2.frames.send_data("still", fin=True))
    assert over_http_2.hear(number) == "still"


def _get(node: Node, path: str) -> list[Header]:
    authority = node.endpoint.authority
    return [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", authority),
        (":path", path),
    ]


def test_the_callers_key_and_identity_are_the_nodes(
    gateway: Node, service: WebSocketService, over_http_2: OverHttp2
) -> None:
    number = over_http_2.open(
        gateway, "/talk", ("sec-websocket-key", "mine"), ("x-vedette-principal", "forged")
    )
    assert over_http_2.http.status(number) == 200
    asked = service.asked[-1]
    assert asked.headers.get_all("x-vedette-principal") == ["anonymous"]
    assert asked.headers.get_all("sec-websocket-key") != ["mine"]


@pytest.mark.parametrize(
    ("path", "status", "cause"),
    [
        ("/hello", 501, "no_tunnel"),
        ("/plain", 502, "upstream_invalid"),
        ("/nobody", 404, "not_found"),
    ],
    ids=["a function", "a service that knows no WebSocket", "nobody"],
)
def test_what_is_no_websocket_is_never_a_success(
    gateway: Node, over_http_2: OverHttp2, path: str, status: int, cause: str
) -> None:
    """A success of any kind would open a tunnel (section 5)."""
    number = over_http_2.open(gateway, path)
    answer = over_http_2.http.answer(number)
    assert answer.status == status
    assert gateway.record(answer.request_id)["cause"] == cause


def test_other_protocols_have_no_tunnel(gateway: Node, over_http_2: OverHttp2) -> None:
    head = [
        (":method", "CONNECT"),
        (":protocol", "connect-ip"),
        (":scheme", "https"),
        (":path", "/talk"),
        (":authority", gateway.endpoint.authority),
    ]
    answer = over_http_2.http.answer(over_http_2.http.request(head, end=False))
    assert answer.status == 405
