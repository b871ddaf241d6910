"""A program's side of a join token: one gRPC call on the Workload API's socket (gRPC over HTTP2, ADR 0036).

Owns: that call. Must not: show or keep the token.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, Final

import h2.events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError

from vedette.control.workload import wire
from vedette.control.workload.grpc import MAX_MESSAGE, PREFIX, Status
from vedette.control.workload.joining import KINDS, PATH
from vedette.errors import ConfigError, UnavailableError, VedetteError

SECONDS: Final = 30.0
_STREAM: Final = 1
_READ: Final = 64 * 1024


def redeem(place: Path, token: str) -> tuple[str, str]:
    """Makes this program's caller the workload of a token: (SPIFFE ID, workload). `place` is the socket.

    Raises `ConfigError` join_token_refused, `UnavailableError` node_not_running.
    """
    request: bytes = KINDS["RedeemRequest"](token=token).SerializeToString()
    try:
        with socket.socket(socket.AF_UNIX) as connected:
            connected.settimeout(SECONDS)
            connected.connect(str(place))
            status, body = _called(connected, request)
    except (OSError, ProtocolError) as error:
        message = f"nobody answers at {place}: {getattr(error, 'strerror', None) or error}"
        raise UnavailableError("node_not_running", message) from None
    if status != Status.OK:
        raise _refused(status)
    answer: Any = wire.parsed(KINDS["RedeemResponse"], body[PREFIX:])
    return str(answer.spiffe_id), str(answer.workload)


def _called(connected: socket.socket, request: bytes) -> tuple[int, bytes]:
    """The status of gRPC, and the message with its prefix."""
    http = H2Connection(H2Configuration(header_encoding="utf-8"))
    http.initiate_connection()
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":authority": "localhost",
        ":path": PATH.decode(),
        "content-type": "application/grpc",
        "te": "trailers",
        "workload.spiffe.io": "true",
    }
    http.send_headers(_STREAM, list(fields.items()))
    message = b"\0" + len(request).to_bytes(4, "big") + request
    http.send_data(_STREAM, message, end_stream=True)
    connected.sendall(http.data_to_send())
    body = bytearray()
    while data := connected.recv(_READ):
        for event in http.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                body += event.data
            found = dict(getattr(event, "headers", None) or [])
            if "grpc-status" in found:
                return int(found["grpc-status"]), bytes(body)
        if len(body) > MAX_MESSAGE:
            break
        connected.sendall(http.data_to_send())
    raise OSError("the node hung up")


def _refused(status: int) -> VedetteError:
    if status == Status.PERMISSION_DENIED:
        return ConfigError("join_token_refused", "the token joins nobody")
    if status == Status.UNIMPLEMENTED:
        return UnavailableError("node_not_running", "that node takes no join tokens")
    return UnavailableError(
        "node_not_running", f"the node does not take it now (gRPC status {status})"
    )
