"""The first flight of TLS 1.3 by hand (RFC 8446 §4), to see which key exchange a server chooses.

Owns: one ClientHello that offers groups with a share each, and reading the group of the ServerHello. The shares are
well formed and nobody knows their secrets; the handshake ends there. Must not: be used to talk to anybody.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

X25519: Final = 0x001D
X25519MLKEM768: Final = 0x11EC  # draft-ietf-tls-ecdhe-mlkem: the ML-KEM key, then the X25519 key

_HANDSHAKE, _CLIENT_HELLO, _SERVER_HELLO = 22, 1, 2
_SERVER_NAME, _GROUPS, _SIGNATURES, _ALPN, _VERSIONS, _KEY_SHARE = 0, 10, 13, 16, 43, 51
_BASE_POINT: Final = b"\x09" + bytes(31)
# FIPS 203: 3 * 384 bytes of coefficients, all zero and so below the modulus, and a seed of 32 bytes.
_ML_KEM_KEY: Final = bytes(1152) + bytes(range(32))
_SHARES: Final = {X25519: _BASE_POINT, X25519MLKEM768: _ML_KEM_KEY + _BASE_POINT}
_PATIENCE: Final = 10.0


def chosen_group(address: tuple[str, int], offered: list[int], server_name: str = "") -> int:
    """The group a server picks of those offered, in the client's order; without a `server_name` none is sent.

    Raises `ValueError` when it answers with anything but a ServerHello, `OSError` when it cannot be reached.
    """
    with socket.create_connection(address, timeout=_PATIENCE) as connection:
        connection.sendall(_record(_client_hello(offered, server_name)))
        head = _exactly(connection, 5)
        body = _exactly(connection, int.from_bytes(head[3:5], "big"))
    if head[0] != _HANDSHAKE or not body or body[0] != _SERVER_HELLO:
        raise ValueError(f"no ServerHello but a record of type {head[0]}")
    return _group_of(body)


def _client_hello(offered: list[int], server_name: str) -> bytes:
    name = _sized(b"\0" + _sized(server_name.encode(), 2), 2)
    shares = b"".join(struct.pack(">H", group) + _sized(_SHARES[group], 2) for group in offered)
    extensions = b"".join(
        struct.pack(">H", number) + _sized(content, 2)
        for number, content in (
            *([(_SERVER_NAME, name)] if server_name else []),
            (_GROUPS, _sized(b"".join(struct.pack(">H", group) for group in offered), 2)),
            (_SIGNATURES, _sized(bytes.fromhex("040308070804"), 2)),
            (_ALPN, _sized(_sized(b"http/1.1", 1), 2)),
            (_VERSIONS, _sized(bytes.fromhex("0304"), 1)),
            (_KEY_SHARE, _sized(shares, 2)),
        )
    )
    suites = bytes.fromhex("130113021303")
    start = b"\x03\x03" + os.urandom(32) + _sized(os.urandom(32), 1)
    hello = start + _sized(suites, 2) + _sized(b"\0", 1) + _sized(extensions, 2)
    return bytes([_CLIENT_HELLO]) + _sized(hello, 3)


def _record(handshake: bytes) -> bytes:
    return bytes([_HANDSHAKE]) + b"\x03\x01" + _sized(handshake, 2)


def _sized(content: bytes, width: int) -> bytes:
    return len(content).to_bytes(width, "big") + content


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise ValueError(f"the server closed after {len(data)} of {count} bytes")
        data += more
    return data


def _group_of(server_hello: bytes) -> int:
    place = 4 + 2 + 32
    place += 1 + server_hello[place]  # the echoed session id
    place += 2 + 1 + 2  # cipher suite, compression, size of the extensions
    while place + 4 <= len(server_hello):
        number, size = struct.unpack_from(">HH", server_hello, place)
        if number == _KEY_SHARE:
            return int.from_bytes(server_hello[place + 4 : place + 6], "big")
        place += 4 + size
    raise ValueError("the ServerHello has no key share")
