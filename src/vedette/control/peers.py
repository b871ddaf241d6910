"""Who may speak to the admin socket: the kernel says who is at the other end (SO_PEERCRED, unix(7)).

Owns: the check on connection, before a byte is read. Must not: look at anything the peer says about itself.

The engine runs as the same user and has no business here. Its own confinement keeps it from connecting; that its pid is
refused is a second line, and a weaker one: a process that the engine started would have another pid.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from vedette.control.supervisor.state import read_state
from vedette.processes import start_ticks
from vedette.store.home import Home

_UCRED = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, as the kernel saw it then."""

    pid: int
    uid: int


def peer_of(connected: socket.socket) -> Peer:
    """Who is at the other end."""
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _ = _UCRED.unpack(raw)
    return Peer(pid, uid)


def is_allowed(uid: int) -> bool:
    """The node's own user and root."""
    return uid in (os.getuid(), 0)


def is_engine(pid: int, home: Home) -> bool:
    """Whether `pid` is the engine that run/supervisor.json names; its start time tells a reused pid apart."""
    state = read_state(home.supervisor_file)
    if state is None or state.engine.pid != pid:
        return False
    started = start_ticks(pid)
    return started is None or started == state.engine.startTicks


class PeerCheckedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol, for peers that may use the admin API; others are disconnected unheard.

    The peer's uid is the `client` of the request's scope, so that the history says who changed what.
    """

    home: Home  # of the node whose admin API this is; `protocol_of` sets it

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admits or drops the connection."""
        peer = peer_of(cast("Any", transport.get_extra_info("socket")))
        if not is_allowed(peer.uid) or is_engine(peer.pid, self.home):
            transport.abort()
            return
        super().connection_made(transport)
        self.client = (f"uid:{peer.uid}", 0)


def protocol_of(home: Home) -> type[PeerCheckedProtocol]:
    """The protocol for the admin socket of the node at `home`; uvicorn makes the instances."""
    return type("AdminProtocol", (PeerCheckedProtocol,), {"home": home})
