"""What people write in manifests for a single value: sizes, durations, hosts, paths, URLs, rates.

Owns: the types of such fields, which keep or normalise the text and refuse what cannot be read. Must
not: know which manifest a field belongs to.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator

from vedette.clock import parse_duration, to_milliseconds
from vedette.config.hosts import normalise_host
from vedette.config.paths import require_route_path
from vedette.config.quantities import parse_size
from vedette.errors import ConfigError

_PORTS: Final = {"http": 80, "https": 443}
# As crates/upstream/src/address.rs: the largest private ranges there are.
_SHORTEST_PREFIX: Final = {4: 8, 6: 7}
_RANGE: Final = re.compile(
    r"(https?)://(?:\[([0-9a-fA-F:.]+/\d{1,3})\]|([0-9.]+/\d{1,3}))(?::(\d{1,5}))?\Z", re.ASCII
)
_PERIODS: Final = {"s": "1s", "m": "1m", "h": "1h", "d": "1d"}
_QUOTA_PERIODS: Final = {"hour": "Hour", "day": "Day", "month": "Month"}
_AMOUNT = re.compile(r"(\d{1,13})\s*/\s*([0-9a-z]{1,16})\Z", re.ASCII)


def checked(check: Callable[[str], Any], *, keep: bool = False) -> AfterValidator:
    """Runs a check that raises `ConfigError`; pydantic collects only `ValueError`. `keep`: the text
    stays as written.
    """

    def validate(text: str) -> Any:
        try:
            value = check(text)
        except ConfigError as error:
            raise ValueError(f"{error.message}. {error.hint}") from None
        return text if keep else value

    return AfterValidator(validate)


def route_path(text: str) -> str:
    """The path of a route as the snapshot spells it: `/x/` and `/x` are the same prefix."""
    return (
        require_route_path(text.rstrip("/") or "/")
        if text.startswith("/")
        else require_route_path(text)
    )


def millis(duration: str) -> int:
    """The milliseconds of a duration. Raises `ConfigError` invalid_duration."""
    return to_milliseconds(parse_duration(duration))


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of a URL."""

    scheme: str
    host: str
    port: int


def parse_origin(text: str) -> Origin:
    """`https://host:8443` in its parts; the port is the scheme's own when absent. Raises `ConfigError`
    invalid_host.
    """
    wrong = ConfigError(
        "invalid_host",
        f"{text!r} is not a URL of an endpoint",
        "Write scheme, host and port without a path, such as https://10.0.0.7:8443.",
    )
    origin = _origin(text)
    if origin is None or origin.host.startswith("*."):
        raise wrong
    return origin


def parse_destination(text: str) -> str:
    """The normal form of where a function may call: `https://api.example.com`, the scheme's own port
    left out.

    Without a scheme it is https. A name may start with `*.`, which stands for one or more labels; a
    whole top-level domain is refused. A range of addresses is `http://10.0.0.0/8:8080` or
    `https://[fd00::/8]`, at least /8 (IPv4) or /7 (IPv6). Raises `ConfigError` invalid_host.
    """
    written = text if "://" in text else f"https://{text}"
    ranged = _RANGE.match(written)
    if ranged is not None:
        return _range(text, ranged)
    wrong = ConfigError(
        "invalid_host",
        f"{text!r} is not where a function may call",
        "Write scheme, host and port, such as https://api.example.com, https://*.example.com, "
        "http://10.0.0.7:8080 or http://10.0.0.0/8:8080.",
    )
    origin = _origin(written)
    if origin is None:
        raise wrong
    host, address = origin.host, ":" in origin.host
    if host.startswith("*.") and "." not in host[2:]:
        raise wrong
    shown = f"{origin.scheme}://{f'[{host}]' if address else host}"
    return shown if origin.port == _PORTS[origin.scheme] else f"{shown}:{origin.port}"


def parse_egress(text: str) -> str:
    """The normal form of where a function or program may call: as `parse_destination`, or `tcp://HOST:PORT`.

    Raises `ConfigError` invalid_host.
    """
    scheme, _, rest = text.strip().partition("://")
    if scheme.lower() != "tcp":
        return parse_destination(text)
    try:
        # Where a port must be said, none goes without saying: of two schemes' usual ports one is always written.
        found = [parse_destination(f"{other}://{rest}") for other in _PORTS]
    except ConfigError as error:
        message = f"{text!r} is not where a program may connect"
        raise ConfigError("invalid_host", message, error.hint) from None
    port = rest.rpartition(":")[2]
    if not port.isdecimal() or rest.endswith("]"):
        hint = "A tunnel has no usual port: write tcp://db.example.com:5432."
        raise ConfigError("invalid_host", f"{text!r} has no port", hint)
    (*_, longest) = sorted((each.partition("://")[2] for each in found), key=len)
    return f"tcp://{longest}"


