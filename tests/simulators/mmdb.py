"""A small database of countries in MaxMind's format (version 2.0, records of 24 bits), for addresses that tests have.

Owns: writing one. Must not: be read by anything but tests.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

_EMPTY = -1
_DATA = 1 << 24
_SEPARATOR = 16


def database(countries: Mapping[str, str], built: int = 1_750_000_000) -> bytes:
    """The bytes of a database: networks of IPv4 and IPv6 to their countries. Networks must not overlap."""
    nodes = [[_EMPTY, _EMPTY]]
    data = b""
    for network, country in countries.items():
        _insert(nodes, network, _DATA + len(data))
        data += b"\xe1" + _text("country_code") + _text(country)
    tree = b"".join(_record(each, len(nodes)) for node in nodes for each in node)
    return (
        tree + bytes(_SEPARATOR) + data + b"\xab\xcd\xefMaxMind.com" + _metadata(len(nodes), built)
    )


def _insert(nodes: list[list[int]], network: str, value: int) -> None:
    parsed = ipaddress.ip_network(network)
    bits = int(parsed.network_address)
    length = parsed.prefixlen + (96 if parsed.version == 4 else 0)
    node = 0
    for depth in range(length):
        bit = bits >> (127 - depth) & 1
        if depth + 1 == length:
            nodes[node][bit] = value
        elif nodes[node][bit] == _EMPTY:
            nodes.append([_EMPTY, _EMPTY])
            nodes[node][bit] = len(nodes) - 1
        node = nodes[node][bit]


def _record(value: int, count: int) -> bytes:
    if value == _EMPTY:
        value = count
    elif value >= _DATA:
        value = count + _SEPARATOR + value - _DATA
    return value.to_bytes(3, "big")


def _text(word: str) -> bytes:
    return bytes([0x40 | len(word)]) + word.encode()


def _short(value: int) -> bytes:
    return b"\xa2" + value.to_bytes(2, "big")


def _metadata(count: int, built: int) -> bytes:
    fields = {
        "binary_format_major_version": _short(2),
        "binary_format_minor_version": _short(0),
        "build_epoch": b"\x04\x02" + built.to_bytes(4, "big"),
        "database_type": _text("Test"),
        "description": b"\xe0",
        "ip_version": _short(6),
        "languages": b"\x00\x04",
        "node_count": b"\xc4" + count.to_bytes(4, "big"),
        "record_size": _short(24),
    }
    return bytes([0xE0 | len(fields)]) + b"".join(
        _text(name) + value for name, value in fields.items()
    )
