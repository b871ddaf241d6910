"""One request with the answer its service would give: what a web application firewall is shown.

Owns the way from the bytes that a test client sends to the parts that a server hands on, and the answer of the
backend that the Core Rule Set's tests expect. Must not know rules, verdicts or engines.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field

CLIENT = "127.0.0.1"
REFLECT = "/reflect"

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Response:
    """What the service behind the firewall answers."""

    status: int = 200
    headers: Headers = (("Content-Type", "text/plain; charset=utf-8"),)
    body: bytes = b""


@dataclass(frozen=True)
class Exchange:
    """A request as a server reads it, and the answer to it."""

    method: str
    uri: str
    version: str
    headers: Headers
    body: bytes = b""
    response: Response = field(default_factory=Response)

    def line(self) -> str:
        """One line of JSON: the form that both engines read from their standard input."""
        return json.dumps(
            {
                "client": CLIENT,
                "method": self.method,
                "uri": self.uri,
                "version": self.version,
                "headers": self.headers,
                "body_base64": base64.b64encode(self.body).decode(),
                "response": {
                    "status": self.response.status,
                    "headers": self.response.headers,
                    "body_base64": base64.b64encode(self.response.body).decode(),
                },
            }
        )


def read(raw: bytes) -> Exchange:
    """Take the bytes of a request apart, as leniently as the servers do that hand all of it to their firewall."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    request_line, *lines = head.split(b"\r\n")
    method, _, target = request_line.decode().partition(" ")
    uri, _, version = target.rpartition(" ")
    headers = tuple(
        (name.decode(), value.strip(b" \t").decode())
        for name, _, value in (line.partition(b":") for line in lines)
    )
    body = _body(headers, rest)
    if _is_chunked(
        headers
    ):  # RFC 9112, 6.3: the other length goes before anybody else reads the request
        headers = tuple(each for each in headers if each[0].lower() != "content-length")
    return Exchange(method, uri, version or "HTTP/0.9", headers, body, _answer(uri, body))


def _body(headers: Headers, rest: bytes) -> bytes:
    if _is_chunked(headers):
        return _unchunked(rest)
    length = next((value for name, value in headers if name.lower() == "content-length"), "0")
    return rest[: int(length)] if length.isdecimal() else b""


def _is_chunked(headers: Headers) -> bool:
    return ("transfer-encoding", "chunked") in ((name.lower(), value) for name, value in headers)


def _unchunked(rest: bytes) -> bytes:
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        if not length:
            break
        body, rest = body + rest[:length], rest[length + 2 :]
    return body


def _answer(uri: str, body: bytes) -> Response:
    """What the tests' backend does: under /reflect a JSON document in the request says what to answer."""
    if not uri.startswith(REFLECT):
        return Response()
    try:
        wanted = json.loads(body)
    except ValueError:
        return Response(status=400)
    headers = {"Content-Type": "text/plain; charset=utf-8"} | wanted.get("headers", {})
    return Response(
        status=int(wanted.get("status", 200)),
        headers=tuple(headers.items()),
        body=str(wanted.get("body", "")).encode(),
    )
