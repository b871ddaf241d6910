"""Host names in the one form the engine compares: lower case, no port, no trailing dot, A-labels.

Owns: normalising what people write. Must not: resolve a name.
"""

from __future__ import annotations

import ipaddress
import re

from vedette.errors import ConfigError

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)\Z")


def normalise_host(text: str) -> str:
    """The normal form of a host, which may be an address or start with `*.` (one or more labels).

    IPv6 addresses have no brackets and are compressed (RFC 5952). Raises `ConfigError`
    invalid_host.
    """
    bare = text.strip().removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        pass
    wildcard = text.strip().startswith("*.")
    name = _to_ascii(text.strip().removeprefix("*.").removesuffix("."), text)
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.match(label) for label in labels) or labels[-1].isdigit():
        raise ConfigError("invalid_host", f"{text!r} is not a host name")
    return f"*.{name}" if wildcard else name


def _to_ascii(name: str, written: str) -> str:
    if name.isascii():
        return name.lower()
    try:
        return name.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise ConfigError("invalid_host", f"{written!r} is not a host name") from None


def host_of_address(address: str) -> str:
    """The normal host of `HOST:PORT` or `[V6]:PORT`. Raises `ConfigError` invalid_host."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise ConfigError("invalid_host", f"{address!r} is not HOST:PORT")
    return normalise_host(host)


def covers(pattern: str, host: str) -> bool:
    """Whether a normal `pattern` (a host, or `*.` and a suffix) covers the normal `host` or
    narrower pattern.
    """
    if pattern == host:
        return True
    return pattern.startswith("*.") and host.endswith(pattern[1:]) and host != pattern[2:]
