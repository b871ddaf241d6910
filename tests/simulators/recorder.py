"""A service that reads HTTP/1.1 as narrowly as RFC 9112 allows, and keeps every byte that it got.

Owns: what came, message by message, and what about it was not in the one form that a careful sender writes. Must not:
mend anything: what it cannot read to the letter is a complaint.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from dataclasses import dataclass, field
from typing import BinaryIO

_REQUEST_LINE = re.compile(rb"([A-Z]+) (/[\x21-\x7e]*) HTTP/1\.1\r\n")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9a-z-]+): ([\x20-\x7e\x80-\xff\t]*)\r\n")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})\r\n")
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nseen"


@dataclass
class Message:
    """One whole request; `trailers` came behind its body."""

    method: str
    target: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def values(self, name: str) -> list[str]:
        """The values of the fields of this name, in the order they came."""
        return [value for each, value in self.fields if each == name]


class MalformedError(Exception):
    """The bytes are not in the one form."""


@dataclass
class Recorder:
    """Listens on a loopback port of its own until closed."""

    messages: list[Message] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    raw: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Refuses new connections from now on."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def forget(self) -> None:
        """Begins anew."""
        self.messages.clear()
        self.complaints.clear()
        self.raw.clear()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError, EOFError):
            stream = peer.makefile("rb")
            while True:
                try:
                    self.messages.append(self._message(stream))
                except MalformedError as error:
                    self.complaints.append(str(error))
                    return
                peer.sendall(_ANSWER)

    def _line(self, stream: BinaryIO) -> bytes:
        """One line with its end. A line that does not end is a message that was broken off, which is no complaint."""
        line = stream.readline()
        self.raw += line
        if not line.endswith(b"\n"):
            raise EOFError
        return line

    def _exactly(self, stream: BinaryIO, size: int) -> bytes:
        data = stream.read(size)
        self.raw += data
        if len(data) < size:
            raise EOFError
        return data

    def _message(self, stream: BinaryIO) -> Message:
        line = self._line(stream)
        found = _REQUEST_LINE.fullmatch(line)
        if not found:
            raise MalformedError(f"request line {line!r}")
        message = Message(found[1].decode(), found[2].decode(), self._fields(stream))
        self._body(stream, message)
        return message

    def _fields(self, stream: BinaryIO) -> list[tuple[str, str]]:
        fields = []
        while (line := self._line(stream)) != b"\r\n":
            found = _FIELD.fullmatch(line)
            if not found:
                raise MalformedError(f"field {line!r}")
            fields.append((found[1].decode(), found[2].decode("latin-1")))
        return fields

    def _body(self, stream: BinaryIO, message: Message) -> None:
        lengths, codings = message.values("content-length"), message.values("transfer-encoding")
        if len(lengths) + len(codings) > 1:
            raise MalformedError(f"framed more than once: {lengths} {codings}")
        if len(message.values("host")) != 1:
            raise MalformedError(f"hosts {message.values('host')}")
        if codings:
            if codings != ["chunked"]:
                raise MalformedError(f"coding {codings}")
            message.body = self._chunks(stream)
            message.trailers = self._fields(stream)
        elif lengths:
            if not re.fullmatch(r"0|[1-9][0-9]*", lengths[0]):
                raise MalformedError(f"length {lengths}")
            message.body = self._exactly(stream, int(lengths[0]))

    def _chunks(self, stream: BinaryIO) -> bytes:
        body = b""
        while True:
            line = self._line(stream)
            found = _CHUNK.fullmatch(line)
            if not found:
                raise MalformedError(f"chunk size {line!r}")
            size = int(found[1], 16)
            if size == 0:
                return body
            body += self._exactly(stream, size)
            if (end := self._exactly(stream, 2)) != b"\r\n":
                raise MalformedError(f"end of a chunk {end!r}")
