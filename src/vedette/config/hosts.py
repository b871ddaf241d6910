"""Host names in the one form the engine compares: lower case, no port, no trailing dot, A-labels.

Owns: normalising what people write. Must not: resolve a name.
"""

from __future__ import annotations

import ipaddress
import re

from vedette.errors import ConfigError

_PORTS = {"http": 80, "https": 443}
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


def normalise_destination(text: str) -> str:
    """The normal form of where a function may call: `SCHEME://HOST[:PORT]`, the scheme's own port
    left out.

    Without a scheme it is https. A host may start with `*.`; an IPv6 address has brackets. Raises
    `ConfigError` invalid_host.
    """
    scheme, separator, rest = text.strip().rpartition("://")
    scheme = scheme.lower() if separator else "https"
    host, port = _split_port(rest)
    if scheme not in _PORTS or not host or (port is not None and not 0 < port < 65_536):
        raise ConfigError("invalid_host", f"{text!r} is not SCHEME://HOST[:PORT] of http or https")
    host = normalise_host(host)
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}" if port in (None, _PORTS[scheme]) else f"{scheme}://{shown}:{port}"


def _split_port(authority: str) -> tuple[str, int | None]:
    """Host and port; -1 for a port that is no number."""
    host, colon, port = authority.rpartition(":")
    if not colon or authority.endswith("]"):
        return authority, None
    return host, int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else -1


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
