"""One careful GET: https (plain only on this machine), no proxy, limits on size and time.

Owns: which URLs may be asked, and what it means when nothing usable comes back. Must not: follow a
redirect, keep anything, or put a header it sends into an error: some are secrets.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from vedette import __version__
from vedette.errors import ConfigError

_PART: Final = 64 * 1024


class NoAnswerError(Exception):
    """Nothing usable came back; the text says why. Who asked knows what that means."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who the server must be, where that is not a matter of its host's name: `verify` looks at its leaf (DER), whose
    chain `context` has verified, and raises `NoAnswerError`.
    """

    context: ssl.SSLContext
    verify: Callable[[bytes], None]


def split_url(url: str) -> SplitResult:
    """The parts of a URL that may be asked. Raises `NoAnswerError` with what is wrong with it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise NoAnswerError(f"{url[:200]!r} is not a URL") from None
    if not parts.hostname or port == 0 or not url.isascii() or not url.isprintable() or " " in url:
        raise NoAnswerError(f"{url[:200]!r} is not a URL")
    if parts.username is not None or parts.password is not None:
        raise NoAnswerError("a password has no place in a URL")
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname)):
        return parts
    message = f"{parts.scheme}://{parts.netloc}: only https, or http on this machine itself"
    raise NoAnswerError(message)


def require_ca(pem: str | None) -> None:
    """Raises `ConfigError` certificate_unreadable when `pem` is there and no certificate is in it."""
    if pem is not None:
        _context(pem)


@contextlib.contextmanager
def exchange(
    parts: SplitResult,
    headers: Mapping[str, str],
    *,
    ca_pem: str | None,
    seconds: float,
    peer: Peer | None = None,
) -> Iterator[http.client.HTTPResponse]:
    """The answer to a GET; the connection is cut after `seconds`, however slowly it comes.

    Raises `NoAnswerError`; `ConfigError` certificate_unreadable.
    """
    host, port = parts.hostname or "", parts.port
    timeout = max(seconds, 0.01)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = _context(ca_pem) if peer is None else peer.context
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.connect()
        # A timeout of a socket is for one read; a server that sends a byte a second would have us for hours.
        cut = threading.Timer(timeout, _cut, (connection.sock,))
        cut.daemon = True
        cut.start()
        try:
            if peer is not None:
                peer.verify(_leaf(connection.sock))
            sent = {"user-agent": f"vedette/{__version__}", **headers}
            connection.request("GET", target, headers=sent)
            yield connection.getresponse()
        finally:
            cut.cancel()
    except ssl.SSLCertVerificationError as error:
        raise NoAnswerError(f"its certificate is not trusted: {error.verify_message}") from error
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswerError(str(error) or type(error).__name__) from error
    finally:
        connection.close()


def read_body(
    response: http.client.HTTPResponse, most: int, seconds: float, left: Callable[[], float]
) -> bytes:
    """The body, of at most `most` bytes; `left` tells the rest of `seconds`. Raises `NoAnswerError`."""
    body = bytearray()
    while chunk := response.read1(_PART):
        body += chunk
        if len(body) > most:
            raise NoAnswerError(f"it is larger than {most // 1024} KiB")
    if left() <= 0:  # the connection was cut: what there is may be a part
        raise NoAnswerError(f"it took longer than {seconds:g} s")
    return bytes(body)


def _leaf(connected: socket.socket) -> bytes:
    assert isinstance(connected, ssl.SSLSocket)
    return connected.getpeercert(binary_form=True) or b""


def _cut(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def _context(ca_pem: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cadata=ca_pem)
    except (ssl.SSLError, ValueError):
        raise ConfigError("certificate_unreadable", "the CA file holds no certificate") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
