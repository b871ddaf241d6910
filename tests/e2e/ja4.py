"""JA4 of a TLS client, made once more from FoxIO's description, to compare the node's with.

Owns: the first message of a Python client as bytes, and its fingerprint. Must not: read what a proper client would not
send.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator

_NAME, _ALGORITHMS, _ALPN, _VERSIONS = 0x0000, 0x000D, 0x0010, 0x002B


def first_message(context: ssl.SSLContext, server_name: str) -> bytes:
    """What a client with this context says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=server_name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake that needs no answer")


def ja4(record: bytes) -> str:
    """The fingerprint of a ClientHello in one record."""
    hello = record[9:]
    place = 2 + 32
    place += 1 + hello[place]
    size = int.from_bytes(hello[place : place + 2], "big")
    ciphers = _numbers(hello[place + 2 : place + 2 + size])
    place += 2 + size
    place += 1 + hello[place]
    extensions = dict(_extensions(hello[place + 2 :]))
    kinds = [kind for kind in extensions if not _is_grease(kind)]
    versions = _numbers(extensions[_VERSIONS][1:])
    protocol = extensions[_ALPN][3 : 3 + extensions[_ALPN][2]].decode()
    shape = {0x0304: "t13", 0x0303: "t12"}[max(versions)]
    shape += "d" if _NAME in extensions else "i"
    shape += f"{len(ciphers):02}{len(kinds):02}{protocol[0]}{protocol[-1]}"
    listed = ",".join(f"{kind:04x}" for kind in sorted(set(kinds) - {_NAME, _ALPN}))
    algorithms = ",".join(f"{one:04x}" for one in _numbers(extensions[_ALGORITHMS][2:]))
    sorted_ciphers = ",".join(f"{one:04x}" for one in sorted(ciphers))
    return f"{shape}_{_hash(sorted_ciphers)}_{_hash(f'{listed}_{algorithms}')}"


def _extensions(rest: bytes) -> Iterator[tuple[int, bytes]]:
    while rest:
        kind, size = int.from_bytes(rest[:2], "big"), int.from_bytes(rest[2:4], "big")
        yield kind, rest[4 : 4 + size]
        rest = rest[4 + size :]


def _numbers(content: bytes) -> list[int]:
    pairs = (content[place : place + 2] for place in range(0, len(content), 2))
    return [one for pair in pairs if not _is_grease(one := int.from_bytes(pair, "big"))]


def _is_grease(number: int) -> bool:
    return number & 0x0F0F == 0x0A0A and number >> 8 == number & 0xFF


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
