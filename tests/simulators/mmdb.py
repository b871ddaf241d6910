"""A small database of countries in MaxMind's format, for addresses that tests have.

Owns: nothing but its two defaults; the writer is that of the database that a node brings.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from vedette.policy import countries as writer


def database(countries: Mapping[str, str], built: int = 1_750_000_000) -> bytes:
    """The bytes of a database: networks of IPv4 and IPv6 to their countries. Networks must not overlap."""
    parsed = ((ipaddress.ip_network(network), code) for network, code in countries.items())
    found = [
        (each.version, int(each.network_address), each.prefixlen, code) for each, code in parsed
    ]
    return writer.database(found, built)
