"""Who may speak to the admin socket: the kernel says who is at the other end (SO_PEERCRED, unix(7)).

Owns: the check on connection, before a byte is read. Must not: look at anything the peer says about itself.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

_UCRED = struct.Struct("3i")


def peer_uid(connected: socket.socket) -> int:
    """The user id of the process that connected."""
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(raw)[1])


def is_allowed(uid: int) -> bool:
    """The node's own user and root."""
    return uid in (os.getuid(), 0)


class PeerCheckedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol, for peers that may use the admin API; others are disconnected unheard.

    The peer's uid is the `client` of the request's scope, so that the history says who changed what.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admits or drops the connection."""
        uid = peer_uid(cast("Any", transport.get_extra_info("socket")))
        if not is_allowed(uid):
            transport.abort()
            return
        super().connection_made(transport)
        self.client = (f"uid:{uid}", 0)
