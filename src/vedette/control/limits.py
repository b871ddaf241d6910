"""The limit on request bodies of the admin API.

Owns: refusing a body that is larger than any real request, before it is in memory. Must not: touch component uploads,
which are streamed and have a limit of their own.
"""

from __future__ import annotations

import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vedette.errors import ConfigError

MAX_BODY_BYTES = 2 * 1024 * 1024


class BodyLimit:
    """ASGI wrapper: 413 for a body over 2 MiB, declared or counted."""

    def __init__(self, app: ASGIApp, unlimited_prefix: str) -> None:
        self._app = app
        self._unlimited_prefix = unlimited_prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http" or scope["path"].startswith(self._unlimited_prefix):
            await self._app(scope, receive, send)
            return
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > MAX_BODY_BYTES:
                await _refuse(send)
                return
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                break
        await self._app(scope, _replay(bytes(body), receive), send)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives the whole body once, then what really comes (a disconnect)."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _refuse(send: Send) -> None:
    error = ConfigError("request_invalid", f"the request is larger than {MAX_BODY_BYTES} bytes")
    body = json.dumps({"error": error.to_dict()}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
