"""Binds the node's sockets and says which address each one has.

Owns: `--listen` addresses, SO_REUSEPORT groups (one socket for each engine worker), the Unix sockets and the metrics
port. Must not: accept a connection.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vedette.errors import ConfigError, UnavailableError

BACKLOG = 4096
DEFAULT_LISTEN = "localhost:8443"
DEFAULT_METRICS = "127.0.0.1:9464"
_PORT_ATTEMPTS = 20
_METRICS_HINT = "Write a loopback HOST:PORT, such as --metrics 127.0.0.1:9464."


@dataclass(frozen=True, slots=True)
class Address:
    """One `--listen`: `host` as written (no brackets), the port (0: any free one), https or http."""

    scheme: str
    host: str
    port: int

    @property
    def url(self) -> str:
        """Where a person on this machine reaches it; a wildcard address is reached as localhost."""
        host = "localhost" if self.host in ("0.0.0.0", "::") else self.host
        return f"{self.scheme}://{_bracketed(host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class Listener:
    """One bound IP address with one listening socket for each worker."""

    name: str
    address: str
    scheme: str
    url: str
    sockets: tuple[socket.socket, ...]


def parse_address(text: str) -> Address:
    """An address to listen on: `HOST:PORT`, `https://HOST:PORT` or, on loopback only, `http://HOST:PORT`.

    Raises `ConfigError` address_invalid.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "https", text
    host, colon, port = rest.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError("address_invalid", f"{text!r}: write an IPv6 address in brackets")
    is_port = port.isascii() and port.isdigit() and int(port) <= 65535
    if scheme not in ("https", "http") or not colon or not host or not is_port or "/" in host:
        raise ConfigError("address_invalid", f"{text!r} is not HOST:PORT")
    address = Address(scheme, host.lower(), int(port))
    if scheme == "http" and not _is_loopback(address):
        raise ConfigError(
            "address_invalid", f"{text!r}: plain HTTP is only for this machine's own addresses"
        )
    return address


def parse_metrics_address(text: str) -> Address:
    """The address of the metrics port: `HOST:PORT`, on loopback only, since it asks nobody who they are.

    Raises `ConfigError` address_invalid.
    """
    if "://" in text:
        raise ConfigError(
            "address_invalid", f"{text!r}: metrics are plain HTTP; write HOST:PORT", _METRICS_HINT
        )
    address = parse_address(text)
    if not _is_loopback(address):
        raise ConfigError(
            "address_invalid",
            f"{text!r}: metrics are only for this machine's own addresses",
            _METRICS_HINT,
        )
    return address


def _is_loopback(address: Address) -> bool:
    return all(ipaddress.ip_address(ip).is_loopback for ip in resolve(address.host))


def resolve(host: str) -> list[str]:
    """The IP addresses to bind for `host`; localhost is both loopback addresses, without asking a resolver.

    Raises `ConfigError` address_invalid.
    """
    if host == "localhost":
        return ["127.0.0.1", "::1"] if _has_ipv6_loopback() else ["127.0.0.1"]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError("address_invalid", f"{host!r} cannot be resolved: {error}") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def bind_listeners(addresses: Sequence[Address], workers: int) -> list[Listener]:
    """Binds every address, `workers` sockets each.

    Raises `UnavailableError` address_in_use, `ConfigError` address_invalid; nothing stays bound then.
    """
    bound: list[Listener] = []
    try:
        for name, address in _named(addresses):
            bound += _bind_address(name, address, workers)
    except BaseException:
        for listener in bound:
            _close(listener.sockets)
        raise
    return bound


def _named(addresses: Sequence[Address]) -> Iterator[tuple[str, Address]]:
    seen: dict[str, int] = {}
    for address in addresses:
        count = seen[address.scheme] = seen.get(address.scheme, 0) + 1
        yield (address.scheme if count == 1 else f"{address.scheme}-{count}"), address


