"""A stream of events as a caller of the node has it, over HTTP/1.1 or HTTP/2.

Owns: chunks and frames by hand, since no client reads an answer before its request has ended. Must not: know what the
events mean.
"""

from __future__ import annotations

import json
import ssl
from typing import Any

from tests.e2e.node import Node
from tests.e2e.wire import HTTP_2, Http2, read_head


class Talk:
    """A stream over one connection: what is sent, and the lines that came. `asked`: `path`, `query`, `token`."""

    def __init__(self, node: Node, protocol: str, secured: ssl.SSLSocket, **asked: str) -> None:
        self.secured, self.protocol = secured, protocol
        path = asked.get("path", "/v2/models/pump/stream") + asked.get("query", "")
        token = asked.get("token") or node.usual_token
        self._lines: list[dict[str, Any]] = []
        self._rest, self._seen = b"", 0
        if protocol == HTTP_2:
            self.http = Http2(secured)
            fields = [
                (":method", "POST"),
                (":scheme", "https"),
                (":authority", node.endpoint.authority),
                (":path", path),
                ("authorization", f"Bearer {token}"),
            ]
            self.number = self.http.request(fields, end=False)
            while not self.http.status(self.number):
                self.http.pump()
            self.status, self.head = self.http.status(self.number), self.http.head(self.number)
        else:
            secured.sendall(
                f"POST {path} HTTP/1.1\r\nhost: {node.endpoint.authority}\r\n"
                f"authorization: Bearer {token}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
            )
            head = read_head(secured).split("\r\n")
            self.status = int(head[0].split()[1])
            self.head = dict(line.split(": ", 1) for line in head[1:] if line)

    def send(self, *events: Any) -> None:
        """Events, a line each."""
        piece = b"".join(json.dumps(each).encode() + b"\n" for each in events)
        if self.protocol == HTTP_2:
            self.http.connection.send_data(self.number, piece)
            self.http.flush()
        else:
            self.secured.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))

    def end(self) -> None:
        """No event follows."""
        if self.protocol == HTTP_2:
            self.http.connection.end_stream(self.number)
            self.http.flush()
        else:
            self.secured.sendall(b"0\r\n\r\n")

    def line(self) -> dict[str, Any] | None:
        """The next result; None: the answer has ended, whichever way."""
        while not self._lines:
            piece = self._more()
            if piece is None:
                return None
            *lines, self._rest = (self._rest + piece).split(b"\n")
            self._lines += [json.loads(line) for line in lines]
        return self._lines.pop(0)

    def _more(self) -> bytes | None:
        if self.protocol == HTTP_2:
            while len(self.http.body_so_far(self.number)) == self._seen:
                if self.has_ended():
                    return None
                self.http.pump()
            body = self.http.body_so_far(self.number)
            piece, self._seen = body[self._seen :], len(body)
            return piece
        size = b""
        try:
            while not size.endswith(b"\r\n"):
                byte = self.secured.recv(1)
                if not byte:
                    return None
                size += byte
            piece = b""
            length = int(size, 16) + 2
            while len(piece) < length:
                piece += self.secured.recv(length - len(piece))
        except (ConnectionError, ssl.SSLError):
            return None
        return piece[:-2] or None

    def has_ended(self) -> bool:
        """Whether the stream of HTTP/2 is over."""
        return self.http.closed or self.number in self.http.resets or self.is_whole()

    def is_whole(self) -> bool:
        """Whether the node ended it, and did not break it off."""
        stream = self.http.connection.streams.get(self.number)
        return self.number not in self.http.resets and (stream is None or stream.closed)

    def ask(self, event: Any) -> dict[str, Any]:
        """One event, and its result."""
        self.send(event)
        said = self.line()
        assert said is not None
        return said
