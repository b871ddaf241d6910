"""Floods of HTTP/2 frames that ask for work and carry nothing: each client is told to calm down and cut off.

What is bounded is the memory of the engine; what is kept up is the service to everybody else.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.e2e.caller import Caller
from tests.e2e.conftest import StartNode
from tests.e2e.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    UNKNOWN,
    WINDOW_UPDATE,
    fields,
    frame,
)
from tests.e2e.node import GREETING, Node
from tests.e2e.wire import HTTP_2, connect, send
from tests.guests import Guests

FRAMES = 200_000
"""More than anybody needs, and few enough that a node which takes them all in is done in a second or two."""

MEMORY = 24 << 20
"""How much the engine may grow by, in bytes, whatever comes."""


def _continuations() -> bytes:
    """A head that goes on and on, in frames without a byte."""
    return frame(HEADERS, END_STREAM, 1, fields()) + frame(CONTINUATION, 0, 1) * FRAMES


def _long_head() -> bytes:
    """A head that goes on and on, with a field in each frame that nobody has room for."""
    literal = b"\x00\x01x\x7f\x80\x7e" + b"a" * 16_255  # RFC 7541 sections 5.1 and 6.2.2
    return frame(HEADERS, END_STREAM, 1, fields()) + frame(CONTINUATION, 0, 1, literal) * 2_000


def _resets() -> bytes:
    """CVE-2023-44487: requests that are taken back at once."""
    streams = range(1, 2 * (FRAMES // 4), 2)
    packed, cancel = fields(), (8).to_bytes(4, "big")
    return b"".join(
        frame(HEADERS, END_STREAM | END_HEADERS, each, packed) + frame(RST_STREAM, 0, each, cancel)
        for each in streams
    )


def _made_resets() -> bytes:
    """CVE-2025-8671: requests that the node itself has to reset, because each breaks a rule."""
    streams = range(1, 2 * (FRAMES // 4), 2)
    packed = fields(path="")
    return b"".join(frame(HEADERS, END_STREAM | END_HEADERS, each, packed) for each in streams)


def _settings() -> bytes:
    window = b"\x00\x04" + (65_535).to_bytes(4, "big")
    return frame(SETTINGS, 0, 0, window) * FRAMES


def _large_settings() -> bytes:
    window = b"\x00\x04" + (65_535).to_bytes(4, "big")
    return frame(SETTINGS, 0, 0, window * 2_700) * 1_000


def _pings() -> bytes:
    return frame(PING, 0, 0, b"12345678") * FRAMES


def _priorities() -> bytes:
    return b"".join(frame(PRIORITY, 0, each, b"\0\0\0\0\x10") for each in range(1, 2 * FRAMES, 2))


def _windows() -> bytes:
    return frame(WINDOW_UPDATE, 0, 0, (1).to_bytes(4, "big")) * FRAMES


def _empty_data() -> bytes:
    return frame(HEADERS, END_HEADERS, 1, fields("POST")) + frame(DATA, 0, 1) * FRAMES


def _unknown() -> bytes:
    return frame(UNKNOWN, 0, 0, b"x" * 64) * FRAMES


FLOODS: dict[str, Callable[[], bytes]] = {
    "continuations": _continuations,
    "a long head": _long_head,
    "resets": _resets,
    "resets that the node makes": _made_resets,
    "settings": _settings,
    "large settings": _large_settings,
    "pings": _pings,
    "priorities": _priorities,
    "window updates": _windows,
    "empty data": _empty_data,
    "frames of no known kind": _unknown,
}


@pytest.fixture(scope="module")
def flooded(start_node: StartNode, guests: Guests) -> Node:
    """A node of its own: its memory is looked at."""
    node = start_node()
    node.deploy(guests.hello, "hello", "--public")
    return node


def _flood(secured: ssl.SSLSocket, sent: bytes) -> bytes:
    """Sends as much as is taken, and returns what came back, up to the end of the connection."""
    came = b""
    secured.settimeout(0.05)
    view = memoryview(sent)
    with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
        while view:
            with contextlib.suppress(ssl.SSLWantReadError, TimeoutError):
                view = view[secured.send(view[:16_384]) :]
            with contextlib.suppress(ssl.SSLWantReadError, TimeoutError):
                secured.settimeout(0.0)
                piece = secured.recv(65_536)
                came += piece
                if not piece:
                    return came
            secured.settimeout(0.05)
    secured.settimeout(20)
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while piece := secured.recv(65_536):
            came += piece
    return came


def _goaway(came: bytes) -> int | None:
    """The error code of the last GOAWAY with one."""
    code = None
    while len(came) >= 9:
        size, kind = int.from_bytes(came[:3], "big"), came[3]
        if kind == GOAWAY and (found := int.from_bytes(came[13:17], "big")):
            code = found
        came = came[9 + size :]
    return code


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_cut_off_and_nobody_else_notices(flooded: Node, name: str) -> None:
    neighbour = Caller(flooded, HTTP_2)
    assert neighbour.ask("/hello", anonymous=True).body == GREETING
    before, known = flooded.resident(), len(flooded.requests.lines())
    sent = PREFACE + frame(SETTINGS, 0, 0) + FLOODS[name]()
    with connect(flooded.endpoint, HTTP_2) as secured, ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        flood = pool.submit(_flood, secured, sent)
        longest, is_over = 0.0, False
        while not is_over:
            is_over = flood.done()
            asked = time.monotonic()
            assert neighbour.ask("/hello", anonymous=True).body == GREETING
            longest = max(longest, time.monotonic() - asked)
        took = time.monotonic() - began
    neighbour.close()
    assert longest < 5, "the neighbour waited"
    assert _goaway(flood.result()) in (ENHANCE_YOUR_CALM, None)
    assert took < 20, "it went on until the client's patience ended"
    assert flooded.resident() - before < MEMORY
    [record] = flooded.requests.wait_for(
        lambda line: line in flooded.requests.lines()[known:] and line.get("cause") == "flooded"
    )
    assert (record["protocol"], record["method"], record["status"]) == ("HTTP/2.0", "-", 429)


@pytest.mark.parametrize("number", [101, 15_000], ids=["refused by admit", "refused by h2"])
def test_fields_without_a_byte_are_counted(flooded: Node, number: int) -> None:
    """CVE-2019-9516: fields that are empty, and packed into a byte each."""
    answer = send(flooded.endpoint, HTTP_2, "/hello", headers=[("x", "")] * number)
    assert (answer.status, answer.complete) == (431, True)


def test_a_client_that_opens_its_window_as_it_reads_is_no_flood(
    flooded: Node, guests: Guests
) -> None:
    """Ten thousand requests with a window opened for each, and a ping now and then."""
    with connect(flooded.endpoint, HTTP_2) as secured:
        packed = fields()
        secured.sendall(PREFACE + frame(SETTINGS, 0, 0))
        ended = 0
        unread = b""
        for first in range(1, 20_001, 200):
            for number in range(first, first + 200, 2):
                secured.sendall(
                    frame(HEADERS, END_STREAM | END_HEADERS, number, packed)
                    + frame(WINDOW_UPDATE, 0, 0, (19).to_bytes(4, "big"))
                    + frame(WINDOW_UPDATE, 0, number, (19).to_bytes(4, "big"))
                )
            secured.sendall(frame(PING, 0, 0, b"how fast"))
            wanted = ended + 100
            while ended < wanted:
                piece = secured.recv(65_536)
                assert piece, f"closed after {ended} answers"
                unread += piece
                while len(unread) >= 9 + (size := int.from_bytes(unread[:3], "big")):
                    ended += unread[3] in (DATA, HEADERS) and unread[4] & END_STREAM
                    unread = unread[9 + size :]
        assert ended == 10_000