def _bind_address(name: str, address: Address, workers: int) -> list[Listener]:
    """All IP addresses of one `--listen` on one port; with port 0, a port that is free on all of them."""
    for attempt in range(_PORT_ATTEMPTS):
        listeners: list[Listener] = []
        port = address.port
        try:
            for ip in resolve(address.host):
                sockets = _bind_group(ip, port, workers)
                port = int(sockets[0].getsockname()[1])
                url = Address(address.scheme, address.host, port).url
                shown = f"{_bracketed(ip)}:{port}"
                listeners.append(Listener(name, shown, address.scheme, url, sockets))
        except OSError as error:
            for listener in listeners:
                _close(listener.sockets)
            retry = address.port == 0 and error.errno == errno.EADDRINUSE
            if not retry or attempt + 1 == _PORT_ATTEMPTS:
                raise _bind_error(f"{_bracketed(address.host)}:{port}", error) from error
        else:
            return listeners
    raise AssertionError("the loop above returns or raises")


def _bind_error(shown: str, error: OSError) -> ConfigError | UnavailableError:
    if error.errno == errno.EADDRINUSE:
        return UnavailableError("address_in_use", f"{shown} is in use by another program")
    if error.errno == errno.EACCES:
        return ConfigError(
            "address_invalid",
            f"{shown}: no permission to listen on this port",
            "Choose a port from 1024 up with --listen HOST:PORT.",
        )
    return ConfigError("address_invalid", f"cannot listen on {shown}: {error.strerror}")


def _bind_group(ip: str, port: int, count: int) -> tuple[socket.socket, ...]:
    """`count` listening sockets on one port, which share its connections (SO_REUSEPORT)."""
    if port:
        _require_free(ip, port)
    group: list[socket.socket] = []
    try:
        for _ in range(count):
            made = _tcp_socket(ip)
            group.append(made)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            made.bind((ip, port))
            port = int(made.getsockname()[1])
        for made in group:
            made.setblocking(
                False
            )  # a worker waits for several at once; accept must never block it
            made.listen(BACKLOG)
    except BaseException:
        _close(group)
        raise
    return tuple(group)


def _require_free(ip: str, port: int) -> None:
    """Raises `OSError` EADDRINUSE. With SO_REUSEPORT alone, a second node would share the port unnoticed."""
    with _tcp_socket(ip) as probe:
        probe.bind((ip, port))


def _tcp_socket(ip: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return made


def bind_unix(path: Path, mode: int = 0o600) -> socket.socket:
    """A listening Unix socket. Replaces one that a dead node left; the caller holds the node's lock."""
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o777 & ~mode)
    try:
        made.bind(str(path))
    except OSError:
        made.close()
        raise
    finally:
        os.umask(mask)
    made.listen(BACKLOG)
    return made


def bind_metrics(text: str | None) -> socket.socket:
    """The metrics port: the one asked for, else 127.0.0.1:9464, else any free one on loopback.

    Raises as `parse_metrics_address` and `bind_listeners` do, the latter only for a port that was asked for.
    """
    wanted = parse_metrics_address(text or DEFAULT_METRICS)
    ip = resolve(wanted.host)[0]
    attempts = [wanted.port] if text else [wanted.port, 0]
    for port in attempts:
        made = _tcp_socket(ip)
        try:
            made.bind((ip, port))
            made.listen(128)
        except OSError as error:
            made.close()
            if port == attempts[-1]:
                raise _bind_error(f"{_bracketed(ip)}:{port}", error) from error
        else:
            return made
    raise AssertionError("the loop above returns or raises")


def shown_address(bound: socket.socket) -> str:
    """`IP:PORT` of a bound TCP socket, IPv6 in brackets."""
    ip, port = bound.getsockname()[:2]
    return f"{_bracketed(str(ip))}:{port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _close(sockets: Sequence[socket.socket]) -> None:
    for made in sockets:
        with contextlib.suppress(OSError):
            made.close()
