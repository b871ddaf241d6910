"""The limit on request bodies of the admin API.

Owns: refusing a body that is larger than any real request, before it is in memory. Must not: touch component uploads,
which are streamed and have a limit of their own.
"""

from __future__ import annotations

import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vedette.errors import ConfigError

MAX_BODY_BYTES = 2 * 1024 * 1024
MAX_PLAN_BYTES = 64 * 1024 * 1024
UPLOADS = ("/v1/blobs/", "/v1/files/", "/v1/model-files/")
LARGE = ("/v1/plan", "/v1/apply", "/v1/waf/judge", "/v1/waf/replay", "/v1/waf/rules")


class BodyLimit:
    """ASGI wrapper: 413 for a body over 2 MiB, or 64 MiB for manifests, plans, recorded traffic and rule sets."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http" or scope["path"].startswith(UPLOADS):
            await self._app(scope, receive, send)
            return
        most = MAX_PLAN_BYTES if scope["path"] in LARGE else MAX_BODY_BYTES
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > most:
                await _refuse(send, most)
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


async def _refuse(send: Send, most: int) -> None:
    error = ConfigError("request_invalid", f"the request is larger than {most} bytes")
    body = json.dumps({"error": error.to_dict()}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
