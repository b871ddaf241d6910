"""A WebSocket service by the library `websockets`: it says back what it hears.

Owns: what each handshake said. Must not: know what a test expects.
"""

from __future__ import annotations

import threading

from websockets.http11 import Request
from websockets.sync.server import ServerConnection, serve


class WebSocketService:
    """Listens on a loopback port of its own until closed."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self._server = serve(
            self._talk, "127.0.0.1", 0, subprotocols=["chat"], max_size=64 << 20, compression=None
        )
        self.port = int(self._server.socket.getsockname()[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Ends every connection."""
        self._server.shutdown()

    def _talk(self, peer: ServerConnection) -> None:
        assert peer.request is not None
        self.asked.append(peer.request)
        for message in peer:
            if message == "close please":
                peer.close(4_000, "as you wish")
                return
            peer.send(message)