def _range(text: str, written: re.Match[str]) -> str:
    """The normal form of a range of addresses. Raises `ConfigError` invalid_host."""
    scheme, six, four, port = written.groups()
    try:
        network = ipaddress.ip_network(six or four, strict=False)
    except ValueError:
        raise ConfigError("invalid_host", f"{text!r} holds no range of addresses") from None
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped:
        raise ConfigError("invalid_host", f"{text!r}: write an IPv4 range as one")
    shown = f"[{network}]" if network.version == 6 else str(network)
    number = int(port or _PORTS[scheme])
    known = f"{scheme}://{shown}" + ("" if number == _PORTS[scheme] else f":{number}")
    if str(network) != str(ipaddress.ip_interface(six or four)):
        hint = f"Write the first address of the range: {known}."
        raise ConfigError("invalid_host", f"{text!r} is an address within a range", hint)
    shortest = _SHORTEST_PREFIX[network.version]
    if network.prefixlen < shortest or not 0 < number < 65_536:
        hint = f"Write a range of at least /{shortest}, or several, and a port up to 65535."
        raise ConfigError("invalid_host", f"{text!r} is not taken", hint)
    return known


def _origin(text: str) -> Origin | None:
    """Scheme, host and port; None when there is more, or less. Raises `ConfigError` invalid_host."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    beyond = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in _PORTS or not parts.hostname or beyond or port == 0:
        return None
    return Origin(parts.scheme, normalise_host(parts.hostname), port or _PORTS[parts.scheme])


def parse_rate(text: str) -> tuple[int, int]:
    """Requests and the period in milliseconds of a rate such as 100/s, 6000/m or 10/5s.

    Raises `ConfigError` invalid_rate.
    """
    match = _AMOUNT.match(text)
    try:
        period = millis(_PERIODS.get(match[2], match[2])) if match else 0
    except ConfigError:
        period = 0
    if match is None or not period:
        raise ConfigError("invalid_rate", f"{text!r} is not a rate")
    return int(match[1]), period


def parse_quota(text: str) -> tuple[int, str]:
    """Requests and the period (`Hour`, `Day`, `Month`) of a quota such as 10000/day.

    Raises `ConfigError` invalid_rate.
    """
    match = _AMOUNT.match(text)
    if match is None or match[2] not in _QUOTA_PERIODS:
        raise ConfigError(
            "invalid_rate",
            f"{text!r} is not a quota",
            "Write a number and a period: 1000/hour, 10000/day or 1000000/month.",
        )
    return int(match[1]), _QUOTA_PERIODS[match[2]]


def require_reference(text: str) -> str:
    """Returns the path of a file that a manifest names; it is relative to the manifest.

    Raises `ConfigError` invalid_path.
    """
    if not text or PurePosixPath(text).is_absolute() or not text.isprintable():
        raise ConfigError(
            "invalid_path",
            f"{text!r} is not a path of a file here",
            "Write a path relative to the manifest.",
        )
    return text


def require_node_file(text: str) -> str:
    """Returns the path of a file that lies on the node and is never sent; it is absolute.

    Raises `ConfigError` invalid_path.
    """
    if not PurePosixPath(text).is_absolute() or not text.isprintable() or len(text) > 4_096:
        raise ConfigError(
            "invalid_path",
            f"{text!r} is not an absolute path",
            "Write where the file lies on the node, such as /etc/vedette/crowdsec.key.",
        )
    return text


Size = Annotated[str, checked(parse_size, keep=True)]
Duration = Annotated[str, checked(parse_duration, keep=True)]
Host = Annotated[str, checked(normalise_host)]
RoutePath = Annotated[str, checked(route_path)]
Destination = Annotated[str, checked(parse_destination)]
EgressDestination = Annotated[str, checked(parse_egress)]
OriginUrl = Annotated[str, checked(parse_origin, keep=True)]
RateText = Annotated[str, checked(parse_rate, keep=True)]
QuotaText = Annotated[str, checked(parse_quota, keep=True)]
FileReference = Annotated[str, checked(require_reference, keep=True)]
NodeFile = Annotated[str, checked(require_node_file, keep=True)]
