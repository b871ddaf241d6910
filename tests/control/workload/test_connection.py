"""Hostile callers: what each can cost, and that the others are served meanwhile."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import time
from collections.abc import Iterator

import pytest
from h2.settings import SettingCodes
from tests.control.workload.conftest import Served
from tests.control.workload.raw_client import PATIENCE, RawClient, framed

from vedette.control.supervisor.state import ProcessState, SupervisorState
from vedette.control.workload import server
from vedette.control.workload.attest import Peer
from vedette.control.workload.connection import Connections, Limits
from vedette.control.workload.grpc import MAX_MESSAGE, MAX_QUEUED, Budget, Call, Status
from vedette.processes import start_ticks


def limited(monkeypatch: pytest.MonkeyPatch, **limits: float) -> None:
    """Limits of the server that the fixture `served` starts after this."""
    changed = dataclasses.replace(Limits(), **limits)  # type: ignore[arg-type]
    monkeypatch.setattr(server, "_limits", lambda: changed)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, connections_of_user=3, calls=4, stall_seconds=0.5, idle_seconds=0.5)


@contextlib.contextmanager
def connected(served: Served, **more: dict[int, int]) -> Iterator[RawClient]:
    client = RawClient(served.home.workload_socket, **more)
    yield client
    client.close()


def until_closed(client: RawClient) -> None:
    """Returns when the node has closed the connection."""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while not client.closed:
            client.read()
    client.closed = True


def is_served(served: Served) -> bool:
    with connected(served) as client:
        return bool(client.next_message(client.open("FetchX509SVID"), "X509SVIDResponse").svids)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, connections_of_user=3)


def test_a_user_has_so_many_connections_and_gets_another_for_one_that_ended(
    few: None, served: Served
) -> None:
    served.put("a")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(served)) for _ in range(3)]
        for client in clients:
            client.open("FetchX509SVID")
            client.read()
        with connected(served) as fourth:
            until_closed(fourth)
        clients[0].close()
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(ConnectionError, AssertionError):
                assert is_served(served)
                break


def test_nothing_is_remembered_of_a_user_without_connections() -> None:
    class Nobody:
        pass

    service, first, second = Nobody(), Nobody(), Nobody()
    connections = Connections(service, lambda _: True, Limits(connections=2))  # type: ignore[arg-type]
    peer = Peer(1, 1_000, 1_000)
    assert connections.admit(first, peer)  # type: ignore[arg-type]
    assert connections.admit(second, peer)  # type: ignore[arg-type]
    assert not connections.admit(Nobody(), Peer(2, 2_000, 2_000))  # type: ignore[arg-type]
    for one in (first, second):
        connections.release(one, peer)  # type: ignore[arg-type]
    assert list(connections) == []

    assert 1_000 not in connections._of_user


def test_calls_beyond_the_limit_of_all_are_unavailable_until_others_end(
    small: None, served: Served
) -> None:
    served.put("a")
    with connected(served) as client, connected(served) as other:
        streams = [client.open("FetchX509SVID") for _ in range(4)]
        for stream in streams:
            client.next_message(stream, "X509SVIDResponse")
        assert other.status(other.open("FetchX509SVID")) == Status.UNAVAILABLE
        client.http.reset_stream(streams[0])
        client.flush()
        status = Status.UNAVAILABLE
        while status == Status.UNAVAILABLE:
            asked = other.ask("FetchJWTSVID", "JWTSVIDRequest", audience=["a"])
            status = Status(other.status(asked))
        assert status is Status.OK


@pytest.fixture
def seven(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, calls_of_connection=7)


def test_a_connection_has_so_many_calls(seven: None, served: Served) -> None:
    served.put("a")
    with connected(served) as client:
        for _ in range(7):
            client.next_message(client.open("FetchX509SVID"), "X509SVIDResponse")
        assert client.http.remote_settings.max_concurrent_streams == 7
        client.http.remote_settings.max_concurrent_streams = 8  # one that does not care
        client.http.remote_settings.acknowledge()
        client.open("FetchX509SVID")
        until_closed(client)


def test_a_message_that_is_too_large_or_compressed_ends_its_call_only(served: Served) -> None:
    served.put("a")
    with connected(served) as client:
        watching = client.open("FetchX509SVID")
        client.next_message(watching, "X509SVIDResponse")
        large = client.open("FetchX509SVID", body=b"\0" + (MAX_MESSAGE + 1).to_bytes(4, "big"))
        assert client.status(large) == Status.RESOURCE_EXHAUSTED
        longest = client.open("FetchX509SVID", body=b"\0\xff\xff\xff\xff", end=False)
        assert client.status(longest) == Status.RESOURCE_EXHAUSTED
        compressed = client.open("FetchX509SVID", body=b"\1\0\0\0\0")
        assert client.status(compressed) == Status.UNIMPLEMENTED
        served.put("b")
        assert len(client.next_message(watching, "X509SVIDResponse").svids) == 2


def test_a_message_in_pieces_is_one_message(served: Served) -> None:
    served.put("a")
    with connected(served) as client:
        stream = client.open("FetchX509SVID", body=None, end=False)
        for byte in b"\0\0\0\0":
            client.http.send_data(stream, bytes([byte]))
            client.flush()
        client.http.send_data(stream, b"\0", end_stream=True)
        client.flush()
        assert client.next_message(stream, "X509SVIDResponse").svids


def test_a_connection_may_send_more_than_its_first_window(served: Served) -> None:
    served.put("a")
    with connected(served) as client:
        for _ in range(20):
            asked = client.ask(
                "ValidateJWTSVID", "ValidateJWTSVIDRequest", audience="a", svid="x" * 8_000
            )
            assert client.status(asked) == Status.INVALID_ARGUMENT


def test_honest_calls_are_no_flood(served: Served) -> None:
    served.put("a")
    with connected(served) as client:
        for _ in range(2_500):
            asked = client.ask("FetchJWTSVID", "JWTSVIDRequest", audience=["a"])
            assert client.status(asked) == Status.OK


def test_unfinished_requests_of_a_connection_share_one_bound(served: Served) -> None:
    served.put("a")
    part = b"\0" + (60_000).to_bytes(4, "big") + b"x" * 15_000
    with connected(served) as client:
        streams = []
        for _ in range(5):
            while client.http.outbound_flow_control_window < len(part):
                client.read()
            streams.append(client.open("FetchX509SVID", body=part, end=False))
        assert client.status(streams[-1]) == Status.RESOURCE_EXHAUSTED
        assert streams[0] not in client.trailers
        served.put("b")
        watching = client.open("FetchX509SVID")
        assert len(client.next_message(watching, "X509SVIDResponse").svids) == 2


def test_of_the_fields_of_a_call_only_those_that_matter_are_kept() -> None:
    fields = [(b":path", b"p" * 1_000), (b"cookie", b"c" * 60_000), *[(b"te", b"x")] * 50]
    header = [(b"workload.spiffe.io", b"true")] * 2
    call = Call(None, 1, None, [*fields, *header])  # type: ignore[arg-type]
    assert len(call.path) == 256
    assert call.metadata(b"cookie") == []
    assert call.metadata(b"workload.spiffe.io") == [b"true", b"true"]
    many = Call(None, 1, None, header * 5_000)  # type: ignore[arg-type]
    assert 2 <= len(many.metadata(b"workload.spiffe.io")) < 10


@pytest.mark.parametrize(
    "changed",
    [
        {":method": b"GET"},
        {"content-type": b"application/json"},
        {"content-type": b"application/grpc-web"},
        {":path": b"/"},
        {":path": b"FetchX509SVID"},
        {":path": b"/SpiffeWorkloadAPI/\xff"},
    ],
)
def test_what_is_no_call_is_answered_unimplemented(
    served: Served, changed: dict[str, bytes]
) -> None:
    served.put("a")
    with connected(served) as client:
        assert client.status(client.open("FetchX509SVID", **changed)) == Status.UNIMPLEMENTED


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64, os.urandom(4_096), b"PRI * HTTP/2.0\r\n\r\nX"]
)
def test_what_is_no_http2_costs_its_connection_only(served: Served, data: bytes) -> None:
    served.put("a")
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(PATIENCE)
        raw.connect(str(served.home.workload_socket))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            raw.sendall(data)
            while raw.recv(4_096):
                pass
    assert is_served(served)


def test_a_connection_without_a_call_is_closed_after_a_while(small: None, served: Served) -> None:
    with connected(served) as client:
        until_closed(client)


def test_a_watch_that_waits_for_news_is_not_idle(small: None, served: Served) -> None:
    served.put("a")
    with connected(served) as quiet, connected(served) as idle:
        stream = quiet.open("FetchX509SVID")
        quiet.next_message(stream, "X509SVIDResponse")
        until_closed(idle)
        served.put("b")
        assert len(quiet.next_message(stream, "X509SVIDResponse").svids) == 2


def test_a_caller_that_never_reads_is_closed_and_holds_nobody_up(
    small: None, served: Served
) -> None:
    served.put("a", ttl_seconds=900)
    closed_window = {int(SettingCodes.INITIAL_WINDOW_SIZE): 0}
    with connected(served, settings=closed_window) as stuck:
        stuck.open("FetchX509SVID")
        for _ in range(3):
            assert is_served(served)
        until_closed(stuck)
        assert not any(stuck.messages.values())


def test_what_waits_for_a_caller_is_two_messages_at_most() -> None:
    class Http:
        max_outbound_frame_size = 16_384

        def __init__(self) -> None:
            self.sent = b""
            self.window = 3  # in the middle of the prefix

        def local_flow_control_window(self, _: int) -> int:
            return self.window

        def send_headers(self, *_: object, **__: object) -> None:
            pass

        def send_data(self, _: int, data: bytes) -> None:
            self.sent += data
            self.window -= len(data)

    http = Http()
    call = Call(http, 1, None, [])  # type: ignore[arg-type]
    for number in range(10_000):
        call.push(b"%05d" % number)
        call.pump()
    assert call.is_stalled
    http.window = 1_000
    call.pump()
    assert http.sent == framed(b"00000") + framed(b"09999")
    for number in range(MAX_QUEUED + 1):
        http.window = 0
        call.push(b"%05d" % number, replaces=False)
    http.window = 1_000
    call.pump()
    assert call.closed


def test_floods_of_frames_end_their_connection(served: Served) -> None:
    served.put("a")
    with connected(served) as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(200):
                for _ in range(20):
                    client.http.ping(b"12345678")
                client.flush()
        until_closed(client)
    assert is_served(served)


def test_rapid_resets_end_their_connection(served: Served) -> None:
    served.put("a")
    with connected(served) as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(5_000):
                stream = client.open("FetchX509SVID")
                client.http.reset_stream(stream)
        until_closed(client)
    assert is_served(served)


def test_a_budget_comes_back_with_time() -> None:
    budget = Budget(2, 1, at=0.0)
    assert [budget.spend(0.0) for _ in range(3)] == [True, True, False]
    assert budget.spend(3.0)
    assert [budget.spend(100.0) for _ in range(3)] == [True, True, False]


def test_the_engine_is_refused(served: Served) -> None:
    served.put("a")
    me = os.getpid()
    state = SupervisorState("1", str(served.home.root), "local")
    state.engine = ProcessState(pid=me, state="running", startTicks=start_ticks(me))
    state.write(served.home.supervisor_file)
    with connected(served) as client:
        until_closed(client)
    served.home.supervisor_file.unlink()
    assert is_served(served)


def test_ten_thousand_watches_are_told_of_a_change(served: Served) -> None:
    served.put("a")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connected(served)) for _ in range(100)]
        for client in clients:
            for _ in range(100):
                client.open("FetchX509SVID")
        for client in clients:
            for stream in range(1, 201, 2):
                assert len(client.next_message(stream, "X509SVIDResponse").svids) == 1
        served.put("b")
        for client in clients:
            for stream in range(1, 201, 2):
                assert len(client.next_message(stream, "X509SVIDResponse").svids) == 2


def test_the_limits_fit_the_files_that_the_process_may_have() -> None:
    limits = server._limits()
    assert 16 <= limits.connections <= Limits().connections
