"""Whether an address is on a list: for telling people, never for the path.

Owns: reading a list's text as the engine does (docs/admit.md). Pure. Must not: decide whether a list is valid.
"""

from __future__ import annotations

import ipaddress
import re
from collections import defaultdict
from typing import Final

_FIRST_WORD: Final = re.compile(rb"^\s*([^\s#;]+)", re.M)
_WIDEST: Final = {4: 8, 6: 16}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Networks:
    """The networks of a list, by how long their prefix is."""

    def __init__(self, text: bytes) -> None:
        self._firsts: dict[tuple[int, int], set[int]] = defaultdict(set)
        for word in _FIRST_WORD.findall(text.removeprefix(b"\xef\xbb\xbf")):
            self._add(word.decode(errors="replace"))

    def _add(self, word: str) -> None:
        try:
            network = ipaddress.ip_network(word, strict=False)
        except ValueError:
            return  # a bad line is left out; `status` tells of it
        first, prefix = canonical(network.network_address), network.prefixlen
        if first.version != network.version:
            prefix -= 96
        if prefix >= _WIDEST[first.version]:
            self._firsts[first.version, prefix].add(int(first))

    def __contains__(self, address: Address) -> bool:
        number = int(address)
        return any(
            number >> (address.max_prefixlen - prefix) << (address.max_prefixlen - prefix) in firsts
            for (version, prefix), firsts in self._firsts.items()
            if version == address.version
        )


def canonical(address: Address) -> Address:
    """The same; IPv4 where it is mapped into IPv6."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
